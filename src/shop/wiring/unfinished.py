"""What groups have taken on and do in the background, after the position has moved on."""

from collections.abc import Callable, Mapping

from sqlalchemy import inspect

from shop.db.database import Database
from shop.users.fan_out import unfinished
from shop.users.model import FanOutRow


def fan_outs_running(database: Database) -> int:
    """None in a database that has no tables yet. Raises StoreUnavailable."""
    with database.read() as connection:
        table = FanOutRow.__tablename__
        there = inspect(connection).has_table(table, schema=database.schema)
    return unfinished(database)[0] if there else 0


UNFINISHED: Mapping[str, Callable[[Database], int]] = {"batch": fan_outs_running}
