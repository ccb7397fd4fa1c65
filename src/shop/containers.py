"""The composition root: the one module that knows all others. Nothing is built at import."""

import logging
from collections.abc import Callable, Mapping, Sequence

from dependency_injector import containers, providers

from shop.databases import Databases
from shop.db.database import Database, check
from shop.db.relay import Relay, outbox_size
from shop.db.steward import Steward
from shop.db.store import DatabaseStore
from shop.email.listeners import Email, EmailNewOrder
from shop.email.mailer import Mailer
from shop.email.server import MailServer
from shop.fraud.listeners import FraudDetector
from shop.health import Checks, health_api
from shop.http.app import create_app
from shop.http.server import HttpServer
from shop.http.waiting import LongPoll
from shop.kafka.connection import Connection
from shop.kafka.container import ListenerContainer
from shop.kafka.errors import StoreUnavailable
from shop.kafka.listener import ListenerRegistry
from shop.kafka.template import KafkaTemplate
from shop.orders.api import orders_api
from shop.orders.desk import OrderDesk
from shop.orders.listeners import OrderStatus
from shop.orders.reading import OrderReader
from shop.settings import Settings
from shop.users.listeners import Users

log = logging.getLogger(__name__)

# Which service's database a group belongs to.
SERVICE_OF_GROUP = {
    "fraud": "fraud",
    "email-new-order": "email",
    "email": "email",
    "users": "users",
    "orders": "orders",
}

# Services that the API writes for: it relays what they send.
API_SERVICES = ("orders",)


def connection(settings: Settings) -> Connection:
    """Where the brokers are: those configured, else the embedded ones."""
    servers = settings.kafka.bootstrap_servers or ",".join(
        f"127.0.0.1:{settings.broker.port + n}" for n in range(settings.broker.nodes)
    )
    security = settings.kafka.security
    named = {
        "security.protocol": security.protocol,
        "sasl.mechanism": security.sasl_mechanism,
        "sasl.username": security.sasl_username,
        "sasl.password": security.sasl_password and security.sasl_password.get_secret_value(),
        "ssl.ca.location": security.ssl_ca_location and str(security.ssl_ca_location),
    }
    return Connection(servers, {name: value for name, value in named.items() if value})


def relay_template(settings: Settings, connection: Connection) -> KafkaTemplate:
    """What the relays publish with: for ever, at once and in order."""
    acks = settings.kafka.acks
    if acks != "all":
        log.warning(
            "SHOP_KAFKA__ACKS=%s: a broker that dies may take published records along", acks
        )
    return KafkaTemplate(connection, acks=acks, linger_ms=0, timeout_s=0, name="relay")


def mailer(settings: Settings) -> Mailer:
    """To the SMTP server configured, else to one in this process that keeps the mail as files."""
    smtp = settings.smtp
    host, port = smtp.host, smtp.port
    if not host:
        server = MailServer(settings.data_dir / "mail")
        server.start()
        host, port = "127.0.0.1", server.port
    return Mailer(
        host,
        port,
        smtp.sender,
        username=smtp.username,
        password=smtp.password.get_secret_value(),
        starttls=smtp.starttls,
        timeout=smtp.timeout_s,
    )


def registry(services: Mapping[type, Callable[[], object]]) -> ListenerRegistry:
    """All listeners, each service built only when a group of it is started."""
    found = ListenerRegistry()
    for service, build in services.items():
        found.add(service, build)
    return found


def listener_container(
    settings: Settings,
    connection: Connection,
    databases: Databases,
    registry: ListenerRegistry,
    group: str,
    instance: str | None,
    on_failure: Callable[[str, BaseException], None],
) -> ListenerContainer:
    """The container of one group, its database at the newest schema."""
    store = DatabaseStore(databases.of(SERVICE_OF_GROUP[group]))
    overrides = settings.listener(group)
    kafka = settings.kafka
    return ListenerContainer(
        connection,
        group,
        registry.endpoints(group, store.work_type),
        store=store,
        concurrency=overrides.concurrency,
        max_poll_records=overrides.max_poll_records or kafka.max_poll_records,
        auto_offset_reset=kafka.auto_offset_reset,
        instance=instance,
        session_timeout_ms=kafka.session_timeout_ms,
        max_poll_interval_ms=kafka.max_poll_interval_ms,
        on_failure=on_failure,
    )


def stewards(
    settings: Settings, databases: Databases, relay_template: KafkaTemplate, group: str
) -> Sequence[Steward]:
    """What goes on in the background where a group is served."""
    return []


def http_server(
    settings: Settings, databases: Databases, relay_template: KafkaTemplate
) -> HttpServer:
    """The API with its routes; the port is taken when this is built."""
    orders = databases.of("orders")
    reader = OrderReader(orders)
    checks = Checks(
        needed={"orders database": lambda: _reason(orders)},
        informative={
            "kafka": lambda: "no broker can be reached" if relay_template.broker_down else None,
            "outbox": lambda: _parked(orders),
        },
    )
    app = create_app(
        orders_api(OrderDesk(orders), reader, LongPoll(reader)),
        health_api(checks),
        admin_token=settings.admin_token.get_secret_value() if settings.admin_token else None,
    )
    return HttpServer(app, settings.http.host, settings.http.port)


def _parked(database: Database) -> str | None:
    _, parked = outbox_size(database)
    return f"{parked} records that no broker takes are parked" if parked else None


def _reason(database: Database) -> str | None:
    try:
        check(database)
    except StoreUnavailable as error:
        return str(error)
    return None


class Shop(containers.DeclarativeContainer):
    """Shop(settings=load_settings()) gives everything a process needs, built when asked for."""

    settings = providers.Dependency(instance_of=Settings)
    connection = providers.Singleton(connection, settings)
    databases = providers.Singleton(Databases, settings)
    relay_template = providers.ThreadSafeSingleton(relay_template, settings, connection)
    relay = providers.Factory(Relay, template=relay_template)

    stewards = providers.Factory(stewards, settings, databases, relay_template)
    http_server = providers.Factory(http_server, settings, databases, relay_template)

    mailer = providers.Singleton(mailer, settings)
    fraud_detector = providers.Factory(FraudDetector, limit=settings.provided.fraud.limit)
    email = providers.Factory(Email, mailer=mailer)
    registry = providers.Singleton(
        registry,
        providers.Dict(
            {
                FraudDetector: fraud_detector.provider,
                EmailNewOrder: providers.Factory(EmailNewOrder).provider,
                Email: email.provider,
                Users: providers.Factory(Users).provider,
                OrderStatus: providers.Factory(OrderStatus).provider,
            }
        ),
    )
    listener_container = providers.Factory(
        listener_container,
        settings=settings,
        connection=connection,
        databases=databases,
        registry=registry,
    )
