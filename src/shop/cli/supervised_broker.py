import time

from shop.broker import BrokerError, EmbeddedKafka, terminal_progress
from shop.supervisor import UNKNOWN

_ANSWER_S = 10.0  # for a broker that runs already


class Broker:
    """The embedded Kafka as a Member. One that runs already is used, and left running. Of a
    cluster, each node that ends is started again by itself, the others going on."""

    def __init__(self, kafka: EmbeddedKafka) -> None:
        self.name = "kafka"  # of a cluster: with the node that ended last
        self.ready = False
        self._kafka = kafka
        self._ours = False
        self._started_before = False
        self._failure: BrokerError | None = None

    def start(self) -> None:
        again, self._started_before = self._started_before, True
        self.ready = False
        self._failure = None
        try:
            if again:
                self._start_again()
            else:
                if not self._runs_already():
                    with terminal_progress() as progress:
                        self._kafka.start(progress=progress)
                    self._ours = True
                self.ready = True
        except BrokerError as error:
            if not again:
                raise
            self._failure = error

    def poll(self) -> int | None:
        if self._failure is not None:
            return 1
        ended = self._kafka.ended()
        if ended:
            node, code = next(iter(ended.items()))
            if self._kafka.nodes > 1:
                self.name = f"kafka node {node}"
            return UNKNOWN if code is None else code
        if not self.ready:
            self.ready = self._kafka.status().answers
        return None

    def last_words(self) -> str:
        return str(self._failure or f"see {self._kafka.directory}/node-*/logs/kafka.log")

    def stop(self, timeout: float) -> None:
        if self._ours:
            self._kafka.stop(timeout)

    def kill(self) -> None:
        if self._ours:
            self._kafka.kill()

    def _runs_already(self) -> bool:
        """Whether one answers; waits for one that is on its way in or out."""
        deadline = time.monotonic() + _ANSWER_S
        while self._kafka.running:
            if any(node.answers for node in self._kafka.status().nodes):
                return True
            if time.monotonic() > deadline:
                raise BrokerError("Kafka runs but does not answer; `shop broker stop` ends it")
            time.sleep(0.05)
        return False

    def _start_again(self) -> None:
        """At once, without waiting for it to answer: meanwhile another node may end."""
        if not self._kafka.running:
            self._ours = True  # whosever it was
        if self._ours:
            for node in self._kafka.ended():
                self._kafka.kill(node)  # something of it may be left
        self._kafka.start_again(detached=not self._ours)
