"""Ended spans on their way out of the process, in a thread of its own."""

import logging
import os
import threading
from collections import defaultdict, deque
from typing import Protocol

from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor

from shop.tracing.otlp import Written, encoded

log = logging.getLogger(__name__)

QUEUED = 32_768  # of some 700 bytes each
BATCH = 4_096
DELAY_MS = 1_000
END_S = 2.0  # for what is left when the process ends


class Receiver(Protocol):
    def take(self, written: Written) -> object:
        """None when it took them, or why not."""

    def shutdown(self) -> None: ...


class _Batch:
    """The spans of one request, one behind the other: memory that is written to in turn costs less
    than a piece for each, and the garbage collector knows nothing of it."""

    __slots__ = ("count", "written")

    def __init__(self) -> None:
        self.count = 0
        self.written: defaultdict[str, bytearray] = defaultdict(bytearray)


class SpanQueue(SpanProcessor):
    """Sends spans DELAY_MS after they ended, or when the queue is half full; a full one drops.

    A span is encoded where it ends. OTEL_BSP_MAX_QUEUE_SIZE, OTEL_BSP_MAX_EXPORT_BATCH_SIZE and
    OTEL_BSP_SCHEDULE_DELAY say otherwise. Thread-safe."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._room = _number("OTEL_BSP_MAX_QUEUE_SIZE", QUEUED)
        self._batch = min(_number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", BATCH), self._room)
        self._delay_s = _number("OTEL_BSP_SCHEDULE_DELAY", DELAY_MS) / 1000
        self._wake_at = self._room // 2
        self._lock = threading.RLock()  # a finalizer may end a span while another one does
        self._full: deque[_Batch] = deque()
        self._filling = _Batch()
        self._unsent = 0
        self._dropped = 0
        self._unwritten = 0
        self._failing = False
        self._sending = threading.Lock()
        self._wake = threading.Event()
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="spans", daemon=True)
        self._thread.start()

    def on_end(self, span: ReadableSpan) -> None:
        if self._unsent >= self._room:
            self._dropped += 1
            return
        try:
            scope, written = encoded(span)  # type: ignore[arg-type]  # Provider's are Spans
        except Exception as error:  # no span is worth what it tells of
            level = logging.DEBUG if self._unwritten else logging.WARNING  # once in a process
            log.log(level, "span %s is lost: it cannot be written: %r", span.name, error)
            self._unwritten += 1
            return
        with self._lock:
            batch = self._filling
            batch.written[scope] += written
            batch.count += 1
            self._unsent += 1
            if batch.count >= self._batch:
                self._seal(batch)
        if self._unsent >= self._wake_at and not self._wake.is_set():
            self._wake.set()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Send what is there now; whether it was taken."""
        with self._sending:
            return self._send_all()

    def shutdown(self) -> None:
        self._ended = True
        self._wake.set()
        self._thread.join(END_S)
        self._receiver.shutdown()
        if left := self._unsent:
            log.warning("%d spans were not sent before the end", left)

    def _run(self) -> None:
        while not self._ended:
            self._wake.wait(self._delay_s)
            self._wake.clear()
            self.force_flush()
        self.force_flush()  # what ended meanwhile

    def _send_all(self) -> bool:
        trouble: object = None
        while batch := self._next():
            try:
                trouble = self._receiver.take(batch.written)
            except Exception as error:
                trouble = repr(error)
            with self._lock:
                self._unsent -= batch.count
            self._tell(trouble, batch.count)
            if self._ended and trouble:  # nor will it take the others
                break
        return not trouble

    def _next(self) -> _Batch | None:
        with self._lock:
            if not self._full and self._filling.count:
                self._seal(self._filling)
            return self._full.popleft() if self._full else None

    def _seal(self, batch: _Batch) -> None:
        fresh = _Batch()  # which may wake a finalizer that ends a span, here and now
        if batch is self._filling:
            self._filling = fresh
            self._full.append(batch)

    def _tell(self, trouble: object, count: int) -> None:
        """One line when the receiver goes, one when it is back, one for what was dropped."""
        if trouble and not self._failing:
            log.warning("%d spans are lost, trying on with later ones: %.300s", count, trouble)
        elif self._failing and not trouble:
            log.info("the collector takes spans again")
        self._failing = bool(trouble)
        dropped, self._dropped = self._dropped, 0
        if dropped:
            log.warning("%d spans were dropped: more than the collector takes in time", dropped)


def _number(variable: str, default: int) -> int:
    """Of an environment variable that is one, and above 0."""
    value = os.environ.get(variable, "")
    if not value:
        return default
    if value.isascii() and value.isdecimal() and int(value) > 0:
        return int(value)
    log.warning("%s=%s is no number above 0; it is %d", variable, value, default)
    return default
