"""Spans from the first to the last, where one is made of each record or request.

Of OpenTelemetry this needs the API alone. Tracers of `shop.tracing.provider` have shorter ways than
the standard's, which these take; with others' tracers they take the standard's.
"""

from collections.abc import Callable
from functools import lru_cache
from typing import Any

from opentelemetry import trace

from shop.tracing.remote import Above, Begin, Remote, Shared, around


def begin_here(scope: str) -> Begin:
    """What begins the spans of this process, in the name of that part of it."""
    return _begin_of(trace.get_tracer_provider(), scope)


@lru_cache(maxsize=16)  # a process has one provider
def _begin_of(provider: trace.TracerProvider, scope: str) -> Begin:
    return begin_with(provider.get_tracer(scope))


def begin_with(tracer: trace.Tracer) -> Begin:
    """Begins spans by that tracer."""

    def begin(name: str, above: Above, kind: Any, shared: Shared, own: Any, **options: Any) -> Any:
        return tracer.start_span(name, around(above), kind, {**shared, **own}, **options)

    return getattr(tracer, "begin", begin)


def linking(span: trace.Span) -> Callable[[Remote], None]:
    """Links a recorded span with others."""

    def link(remote: Remote) -> None:
        span.add_link(remote.context)

    return getattr(span, "link_with", link)


def share(span: trace.Span, shared: Shared) -> None:
    """Give a recorded span these attributes in place of those that it shared until now."""
    ours = getattr(span, "share", None)
    if ours is None:
        span.set_attributes(shared)
    else:
        ours(shared)


class within:
    """A block that a span ends with, and which tells it of an error."""

    __slots__ = ("_span",)

    def __init__(self, span: trace.Span) -> None:
        self._span = span

    def __enter__(self) -> None:
        """The span is not made current: nothing is made below it."""

    def __exit__(self, _: object, error: BaseException | None, __: object) -> None:
        if isinstance(error, Exception):
            failed(self._span, error)
        self._span.end()


def failed(span: trace.Span, error: Exception) -> None:
    """Say so of a span. Never raises, also where an error cannot even say what it is."""
    kind = type(error).__qualname__
    span.set_attribute("error.type", kind)
    try:
        span.record_exception(error)
        what = f"{kind}: {error}"
    except Exception as why:
        what = f"{kind}, whose text cannot be had: {type(why).__qualname__}"
    span.set_status(trace.StatusCode.ERROR, what[:500])
