"""What groups have taken on and do in the background, after the position has moved on."""

from collections.abc import Callable, Mapping

from sqlalchemy import func, inspect, select

from shop.db.database import Database
from shop.users.model import FanOutRow, State


def fan_outs_running(database: Database) -> int:
    """None in a database that has no tables yet. Raises StoreUnavailable."""
    running = select(func.count()).where(FanOutRow.state == State.RUNNING)
    with database.read() as connection:
        if not inspect(connection).has_table(FanOutRow.__tablename__, schema=database.schema):
            return 0
        return connection.scalar(running) or 0


UNFINISHED: Mapping[str, Callable[[Database], int]] = {"batch": fan_outs_running}
