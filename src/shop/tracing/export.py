"""Ended spans on their way out of the process, in a thread of its own."""

import logging
import os
import threading
from collections import defaultdict, deque
from typing import Protocol

from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor

from shop.tracing.otlp import Written, encoded

log = logging.getLogger(__name__)

QUEUED = 32_768
BATCH = 4_096
# Most spans have some 700 bytes, those of failures with long texts 25 kB.
QUEUED_BYTES = 64 << 20
BATCH_BYTES = 4 << 20  # a collector takes requests of 20 MiB
DELAY_MS = 1_000
END_S = 2.0  # for what is left when the process ends


class Receiver(Protocol):
    def take(self, written: Written) -> object:
        """None when it took them, or why not."""

    def shutdown(self) -> None: ...


class _Batch:
    """The spans of one request, one behind the other: memory that is written to in turn costs less
    than a piece for each, and the garbage collector knows nothing of it."""

    __slots__ = ("count", "size", "written")

    def __init__(self) -> None:
        self.count = 0
        self.size = 0  # in bytes
        self.written: defaultdict[str, bytearray] = defaultdict(bytearray)


class SpanQueue(SpanProcessor):
    """Sends spans every DELAY_MS, or when the queue is half full; a full one drops.

    A span is encoded where it ends. OTEL_BSP_MAX_QUEUE_SIZE, OTEL_BSP_MAX_EXPORT_BATCH_SIZE and
    OTEL_BSP_SCHEDULE_DELAY say otherwise; the bytes have limits of their own. Thread-safe."""

    def __init__(self, receiver: Receiver) -> None:
        self._receiver = receiver
        self._room = _number("OTEL_BSP_MAX_QUEUE_SIZE", QUEUED)
        self._batch = min(_number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", BATCH), self._room)
        self._delay_s = _number("OTEL_BSP_SCHEDULE_DELAY", DELAY_MS) / 1000
        self._wake_at = self._room // 2
        self._lock = threading.RLock()  # a finalizer may end a span while another one does
        self._full: deque[_Batch] = deque()
        self._filling = _Batch()
        self._waiting = self._waiting_bytes = 0
        self._on_the_way = self._lost_at_end = 0
        self._dropped = 0
        self._unwritten = 0
        self._failing = False
        self._sending = threading.Lock()
        self._wake = threading.Event()
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="spans", daemon=True)
        self._thread.start()

    def on_end(self, span: ReadableSpan) -> None:
        if self._waiting >= self._room or self._waiting_bytes >= QUEUED_BYTES:
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
            batch.size += len(written)
            self._waiting += 1
            self._waiting_bytes += len(written)
            if batch.count >= self._batch or batch.size >= BATCH_BYTES:
                self._seal(batch)
        half_full = self._waiting >= self._wake_at or self._waiting_bytes >= QUEUED_BYTES // 2
        if half_full and not self._wake.is_set():
            self._wake.set()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Send what is there now; whether all of it was taken. False too when it was not its turn
        within the time."""
        if not self._sending.acquire(timeout=timeout_millis / 1000):
            return False
        try:
            return self._send_all()
        finally:
            self._sending.release()

    def shutdown(self) -> None:
        self._ended = True
        self._wake.set()
        self._thread.join(END_S)
        self._receiver.shutdown()
        if left := self._waiting + self._on_the_way + self._lost_at_end:
            log.warning("%d spans may be lost: the process ends before they are taken", left)
        self._tell_dropped()

    def _run(self) -> None:
        while not self._ended:
            self._wake.wait(self._delay_s)
            self._wake.clear()
            self._flush()
        while self._waiting and self._flush():  # what ended meanwhile
            pass

    def _flush(self) -> bool:
        with self._sending:
            return self._send_all()

    def _send_all(self) -> bool:
        """What is there at the beginning, and not what comes meanwhile: under load that would be
        a request for every few spans, without a pause."""
        all_taken = True
        left = self._waiting
        while left > 0 and (batch := self._next()):
            left -= batch.count
            trouble: object
            try:
                trouble = self._receiver.take(batch.written)
            except Exception as error:
                trouble = repr(error)
            self._on_the_way = 0
            self._tell(trouble, batch.count)
            all_taken = all_taken and not trouble
            if self._ended and trouble:  # nor will it take the others
                break
        return all_taken

    def _next(self) -> _Batch | None:
        with self._lock:
            if not self._full and self._filling.count:
                self._seal(self._filling)
            batch = self._full.popleft() if self._full else None
            if batch:
                self._waiting -= batch.count
                self._waiting_bytes -= batch.size
                self._on_the_way = batch.count
            return batch

    def _seal(self, batch: _Batch) -> None:
        fresh = _Batch()  # which may wake a finalizer that ends a span, here and now
        if batch is self._filling:
            self._filling = fresh
            self._full.append(batch)

    def _tell(self, trouble: object, count: int) -> None:
        """One line when the receiver goes, one when it is back, one for what was dropped. At the
        end of the process `shutdown` has the last word."""
        if self._ended:
            self._lost_at_end += count if trouble else 0
            return
        if trouble and not self._failing:
            log.warning("%d spans are lost, trying on with later ones: %.300s", count, trouble)
        elif self._failing and not trouble:
            log.info("the collector takes spans again")
        self._failing = bool(trouble)
        self._tell_dropped()

    def _tell_dropped(self) -> None:
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
