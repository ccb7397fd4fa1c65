"""What the process that serves the API is made of."""

import time
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

from shop.databases import Databases
from shop.db.database import Database
from shop.db.probe import Probe
from shop.db.relay import oldest_waiting, outbox_size
from shop.deadletters.destinations import Destinations
from shop.health import Checks, health_api, listeners_trouble
from shop.http.app import create_app
from shop.http.metrics import metrics_api
from shop.http.server import HttpServer
from shop.http.waiting import LongPoll
from shop.kafka.template import KafkaTemplate
from shop.log.api import timelines_api
from shop.log.timeline import Accepted
from shop.orders.api import orders_api
from shop.orders.desk import OrderDesk
from shop.orders.reading import OrderReader
from shop.pix.api import pix_api
from shop.pix.keys import KeyDesk
from shop.pix.reading import PixReader
from shop.pix.transfer import PaymentDesk
from shop.reports.api import reports_api
from shop.reports.files import ReportFiles
from shop.reports.reading import RunReader
from shop.reports.requests import RunDesk
from shop.services import API_SERVICES
from shop.settings import Settings
from shop.users.api import users_api
from shop.users.fan_out import FanOuts
from shop.users.reading import UserReader
from shop.wiring.letters import letters_api

if TYPE_CHECKING:
    from shop.metrics import Metrics

WAITS_S = 10.0  # brokers that can be reached may still take nothing: too few of them, say


def http_server(
    settings: Settings,
    databases: Databases,
    relay_template: KafkaTemplate,
    report_files: ReportFiles,
    destinations: Destinations,
    metrics: "Metrics | None",
) -> HttpServer:
    """The API with its routes; the port is taken when this is built."""
    orders, reports, users = databases.of("orders"), databases.of("reports"), databases.of("users")
    order_reader, pix_reader = OrderReader(orders), PixReader(pix := databases.of("pix"))
    app = create_app(
        orders_api(OrderDesk(orders), order_reader, LongPoll(order_reader)),
        pix_api(PaymentDesk(pix), KeyDesk(pix), pix_reader, LongPoll(pix_reader)),
        reports_api(RunDesk(reports), RunReader(reports, FanOuts(users)), report_files),
        users_api(UserReader(users)),
        timelines_api(databases.of("log"), _accepted_at(order_reader)),
        letters_api(settings, databases, destinations),
        health_api(_checks(settings, databases, relay_template)),
        *([metrics_api(metrics.page)] if metrics else []),
        admin_token=settings.admin_token.get_secret_value() if settings.admin_token else None,
        metrics=metrics.http if metrics else None,
    )
    return HttpServer(app, settings.http.host, settings.http.port)


def _checks(settings: Settings, databases: Databases, relay_template: KafkaTemplate) -> Checks:
    """Ready is who can take orders."""
    of = {name: databases.of(name) for name in API_SERVICES}
    reasons = {f"{name} database": Probe(database).trouble for name, database in of.items()}
    outboxes = {f"{name} outbox": partial(_unpublished, database) for name, database in of.items()}
    needed = {"orders database": reasons.pop("orders database")}
    listeners = settings.health.listeners_url
    others = {"listeners": partial(listeners_trouble, listeners)} if listeners else {}
    kafka = {"kafka": lambda: _unreachable(relay_template)}
    return Checks(needed, kafka | others | reasons | outboxes)


def _accepted_at(orders: OrderReader) -> Accepted:
    """What timelines ask of the orders."""

    async def accepted_at(order_id: str) -> datetime | None:
        order = await orders.get(order_id)
        return order.created_at if order else None

    return accepted_at


def _unreachable(template: KafkaTemplate) -> str | None:
    return "no broker can be reached" if template.broker_down else None


def _unpublished(database: Database) -> str | None:
    waiting, parked = outbox_size(database)
    if parked:
        return f"{parked} records that no broker takes are parked"
    since = oldest_waiting(database) if waiting else None
    age = 0.0 if since is None else time.time() - since / 1000
    return f"{waiting} not published, the oldest for {age:.0f} s" if age > WAITS_S else None
