"""How far the tortured shop is, seen from outside while it runs."""

from collections.abc import Iterable
from decimal import Decimal

from sqlalchemy import ColumnElement, func, select

from shop.databases import Databases
from shop.db.database import Database
from shop.db.relay import outbox_size
from shop.groups import Group, Groups
from shop.kafka.errors import KafkaError
from shop.orders.model import OrderRow, Status
from shop.services import SERVICE_OF_GROUP
from shop.torture.orders import Order
from shop.torture.place import Place


class Look:
    """To be used once the API has been ready, which makes the orders database."""

    def __init__(self, place: Place) -> None:
        self._databases = Databases(place.settings)
        self._groups = Groups(place.connection, self._databases, SERVICE_OF_GROUP)

    def close(self) -> None:
        self._databases.close()

    def decided(self) -> int:
        """How many orders are decided, as a customer sees it."""
        return self._orders_that(
            OrderRow.status != Status.ACCEPTED, OrderRow.answered_with.is_not(None)
        )

    def why_not(self) -> str:
        """What is not through yet, in a few words; empty when all is."""
        try:
            if undecided := self._orders_that(OrderRow.status == Status.ACCEPTED):
                return f"{undecided} orders are not decided"
            for name in dict.fromkeys(SERVICE_OF_GROUP.values()):
                database = self._databases.existing(name)
                if database is not None and (waiting := outbox_size(database)[0]):
                    return f"{waiting} records of {name} are not published"
            found = self._groups.describe(list(SERVICE_OF_GROUP))
        except KafkaError as error:
            return str(error)
        behind = [group.name for group in found if not _is_through(group)]
        return f"{', '.join(behind)} have not read all" if behind else ""

    def not_as_accepted(self, accepted: Iterable[Order]) -> list[str]:
        """The ids of those that are not in the orders database as they were sent."""
        query = select(OrderRow.id, OrderRow.email, OrderRow.amount)
        with self._orders.read() as connection:
            kept = {row.id: (row.email, row.amount) for row in connection.execute(query)}
        return [
            order.id
            for order in accepted
            if kept.get(order.id) != (order.email, Decimal(order.amount))
        ]

    def _orders_that(self, *conditions: ColumnElement[bool]) -> int:
        query = select(func.count()).select_from(OrderRow).where(*conditions)
        with self._orders.read() as connection:
            return connection.scalar(query) or 0

    @property
    def _orders(self) -> Database:
        database = self._databases.existing("orders")
        assert database is not None, "the API has not been ready"
        return database


def _is_through(group: Group) -> bool:
    """Whether somebody reads each of its partitions, and has come to the end."""
    return group.state.state == "stable" and all(
        standing.reader is not None
        and standing.bounds is not None
        and (standing.position or 0) >= standing.bounds.high
        for standing in group.standings
    )
