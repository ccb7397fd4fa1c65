"""Keys that a group holds back, released from outside."""

from collections.abc import Sequence

from sqlalchemy import delete, inspect

from shop.db.database import Database
from shop.db.tables import held_key


def release_letters(database: Database, group: str, letters: Sequence[str]) -> None:
    """Let a group hold nothing back behind these letters any more. Where others of a key stand
    behind them, the first of those takes their place. Raises StoreUnavailable."""
    with database.read() as connection:
        if not inspect(connection).has_table(held_key.name, schema=database.schema):
            return
    with database.write() as connection:
        connection.execute(
            delete(held_key).where(
                held_key.c.consumer_group == group, held_key.c.letter.in_(letters)
            )
        )
