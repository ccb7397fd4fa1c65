"""A process that traces nothing, among others that do: what it sends leads back to the sender."""

import pytest
from opentelemetry import trace

from shop.kafka import tracing
from shop.kafka.wire import TRACEPARENT, Headers

SAMPLED = f"00-{'a' * 32}-{'b' * 16}-01"
UNSAMPLED = f"00-{'a' * 32}-{'b' * 16}-00"


@pytest.fixture(autouse=True)
def untraced(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where no provider was set up, whatever other tests have done in this process."""
    monkeypatch.setattr(trace, "get_tracer_provider", trace.ProxyTracerProvider)


def sent(traceparent: str | None, into: str) -> Headers:
    headers: Headers = []
    with tracing.send("TOPIC", "key", "correlation", traceparent, headers, into=into):
        return headers


@pytest.mark.parametrize(
    ("traceparent", "into", "headers"),
    [
        (SAMPLED, TRACEPARENT, [(TRACEPARENT, SAMPLED.encode())]),
        (UNSAMPLED, TRACEPARENT, [(TRACEPARENT, UNSAMPLED.encode())]),
        (SAMPLED, tracing.AS_LETTER, [(tracing.AS_LETTER, SAMPLED.encode())]),
        (UNSAMPLED, tracing.AS_LETTER, []),
        (None, TRACEPARENT, []),
    ],
)
def test_a_traceparent_is_passed_on_as_it_is(
    traceparent: str | None, into: str, headers: Headers
) -> None:
    assert sent(traceparent, into) == headers


@pytest.mark.parametrize(
    ("headers", "sender"),
    [
        ([(TRACEPARENT, SAMPLED.encode())], SAMPLED),
        ([(TRACEPARENT, UNSAMPLED.encode())], None),
        ([(TRACEPARENT, UNSAMPLED.encode()), (tracing.REDRIVEN, SAMPLED.encode())], SAMPLED),
        ([], None),
    ],
)
def test_a_letter_tells_of_who_sent_its_record(headers: Headers, sender: str | None) -> None:
    assert tracing.here_or_sender(headers) == sender


def test_no_record_is_recorded() -> None:
    assert tracing.sampled(SAMPLED)
    assert not tracing.recorded(SAMPLED)


@pytest.mark.parametrize(
    ("traceparent", "is_one"),
    [
        (SAMPLED, True),
        (f"{SAMPLED}-more", False),  # which version 00 has not
        (f"01{SAMPLED[2:]}-more", True),
        (f"01{SAMPLED[2:]}more", False),
        (f"ff{SAMPLED[2:]}", False),
        (f"00-{'0' * 32}-{'b' * 16}-01", False),
        (f"00-{'a' * 32}-{'0' * 16}-01", False),
        (f"00-{'A' * 32}-{'b' * 16}-01", False),
        ("", False),
        (None, False),
    ],
)
def test_a_traceparent_is_one_by_its_version(traceparent: str | None, is_one: bool) -> None:
    found = tracing.span_of(traceparent)

    assert (found is not None) == is_one
    assert found is None or (found.trace_id, found.span_id) == (b"\xaa" * 16, b"\xbb" * 8)
