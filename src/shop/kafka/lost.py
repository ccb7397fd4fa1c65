"""Clients that can never reach their brokers again: docs/decisions/0016."""

from shop.kafka.connection import Connection
from shop.kafka.errors import KafkaError

ANSWER_S = 1.0  # for either; an idle fetch holds up a question on its connection for half of it
TIMES = 3  # that others were reached and the client was not


class Lost:
    """Tells a client that has lost its brokers for good from one that is about to connect again.

    librdkafka forgets the brokers that an answer about the cluster does not name. A broker that was
    away may name none, not even itself, until its controller has heard of it again; a client that
    asks in this moment has nobody left to ask (librdkafka issue 5301). So it is lost when another
    client reaches brokers time and again, and it does not. For one thread."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._times = 0

    def seems_so(self) -> bool:
        """To be called when the client has just failed to reach any, a second or more apart."""
        try:
            self._times += bool(self._connection.metadata(ANSWER_S).brokers)
        except KafkaError:
            self._times = 0
        return self._times >= TIMES

    def found(self) -> None:
        """It has reached one."""
        self._times = 0
