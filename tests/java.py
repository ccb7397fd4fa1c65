"""Stand-ins for the Java services: what they write, byte for byte, and one that does their work.

They send no headers, leave null fields out, and put a record's key where Java's partitioner does.
"""

import json
import threading
from collections.abc import Sequence
from decimal import Decimal
from types import TracebackType
from typing import Any, Self
from uuid import uuid4

from confluent_kafka import Consumer, Producer

from shop.kafka.connection import Connection
from shop.topics import NEW_ORDER, ORDER_APPROVED, ORDER_REJECTED, PIX, SEND_EMAIL

ORDER = "br.com.alura.ecommerce.Order"
TEXT = "java.lang.String"
AMOUNT = "3443.9094220305460112285800278186798095703125"  # as BigDecimal(double) prints it
FRAUD_FROM = Decimal(4500)


def envelope(type_: str, payload: str, correlation_id: str) -> bytes:
    """As Gson writes a Message; `payload` is JSON."""
    return (
        f'{{"type":"{type_}","payload":{payload},"correlationId":{{"id":"{correlation_id}"}}}}'
    ).encode()


def order(email: str, amount: str = AMOUNT, order_id: str | None = None) -> str:
    """An order's JSON; without `order_id` the field is left out, as Gson does with null."""
    identity = f'"orderId":"{order_id}",' if order_id else ""
    return f'{{{identity}"amount":{amount},"email":"{email}"}}'


def gson(text: str) -> str:
    """A string as Gson writes it: UTF-8, with what HTML knows escaped."""
    written = json.dumps(text, ensure_ascii=False)
    for character in "<>&='":
        written = written.replace(character, f"\\u{ord(character):04x}")
    return written


class JavaProducer:
    """A KafkaDispatcher: acks all, no headers."""

    def __init__(self, kafka: Connection) -> None:
        self._producer = Producer(
            {
                "bootstrap.servers": kafka.bootstrap_servers,
                "partitioner": "murmur2_random",  # Java's, also for null keys
                "acks": "all",
            }
        )

    def send(
        self,
        topic: str,
        key: str | None,
        value: bytes | None,
        headers: Sequence[tuple[str, bytes]] = (),
    ) -> None:
        self._producer.produce(topic, value, key, headers=list(headers))

    def new_order(
        self,
        email: str,
        amount: str = AMOUNT,
        order_id: str | None = None,
        title: str = "NewOrderMain",
    ) -> str:
        """Send an order under a correlation id that begins here, which is given back. The same
        order id again is what the Java API does when its caller repeats a uuid."""
        hop = _sent_to(NEW_ORDER.name, f"{title}({uuid4()})")
        self.send(NEW_ORDER.name, email, envelope(ORDER, order(email, amount, order_id), hop))
        return hop

    def email(self, recipient: str, text: str, correlation_id: str) -> None:
        hop = _sent_to(SEND_EMAIL.name, correlation_id)
        self.send(SEND_EMAIL.name, recipient, envelope(TEXT, gson(text), hop))

    def pix(self, source: str | None, target: str | None, amount: str = "0.1") -> str:
        """As Spring's JsonSerializer writes a PixDTO; the identifier."""
        identifier = str(uuid4())
        keys = {"chaveOrigem": source, "chaveDestino": target}
        value = (
            f'{{"identifier":"{identifier}",'
            + "".join(f"{json.dumps(name)}:{json.dumps(key)}," for name, key in keys.items())
            + f'"valor":{amount},"dataTransferencia":[2026,11,22,12,33,42,666228733],'
            '"status":"EM_PROCESSAMENTO"}'
        )
        type_id = [("__TypeId__", b"com.alura.pix.dto.PixDTO")]
        self.send(PIX.name, identifier, value.encode(), type_id)
        return identifier

    def flush(self) -> None:
        assert self._producer.flush(30) == 0, "the broker has not acknowledged all"


class JavaFraud:
    """The fraud detector as a program of its own: reads by its group, commits what it has handled,
    and sends the order on under the continued correlation id."""

    def __init__(self, kafka: Connection, group: str = "FraudDetectorService") -> None:
        self.handled = 0
        self.failure: BaseException | None = None
        self._producer = JavaProducer(kafka)
        self._consumer = Consumer(
            {
                "bootstrap.servers": kafka.bootstrap_servers,
                "group.id": group,
                "client.id": f"{group}-{uuid4()}",
                "auto.offset.reset": "latest",
                "enable.auto.commit": False,
            }
        )
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name=group, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._stopping.set()
        self._thread.join()
        if self.failure is not None:
            raise self.failure

    def _run(self) -> None:
        try:
            self._consumer.subscribe([NEW_ORDER.name])
            while not self._stopping.is_set():
                record = self._consumer.poll(0.1)
                if record is not None and record.error() is None:
                    self._decide(record)
                    self._consumer.commit(record, asynchronous=False)
        except BaseException as error:
            self.failure = error
        finally:
            self._consumer.close()

    def _decide(self, record: Any) -> None:
        message = json.loads(record.value(), parse_float=Decimal)
        payload = message["payload"]
        rejected = Decimal(payload["amount"]) >= FRAUD_FROM
        topic = (ORDER_REJECTED if rejected else ORDER_APPROVED).name
        hop = _sent_to(topic, f"{message['correlationId']['id']}-FraudDetectorService({uuid4()})")
        value = order(payload["email"], str(payload["amount"]), payload.get("orderId"))
        self._producer.send(topic, payload["email"], envelope(message["type"], value, hop))
        self._producer.flush()
        self.handled += 1


def _sent_to(topic: str, correlation_id: str) -> str:
    return f"{correlation_id}-_{topic}({uuid4()})"
