"""What must be there of a record that a group has handled: in its database, or as a file."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

from sqlalchemy import Connection, select

from shop.deadletters.intake import letter_of
from shop.deadletters.model import LetterRow
from shop.fraud.model import Decision
from shop.kafka.wire import Message
from shop.orders.listeners import DECIDED
from shop.orders.model import OrderRow
from shop.pix.model import PaymentRow
from shop.pix.model import Status as PixStatus
from shop.reports.files import file_name
from shop.reports.model import CustomerOrder, Report
from shop.topics import order_identity, pix_identity
from shop.users.model import FanOutRow, UserRow
from shop.verify.report import Kind

Messages: TypeAlias = Sequence[Message[Any]]


@dataclass(frozen=True)
class Effect:
    """`names` says which row a record must have led to, `present` which of those rows are there."""

    kind: Kind
    what: str
    names: Callable[[Message[Any]], str]
    present: Callable[[Connection, Collection[str]], Collection[str]]

    def missing(self, connection: Connection, messages: Messages) -> list[tuple[str, Message[Any]]]:
        """The records without their effect, by the name of what is missing."""
        named = [(self.names(message), message) for message in messages]
        there = set(self.present(connection, {name for name, _ in named}))
        return [(name, message) for name, message in named if name not in there]


def _among(column: Any, *conditions: Any) -> Callable[[Connection, Collection[str]], Sequence[str]]:
    """The rows of a table by a column, of those that meet the conditions."""

    def present(connection: Connection, names: Collection[str]) -> Sequence[str]:
        return connection.scalars(select(column).where(column.in_(names), *conditions)).all()

    return present


def _email(message: Message[Any]) -> str:
    return str(message.event.email)


def _report(message: Message[Any]) -> str:
    return file_name(message.event.uuid)


def _letter(message: Message[Any]) -> str:
    return letter_of(message).id


def _decision(message: Message[Any]) -> str:
    return f"{order_identity(message)} {DECIDED[message.topic].value}"


def _decided(connection: Connection, names: Collection[str]) -> Collection[str]:
    ids = [name.rpartition(" ")[0] for name in names]
    query = select(OrderRow.id, OrderRow.status).where(OrderRow.id.in_(ids))
    return [f"{id_} {status}" for id_, status in connection.execute(query)]


def _event_id(message: Message[Any]) -> str:
    return message.event_id


EFFECTS: Mapping[str, Effect] = {
    "fraud": Effect(
        Kind.UNDECIDED, "orders handled without a decision", order_identity,
        _among(Decision.order_id),
    ),
    "users": Effect(
        Kind.LOST, "customers of handled orders", _email, _among(UserRow.email)
    ),
    "batch": Effect(
        Kind.LOST, "fan-outs that were asked for", _event_id, _among(FanOutRow.id)
    ),
    "orders": Effect(
        Kind.UNDECIDED, "orders whose decision was read and not noted", _decision, _decided
    ),
    "reports": Effect(
        Kind.LOST, "reports that were asked for", _report, _among(Report.name)
    ),
    "deadletter": Effect(
        Kind.LOST, "dead letters", _letter, _among(LetterRow.id)
    ),
    "reports-orders": Effect(
        Kind.LOST, "orders that reports tell of", order_identity, _among(CustomerOrder.order_id)
    ),
    "pix": Effect(
        Kind.UNDECIDED, "payments handled without a decision", pix_identity,
        _among(PaymentRow.identifier, PaymentRow.status != PixStatus.IN_PROCESS.value),
    ),
}  # fmt: skip
