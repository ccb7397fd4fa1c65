"""The log of a process: for people on a terminal, else one JSON object per line.

Whatever a line says of customers' addresses is shortened, also in the text of somebody else's
errors and in tracebacks, unless SHOP_LOG__PERSONAL_DATA=full asks for all of it. What nobody
caught, in whichever thread, becomes a line too.
"""

import logging
import sys
import threading
from types import TracebackType
from typing import TextIO

import structlog
from opentelemetry import trace
from structlog.typing import EventDict, Processor

from shop.kafka.dispatch import current_message
from shop.printable import masked, printable
from shop.settings import Log

log = logging.getLogger("shop")

_SHARED: list[Processor] = [
    structlog.contextvars.merge_contextvars,
    structlog.stdlib.add_log_level,
    structlog.stdlib.add_logger_name,
    structlog.processors.TimeStamper(fmt="iso", utc=True),
]


def configure(settings: Log, role: str, out: TextIO) -> None:
    """Send this process's log to `out`; `role` names the process in it. Call once."""

    def process(_: object, __: str, event: EventDict) -> EventDict:
        event["process"] = role  # in the lines of every thread
        return event

    shared = [*_SHARED, process, _where]
    handler = logging.StreamHandler(out)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=shared,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.format_exc_info,
                *([_masked] if settings.personal_data == "short" else []),
                _renderer(settings, out),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers = [handler]
    root.setLevel(settings.level)
    for noisy in ("uvicorn.access", "asyncio", "alembic", "mail.log"):
        logging.getLogger(noisy).setLevel(logging.WARNING)
    for told_otherwise in (
        # The shop has a line of its own when a collector goes, and one when it is back.
        "opentelemetry.exporter.otlp.proto.http.trace_exporter",
        "opentelemetry.exporter.otlp.proto.http.metric_exporter",
        # What it says of failed commits concerns Kafka's copy of positions that the database has.
        "quixstreams",
        # Of connections that are lost: the database has a line of its own too.
        "sqlalchemy.pool",
    ):
        logging.getLogger(told_otherwise).setLevel(logging.CRITICAL)
    structlog.configure(
        processors=[*shared, structlog.stdlib.ProcessorFormatter.wrap_for_formatter],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )
    _log_what_nobody_caught()


def _renderer(settings: Log, out: TextIO) -> Processor:
    if settings.format == "json" or (settings.format == "auto" and not out.isatty()):
        return structlog.processors.JSONRenderer()
    # Plain, since a traceback with the values of variables would tell of customers and secrets.
    return structlog.dev.ConsoleRenderer(
        colors=out.isatty(), pad_event_to=0, exception_formatter=structlog.dev.plain_traceback
    )


def _log_what_nobody_caught() -> None:
    logging.captureWarnings(True)

    def of_process(
        kind: type[BaseException], error: BaseException, traceback: TracebackType | None
    ) -> None:
        if issubclass(kind, KeyboardInterrupt):
            sys.__excepthook__(kind, error, traceback)
        else:
            log.critical("unexpected error", exc_info=(kind, error, traceback))

    def of_thread(what: threading.ExceptHookArgs) -> None:
        if what.exc_value is None or issubclass(what.exc_type, SystemExit):
            return
        name = what.thread.name if what.thread else "?"
        error = (what.exc_type, what.exc_value, what.exc_traceback)
        log.critical("unexpected error in thread %s", name, exc_info=error)

    def of_callback(what: "sys.UnraisableHookArgs") -> None:
        error = what.exc_value
        where = getattr(what.object, "__qualname__", type(what.object).__qualname__)
        log.error("%s %s", what.err_msg or "exception ignored in", where, exc_info=error)

    sys.excepthook, threading.excepthook, sys.unraisablehook = of_process, of_thread, of_callback


def _where(_: object, __: str, event: EventDict) -> EventDict:
    message = current_message.get()
    if message is not None:
        event.setdefault("correlation_id", printable(message.correlation_id))
        event.setdefault("event_id", printable(message.event_id))
    context = trace.get_current_span().get_span_context()
    if context.is_valid:
        event["trace_id"] = trace.format_trace_id(context.trace_id)
        event["span_id"] = trace.format_span_id(context.span_id)
    return event


def _masked(_: object, __: str, event: EventDict) -> EventDict:
    for name, value in event.items():
        if isinstance(value, str):
            event[name] = masked(value)
    return event
