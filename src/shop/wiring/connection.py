from shop.kafka.connection import Connection
from shop.settings import Settings


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
