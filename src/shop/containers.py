"""The composition root: with `wiring`, what knows all others. Nothing is built at import."""

from typing import TYPE_CHECKING

from dependency_injector import containers, providers

from shop.databases import Databases
from shop.db.commits import CommitWatch
from shop.db.relay import Relay
from shop.deadletters.listeners import DeadLetterKeeper
from shop.email.listeners import Email, EmailNewOrder
from shop.fraud.listeners import FraudDetector
from shop.kafka.dead_letter import DeadLetters
from shop.log.listeners import AuditLog
from shop.orders.listeners import OrderStatus
from shop.pix.listeners import PixValidator
from shop.reports.listeners import CustomerOrders, Reports
from shop.settings import Settings
from shop.topics import DEADLETTER
from shop.users.listeners import Batch, Users
from shop.wiring import clients, letters, listening, serving
from shop.wiring.connection import connection

if TYPE_CHECKING:
    from shop.metrics import Metrics


class Shop(containers.DeclarativeContainer):
    """Shop(settings=load_settings()) gives everything a process needs, built when asked for. It is
    measured where `metrics` are given."""

    settings = providers.Dependency(instance_of=Settings)
    metrics: "providers.Provider[Metrics | None]" = providers.Object(None)
    connection = providers.Singleton(connection, settings)
    databases = providers.Singleton(Databases, settings, metrics)
    relay_template = providers.ThreadSafeSingleton(clients.relay_template, settings, connection)
    commits = providers.Singleton(CommitWatch)
    relay = providers.Factory(Relay, template=relay_template, commits=commits)

    fan_out_template = providers.Factory(clients.fan_out_template, settings, connection)
    stewards = providers.Factory(listening.stewards, settings, databases, fan_out_template.provider)
    report_files = providers.Singleton(clients.report_files, settings)

    mailer = providers.Singleton(clients.mailer, settings)
    fraud_detector = providers.Factory(FraudDetector, limit=settings.provided.fraud.limit)
    email = providers.Factory(Email, mailer=mailer)
    audit_log = providers.Factory(AuditLog, personal_data=settings.provided.log.personal_data)
    registry = providers.Singleton(
        listening.registry,
        providers.Dict(
            {
                FraudDetector: fraud_detector.provider,
                EmailNewOrder: providers.Factory(EmailNewOrder).provider,
                Email: email.provider,
                Users: providers.Factory(Users).provider,
                Batch: providers.Factory(Batch).provider,
                OrderStatus: providers.Factory(OrderStatus).provider,
                AuditLog: audit_log.provider,
                PixValidator: providers.Factory(PixValidator).provider,
                Reports: providers.Factory(listening.reports, databases, report_files).provider,
                CustomerOrders: providers.Factory(CustomerOrders).provider,
                DeadLetterKeeper: providers.Factory(DeadLetterKeeper).provider,
            }
        ),
    )
    destinations = providers.Singleton(letters.destinations, registry)
    api_stewards = providers.Factory(letters.stewards, databases, destinations)
    http_server = providers.Factory(
        serving.http_server,
        settings,
        databases,
        relay_template,
        report_files,
        destinations,
        metrics,
    )
    listener_container = providers.Factory(
        listening.listener_container,
        settings=settings,
        connection=connection,
        databases=databases,
        registry=registry,
        metrics=metrics,
        dead_letters=providers.Singleton(DeadLetters, DEADLETTER.name),
    )
