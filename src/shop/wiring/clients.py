"""What processes speak to the world with: Kafka, the mail server, the disk."""

import logging

from shop.email.mailer import Mailer
from shop.email.server import MailServer
from shop.kafka.connection import Connection
from shop.kafka.template import KafkaTemplate
from shop.reports.files import ReportFiles
from shop.settings import Settings

log = logging.getLogger(__name__)


def relay_template(settings: Settings, connection: Connection) -> KafkaTemplate:
    """What the relays publish with: for ever, at once and in order."""
    acks = settings.kafka.acks
    if acks != "all":
        log.warning(
            "SHOP_KAFKA__ACKS=%s: a broker that dies may take published records along", acks
        )
    return KafkaTemplate(connection, acks=acks, linger_ms=0, timeout_s=0, name="relay")


def fan_out_template(settings: Settings, connection: Connection) -> KafkaTemplate:
    """For many records at once: what gathers for a moment travels, and is flushed, together."""
    acks = settings.kafka.acks
    return KafkaTemplate(connection, acks=acks, linger_ms=20, timeout_s=0, name="fan-out")


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


def report_files(settings: Settings) -> ReportFiles:
    return ReportFiles(settings.data_dir / "reports")
