import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

import typer

from shop.cli.context import settings_of
from shop.cli.processes import Without, chosen_groups

if TYPE_CHECKING:
    from shop.cli.stack import Stack


def up(
    context: typer.Context,
    quiet: Annotated[
        bool, typer.Option("--quiet", "-q", help="Write the logs to files in the data directory.")
    ] = False,
    without: Without = None,
    stream: Annotated[
        bool, typer.Option("--stream", help="Derive streams too, as `shop stream` does.")
    ] = False,
) -> None:
    """Run the whole shop: Kafka, the API and all listeners, until Ctrl-C.

    Kafka is the embedded one unless SHOP_KAFKA__BOOTSTRAP_SERVERS names others; topics are created.
    What dies is started again. Ctrl-C drains all and ends; a second one kills.
    """
    from shop.cli.stack import running

    settings = settings_of(context)
    logs = settings.data_dir / "logs" if quiet else None
    left_out = _left_out(without or ())
    try:
        with running(settings, logs, left_out, stream) as stack:
            seconds = stack.wait_until_ready()
            where = f"{logs.absolute()}/*.log" if logs else "here"
            typer.echo(_welcome(stack, seconds, where, left_out))
            while True:
                stack.supervisor.check()
                time.sleep(0.1)
    except KeyboardInterrupt:
        typer.echo("stopped")


def _left_out(without: Sequence[str]) -> list[str]:
    if without:
        from shop.services import SERVICE_OF_GROUP

        chosen_groups(list(SERVICE_OF_GROUP), without=without)
    return list(dict.fromkeys(without))


def _welcome(stack: "Stack", seconds: float, logs: str, left_out: Sequence[str]) -> str:
    settings = stack.settings
    url = f"http://{settings.http.host}:{settings.http.port}"
    data = settings.data_dir.absolute()
    kafka_log = f"; Kafka's in {data}/kafka/node-1/logs" if (data / "kafka").exists() else ""
    others = f"\n  without the groups {', '.join(left_out)}" if left_out else ""
    listeners, streams = (stack.health_port(name) for name in ("listeners", "stream"))
    scraped = f"{url}/metrics, http://{settings.health.host}:{listeners}/metrics"
    if stack.streams:
        scraped += f", http://{settings.health.host}:{streams}/metrics"
    metrics = f"\n  metrics  {scraped}" if settings.metrics else ""
    mail = f", mail in {data}/mail" if not settings.smtp.host else ""
    return f"""
The shop is ready after {seconds:.1f} s.
  API      {url} (described at {url}/schema)
  Kafka    {settings.kafka.bootstrap_servers}
  data     {data}{mail}
  logs     {logs}{kafka_log}{metrics}{others}
`shop orders new --count 10` sends some orders. Ctrl-C stops everything.
"""
