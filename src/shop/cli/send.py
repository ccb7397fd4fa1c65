import json
import sys
from collections.abc import Iterator, Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Annotated, Any

import typer

from shop.cli.context import BROKER_ANSWER_S, settings_of, with_brokers
from shop.cli.errors import MISUSED, CommandFailed
from shop.cli.output import print_table

if TYPE_CHECKING:
    from shop.kafka.connection import Connection
    from shop.kafka.outbound import OutboundRecord
    from shop.kafka.template import KafkaTemplate
    from shop.kafka.topic import Topic
    from shop.kafka.wire import Headers

_SENT_S = 15.0  # until a record must be acknowledged
_SHOWN = {
    "topic": "topic",
    "partition": "partition",
    "offset": "offset",
    "event id": "eventId",
    "correlation id": "correlationId",
}


def send(
    context: typer.Context,
    name: Annotated[str, typer.Argument(help="The topic.")],
    payload: Annotated[
        str, typer.Argument(help="The event as JSON, or its text; `-` reads one from each line.")
    ],
    key: Annotated[
        str | None, typer.Option(help="If not given, the topic's rule gives it.")
    ] = None,
    header: Annotated[
        list[str] | None, typer.Option(metavar="NAME=VALUE", help="May be repeated.")
    ] = None,
    correlation_id: Annotated[
        str | None, typer.Option(help="What the correlation id begins with.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON, an object a line.")] = False,
) -> None:
    """Send a record by hand, as complete as those of the services.

    A topic of the shop takes only what it carries, any other one the text as it stands."""
    from shop.kafka import correlation
    from shop.kafka.errors import SendFailed, WireError
    from shop.kafka.template import KafkaTemplate
    from shop.wiring.connection import connection

    topic = _known(name)
    if correlation_id is not None and not correlation.acceptable(correlation_id):
        raise typer.BadParameter(f"a correlation id has {correlation.ALLOWED}")
    begun = correlation_id or correlation.begin("TopicsSend")
    headers = _headers(header or ())
    brokers = connection(with_brokers(settings_of(context)))
    _require(brokers, name)
    rows: list[dict[str, Any]] = []
    with KafkaTemplate(brokers, timeout_s=_SENT_S, name="send") as template:
        try:
            for text in _lines() if payload == "-" else [payload]:
                record = _record(name, topic, key, text, begun, headers)
                rows.append(_sent(template, record, topic))
                if as_json:
                    typer.echo(json.dumps(rows[-1], ensure_ascii=False))
        except (WireError, SendFailed) as error:
            where = f"line {len(rows) + 1}, after {len(rows)} sent: " if payload == "-" else ""
            raise CommandFailed(f"not sent: {where}{error}") from None
        finally:
            if rows and not as_json:
                print_table([{h: row[n] for h, n in _SHOWN.items()} for row in rows], list(_SHOWN))


def _known(name: str) -> "Topic[Any] | None":
    from shop.topics import ALL

    topic = next((topic for topic in ALL if topic.name == name), None)
    if topic is None and name.startswith("ECOMMERCE"):
        raise CommandFailed(
            f"what {name} carries is not known here, and a wrong record silently stops a listener; "
            f"known are {', '.join(topic.name for topic in ALL)}",
            MISUSED,
        )
    return topic


def _require(connection: "Connection", name: str) -> None:
    from shop.kafka.admin import require_topics
    from shop.kafka.errors import TopicMissing

    try:
        require_topics(connection, [name], BROKER_ANSWER_S)
    except TopicMissing as error:
        raise CommandFailed(f"{error}; `shop topics list` shows those that do") from None


def _headers(given: Sequence[str]) -> "Headers":
    from shop.kafka.wire import CORRELATION_ID, EVENT_ID, TRACEPARENT, TRACESTATE

    headers = []
    for text in given:
        name, equals, value = text.partition("=")
        if not (name and equals):
            raise typer.BadParameter(f"--header {text}: write it as NAME=VALUE")
        if name in (CORRELATION_ID, EVENT_ID, TRACEPARENT, TRACESTATE):
            raise typer.BadParameter(f"--header {name}: that one is set here")
        headers.append((name, value.encode("utf-8", "surrogateescape")))
    return headers


def _lines() -> Iterator[str]:
    """Those of stdin that are not blank."""
    for line in sys.stdin.buffer:
        if text := line.decode("utf-8", "surrogateescape").strip():
            yield text


def _record(
    name: str,
    topic: "Topic[Any] | None",
    key: str | None,
    text: str,
    correlation_id: str,
    headers: "Headers",
) -> "OutboundRecord":
    """Raises WireError with the reason when the topic does not take it."""
    from shop.kafka.errors import WireError
    from shop.kafka.outbound import OutboundRecord, outbound

    try:
        (key or "").encode()
        value = text.encode()
    except UnicodeEncodeError:
        raise WireError("the text or the key is not valid UTF-8") from None
    if topic is None:
        return OutboundRecord(name, key, value, headers)
    event = _event(topic, value)
    record = outbound(topic, key, event, correlation_id=correlation_id, headers=headers)
    if not record.key:
        raise WireError(f"a record of {name} has a key; name it with --key")
    topic.codec.decode(record.value)  # as its listeners will
    return record


def _event(topic: "Topic[Any]", value: bytes) -> Any:
    import msgspec

    from shop.kafka.errors import WireError

    if topic.event_type is str:
        return value.decode()
    if not topic.codec.carries_correlation_id:
        return topic.codec.decode(value)[0]
    try:
        return msgspec.json.decode(value, type=topic.event_type)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        carried = getattr(topic.event_type, "__name__", str(topic.event_type))
        raise WireError(f"{topic} carries {carried} as JSON: {error}") from None


def _sent(
    template: "KafkaTemplate", record: "OutboundRecord", topic: "Topic[Any] | None"
) -> dict[str, Any]:
    """Wait until the broker has it; where it lies then. Raises SendFailed."""
    from shop.kafka.errors import SendFailed
    from shop.kafka.wire import CORRELATION_ID, EVENT_ID

    acknowledged: Future[Any] = Future()

    def delivered(error: Any, message: Any) -> None:
        if error is None:
            acknowledged.set_result(message)
        else:
            acknowledged.set_exception(SendFailed(error.str(), error))

    template.publish(record, delivered)
    message = acknowledged.result()
    texts = {name: value.decode("utf-8", "replace") for name, value in record.headers}
    inside = topic.codec.decode(record.value)[1] if topic is not None else None
    return {
        "topic": record.topic,
        "partition": message.partition(),
        "offset": message.offset(),
        "eventId": texts.get(EVENT_ID),
        "correlationId": inside or texts.get(CORRELATION_ID),
    }
