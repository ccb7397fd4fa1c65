"""Counting what is there: rows of a database, records of a topic."""

from typing import Any

from confluent_kafka import Consumer, TopicPartition
from sqlalchemy import func, select

from shop.db.database import Database
from shop.kafka.connection import Connection
from shop.kafka.topic import Topic
from shop.kafka.wire import EVENT_ID


def count(database: Database, table: Any) -> int:
    with database.read() as connection:
        return connection.scalar(select(func.count()).select_from(table)) or 0


def read_all(kafka: Connection, topic: Topic[Any]) -> list[Any]:
    """Every record of a topic as it stands now."""
    consumer = Consumer({"bootstrap.servers": kafka.bootstrap_servers, "group.id": "reader"})
    records = []
    for number in range(topic.partitions):
        where = TopicPartition(topic.name, number, 0)
        high = consumer.get_watermark_offsets(where)[1]
        consumer.assign([where])
        got: list[Any] = []
        while len(got) < high:
            got += consumer.consume(high - len(got), 0.5)
        records += got
    consumer.close()
    return records


def event_id(record: Any) -> str:
    return dict(record.headers())[EVENT_ID].decode()
