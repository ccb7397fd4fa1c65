"""Counting what is there: rows of a database, records of a topic."""

from typing import Any

from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition
from sqlalchemy import func, select

from shop.db.database import Database
from shop.kafka.connection import Connection
from shop.kafka.topic import Topic
from shop.kafka.wire import EVENT_ID


def count(database: Database, table: Any) -> int:
    with database.read() as connection:
        return connection.scalar(select(func.count()).select_from(table)) or 0


def read_all(kafka: Connection, topic: Topic[Any]) -> list[Any]:
    """Every record of a topic as it stands now, all partitions at once."""
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap_servers, "group.id": "reader"})
    where = [TopicPartition(topic.name, n, OFFSET_BEGINNING) for n in range(topic.partitions)]
    count = sum(consumer.get_watermark_offsets(partition, timeout=60)[1] for partition in where)
    consumer.assign(where)
    records: list[Any] = []
    while len(records) < count:
        records += consumer.consume(min(10_000, count - len(records)), 5.0)
    consumer.close()
    return records


def event_id(record: Any) -> str:
    return dict(record.headers())[EVENT_ID].decode()
