import time

from shop.broker import BrokerError, EmbeddedKafka, terminal_progress

_ANSWER_S = 10.0  # for a broker that runs already


class Broker:
    """The embedded Kafka as a Member. One that runs already is used, and left running."""

    name = "kafka"

    def __init__(self, kafka: EmbeddedKafka) -> None:
        self.ready = False
        self._kafka = kafka
        self._ours = False
        self._started_before = False
        self._failure: BrokerError | None = None

    def start(self) -> None:
        first, self._started_before = not self._started_before, True
        self.ready = False
        self._failure = None
        try:
            if self._ours:
                self._start_again()
            elif not self._runs_already():
                with terminal_progress() as progress:
                    self._kafka.start(progress=progress)
                self._ours = True
            self.ready = True
        except BrokerError as error:
            if first:
                raise
            self._failure = error

    def poll(self) -> int | None:
        if self._failure is not None:
            return 1
        if self._ours:
            return self._kafka.poll()
        return None if self._kafka.running else 0

    def last_words(self) -> str:
        return str(self._failure or f"see {self._kafka.directory}/node-1/logs/kafka.log")

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
        try:
            self._kafka.start()
        except BrokerError:  # something of the last one is left
            self._kafka.stop()
            self._kafka.start()
