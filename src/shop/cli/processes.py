"""`shop serve` and `shop listen`: the processes that do the work."""

import logging
import os
import signal
import threading
import time
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, cast

import typer

from shop.cli.context import BROKER_ANSWER_S, Invocation, settings_of
from shop.cli.errors import MISUSED, CommandFailed, report

if TYPE_CHECKING:
    from shop.containers import Shop
    from shop.kafka.connection import Connection

_DRAIN_S = 4.8  # until a process that was asked to stop is ended hard

Wait = Annotated[
    float, typer.Option(min=0, metavar="SECONDS", help="How long to wait for Kafka and the topics.")
]

Without = Annotated[
    list[str] | None,
    typer.Option(
        metavar="GROUP",
        help="Leave this group out, for another program to do its work; may be repeated. "
        "`shop groups hand-over` says where that one begins.",
    ),
]


def serve(context: typer.Context, wait: Wait = 0.0) -> None:
    """Run the HTTP API."""

    def work(shop: "Shop", stop: threading.Event) -> None:
        from shop.runtime import run_api

        await_topics(shop.connection(), wait, stop, create=False)
        if not stop.is_set():
            run_api(shop, stop=stop)

    run_process(context, "api", work)


def listen(
    context: typer.Context,
    group: Annotated[
        list[str] | None, typer.Option(help="A group of listeners; may be repeated.")
    ] = None,
    all_groups: Annotated[bool, typer.Option("--all", help="All groups.")] = False,
    without: Without = None,
    instance: Annotated[
        str | None,
        typer.Option(
            help="A name of this process that stays over restarts, and is its alone: it then has "
            "its partitions back at once."
        ),
    ] = None,
    wait: Wait = 0.0,
    create_topics: Annotated[bool, typer.Option("--create-topics", hidden=True)] = False,
) -> None:
    """Run listeners: the groups named, or all.

    More processes of a group share its partitions, and another takes over when one dies."""
    if all_groups == bool(group):
        raise typer.BadParameter("name groups with --group, or take --all")
    if without and not all_groups:
        raise typer.BadParameter("--without leaves groups out of --all")

    def work(shop: "Shop", stop: threading.Event) -> None:
        from shop.runtime import run_listeners

        groups = chosen_groups(shop.registry().groups, group or (), without or ())
        if not wait:
            shop.connection().metadata(BROKER_ANSWER_S)  # before anything is built that needs it
        await_topics(shop.connection(), wait, stop, create_topics)
        if not stop.is_set():
            run_listeners(shop, groups, instance=instance, stop=stop)

    run_process(context, "listeners" if all_groups else "-".join(group or ()), work)


def chosen_groups(
    known: Sequence[str], named: Sequence[str] = (), without: Sequence[str] = ()
) -> list[str]:
    """Those named, or all that are known, but those left out. Raises CommandFailed for a name that
    is not known, and when none is left."""
    for name in (*named, *without):
        if name not in known:
            raise CommandFailed(f"there is no group {name}; there are {', '.join(known)}", MISUSED)
    chosen = [name for name in dict.fromkeys(named or known) if name not in without]
    if not chosen:
        raise CommandFailed("--without leaves out all groups, so there is nothing to run", MISUSED)
    return chosen


def run_process(
    context: typer.Context, role: str, work: "Callable[[Shop, threading.Event], None]"
) -> None:
    stop = threading.Event()

    def asked_to_stop(_signal: int, _frame: Any) -> None:
        if not stop.is_set():
            stop.set()
            threading.Thread(target=_end_hard, name="hard-end", daemon=True).start()

    # Before the imports, which take a second: a process that has not begun stops cleanly too.
    signal.signal(signal.SIGTERM, asked_to_stop)
    signal.signal(signal.SIGINT, asked_to_stop)
    settings = settings_of(context)

    from shop import runtime, telemetry
    from shop.containers import Shop

    runtime.exit_when_owner_dies(stop)
    telemetry.configure(settings, role)
    metrics = telemetry.start_metrics(settings, role)
    try:
        try:
            work(Shop(settings=settings, metrics=metrics), stop)
        finally:
            if metrics is not None:
                metrics.close()
            telemetry.flush()
    except Exception as error:
        debug = cast(Invocation, context.obj).debug
        raise typer.Exit(report(error, debug, logging.getLogger("shop"))) from None


def _end_hard() -> None:
    time.sleep(_DRAIN_S)
    what = "not drained within %g s; ending now, what was in hand is done again later"
    logging.getLogger("shop").error(what, _DRAIN_S)
    os._exit(1)


def await_topics(
    connection: "Connection", wait: float, stop: threading.Event, create: bool
) -> None:
    """Return when all topics are there, created where that is wanted. After `wait` seconds it
    returns too, unless they were to be created: who needs them then says what is missing."""
    from shop.kafka.admin import create_topics, require_topics
    from shop.kafka.errors import BrokerUnreachable, TopicMissing
    from shop.topics import ALL

    if not wait and not create:
        return
    deadline = time.monotonic() + wait
    attempt = 0.3  # seconds; a new client connects at once, an old one after its backoff
    while not stop.is_set():
        try:
            if create:
                connection.metadata(attempt)
                create_topics(connection, ALL)
            else:
                require_topics(connection, [topic.name for topic in ALL], attempt)
            return
        except (BrokerUnreachable, TopicMissing) as error:
            if time.monotonic() > deadline and attempt > 5:
                if create:
                    raise
                return
            if isinstance(error, TopicMissing):
                stop.wait(0.05)
            attempt = min(attempt * 1.2, 8.0)
