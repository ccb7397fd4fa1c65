"""The tables that every service's database has beside its own: what makes effects happen once."""

from decimal import Decimal
from typing import Any, ClassVar

from sqlalchemy import (
    BigInteger,
    Column,
    Dialect,
    Integer,
    LargeBinary,
    MetaData,
    String,
    Table,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import DeclarativeBase
from sqlalchemy.types import TypeDecorator


class ExactDecimal(TypeDecorator[Decimal]):
    """A Decimal of any number of digits, kept as text: no database's number type keeps them all."""

    impl = Text
    cache_ok = True

    def process_bind_param(self, value: Decimal | None, dialect: Dialect) -> str | None:
        return None if value is None else str(value)

    def process_result_value(self, value: Any, dialect: Dialect) -> Decimal | None:
        return None if value is None else Decimal(value)


class Base(DeclarativeBase):
    """The services' models. Each service has a database of its own, whatever this class says."""

    type_annotation_map: ClassVar[dict[Any, Any]] = {int: BigInteger}  # times are milliseconds


messaging = MetaData()

# An event (or what a listener made its effect one by) that a group has handled.
receipt = Table(
    "receipt",
    messaging,
    Column("consumer_group", String, primary_key=True),
    Column("id", String, primary_key=True),
    Column("received_at", BigInteger, nullable=False),  # seconds since the epoch
    sqlite_with_rowid=False,
)

# The next offset that a group reads. Moved by compare-and-set only.
position = Table(
    "position",
    messaging,
    Column("consumer_group", String, primary_key=True),
    Column("topic", String, primary_key=True),
    Column("partition", Integer, primary_key=True),
    Column("next_offset", BigInteger, nullable=False),
    sqlite_with_rowid=False,
)

# Which topics a group's positions are of, by Kafka's topic ids: one made anew has another.
topic_read = Table(
    "topic_read",
    messaging,
    Column("consumer_group", String, primary_key=True),
    Column("topic", String, primary_key=True),
    Column("id", String, nullable=False),
    sqlite_with_rowid=False,
)

# The letters behind which a group holds back what else comes under their key.
held_key = Table(
    "held_key",
    messaging,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),  # their order
    Column("consumer_group", String, nullable=False),
    Column("topic", String, nullable=False),
    Column("name", String, nullable=False),  # stands for the key
    Column("letter", String, nullable=False),
    UniqueConstraint("consumer_group", "topic", "name", "letter"),
    sqlite_autoincrement=True,
)

# What is to be published, in the order of the ids. Emptied again and again, so ids must never
# start over: hence AUTOINCREMENT.
outbox = Table(
    "outbox",
    messaging,
    Column("id", BigInteger().with_variant(Integer, "sqlite"), primary_key=True),
    Column("topic", String, nullable=False),
    Column("key", String),  # or else raw_key, where it is not UTF-8
    Column("value", LargeBinary),
    Column("headers", LargeBinary, nullable=False),  # msgpack: [[name, bytes], …]
    Column("created_at", BigInteger, nullable=False),  # milliseconds since the epoch
    Column("parked", Text),  # why the broker will never take it; it is not tried again
    Column("raw_key", LargeBinary),
    sqlite_autoincrement=True,
)
