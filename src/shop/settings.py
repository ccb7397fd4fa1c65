"""Every setting of the shop, with its default and its reason.

A value comes from the first of: an environment variable `SHOP_SECTION__NAME`, the TOML file given
with `--settings`, the default here. An unknown or wrong one stops the start with one line.
"""

import ipaddress
import os
import re
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    SecretStr,
    ValidationError,
    field_validator,
    model_validator,
)
from pydantic_settings import (
    BaseSettings,
    PydanticBaseSettingsSource,
    SettingsConfigDict,
    TomlConfigSettingsSource,
)

PREFIX = "SHOP_"

_URL = re.compile(r"sqlite:///.+|postgres(ql)?(\+psycopg)?://.+")

Port = Annotated[int, Field(ge=1, le=65535)]
Money = Annotated[Decimal, Field(ge=0, allow_inf_nan=False), PlainSerializer(str)]


class SettingsError(Exception):
    """A setting is unknown or has a wrong value; the message is one line that names it."""


class Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class Http(Section):
    host: str = "127.0.0.1"
    port: Port = 8080


class Security(Section):
    """How to reach a broker that asks who is there (librdkafka's names)."""

    protocol: Literal["plaintext", "ssl", "sasl_plaintext", "sasl_ssl"] = "plaintext"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = None
    sasl_username: str | None = None
    sasl_password: SecretStr | None = None
    ssl_ca_location: Path | None = None

    @model_validator(mode="after")
    def _complete(self) -> Self:
        if self.protocol.startswith("sasl") and not (self.sasl_mechanism and self.sasl_username):
            raise ValueError(f"{self.protocol} needs SASL_MECHANISM, SASL_USERNAME and a password")
        if self.ssl_ca_location is not None and not self.ssl_ca_location.is_file():
            raise ValueError(f"there is no file {self.ssl_ca_location} (SSL_CA_LOCATION)")
        return self


class Kafka(Section):
    bootstrap_servers: str = ""  # empty: the embedded broker
    acks: Literal["all", "1", "0"] = "all"
    max_poll_records: Annotated[int, Field(ge=1, le=10_000)] = 500  # as in Kafka's Java client
    auto_offset_reset: Literal["earliest", "latest", "none"] = "earliest"  # latest loses orders
    # A crashed process is noticed after this long. Heartbeats come from a native thread, so a
    # busy listener does not miss them; the broker refuses less than 6 s.
    session_timeout_ms: Annotated[int, Field(ge=6_000, le=1_800_000)] = 10_000
    max_poll_interval_ms: Annotated[int, Field(ge=10_000, le=86_400_000)] = 300_000
    # A group that has records to read and makes no progress for so long is restarted with its
    # process: a listener that never returns, a client that stands still.
    stalled_after_s: Annotated[float, Field(ge=10, le=86_400)] = 300.0
    security: Security = Security()

    @model_validator(mode="after")
    def _a_batch_may_take_its_time(self) -> Self:
        if self.stalled_after_s * 1000 < self.max_poll_interval_ms:
            raise ValueError(
                f"STALLED_AFTER_S={self.stalled_after_s:g} is to be raised: a batch may take "
                f"MAX_POLL_INTERVAL_MS={self.max_poll_interval_ms}"
            )
        return self


class Broker(Section):
    """The embedded broker, used when kafka.bootstrap_servers is empty."""

    port: Port = 9092
    nodes: Annotated[Literal[1, 3], BeforeValidator(int)] = 1


class Health(Section):
    """Where a process answers /metrics, without a token, and `shop listen` /health/live and
    /health/ready; the API has routes of its own."""

    host: str = "127.0.0.1"
    port: Annotated[int, Field(ge=0, le=65535)] = 0  # 0: nowhere
    # Of the listeners, for the API's readiness to tell of; `shop up` sets it.
    listeners_url: str = ""


class Database(Section):
    # `{service}` is replaced. Empty: one SQLite file per service in the data directory.
    url: SecretStr = SecretStr("")
    # On PostgreSQL each service has a schema of its name, with this before it.
    schema_prefix: Annotated[str, Field(pattern=r"^([a-z][a-z0-9_]{0,40})?$")] = ""

    @field_validator("url")
    @classmethod
    def _known(cls, url: SecretStr) -> SecretStr:
        if url.get_secret_value() and not _URL.match(url.get_secret_value()):
            raise ValueError("must be sqlite:///PATH or postgresql://USER:PASSWORD@HOST/NAME")
        return url


class Smtp(Section):
    """Where mail goes. No host: an embedded server that keeps it as files under data/mail."""

    host: str = ""
    port: Port = 25
    username: str = ""
    password: SecretStr = SecretStr("")
    starttls: bool = False
    sender: Annotated[str, Field(pattern=r"^[^@\s]+@[^@\s]+$")] = "shop@example.com"
    timeout_s: Annotated[float, Field(gt=0, le=600)] = 10.0


class Fraud(Section):
    limit: Money = Decimal(4500)  # an order of this amount or more is fraud


class Audit(Section):
    """How much the log service keeps. What is older, or more, goes, the oldest first."""

    keep_days: Annotated[float, Field(gt=0)] = 30.0
    keep_mb: Annotated[int, Field(ge=1)] = 1024


class Stream(Section):
    pix_limit: Money = Decimal(1000)  # a payment of more than this is to be verified


class Log(Section):
    format: Literal["auto", "console", "json"] = "auto"  # auto: console on a terminal, else json
    level: Annotated[
        Literal["DEBUG", "INFO", "WARNING", "ERROR"], BeforeValidator(lambda v: str(v).upper())
    ] = "INFO"
    # Of customers, in the log service's lines: shortened, or as it came.
    personal_data: Literal["short", "full"] = "short"


class Tracing(Section):
    """Where traces are looked at. What is traced, and where to it is sent, the standard variables
    of OpenTelemetry say: OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_TRACES_SAMPLER and the like."""

    url: str = "http://127.0.0.1:16686/trace/{trace_id}"  # Jaeger's

    @field_validator("url")
    @classmethod
    def _names_a_trace(cls, url: str) -> str:
        if not url.startswith(("http://", "https://")) or "{trace_id}" not in url:
            raise ValueError("must be an http address with {trace_id} in it")
        return url


class Listener(Section):
    """What may be set per group: SHOP_LISTENERS__EMAIL__CONCURRENCY=8. What is not set is as the
    listeners declare it."""

    concurrency: Annotated[int, Field(ge=1, le=256)] | None = None
    max_poll_records: Annotated[int, Field(ge=1, le=10_000)] | None = None
    # A record that fails: how often it is tried before it becomes a dead letter, the first time
    # included, and the seconds between.
    attempts: Annotated[int, Field(ge=1, le=1_000_000)] | None = None
    first_delay_s: Annotated[float, Field(ge=0, le=86_400)] | None = None
    factor: Annotated[float, Field(ge=1, le=100)] | None = None
    longest_delay_s: Annotated[float, Field(ge=0, le=86_400)] | None = None
    # Whether later records of a dead letter's key become dead letters too, behind it.
    hold_back: bool | None = None


class Settings(BaseSettings):
    model_config = SettingsConfigDict(
        env_prefix=PREFIX, env_nested_delimiter="__", extra="forbid", frozen=True
    )

    data_dir: Path = Path("data")
    admin_token: SecretStr | None = None
    http: Http = Http()
    kafka: Kafka = Kafka()
    broker: Broker = Broker()
    health: Health = Health()
    database: Database = Database()
    smtp: Smtp = Smtp()
    fraud: Fraud = Fraud()
    stream: Stream = Stream()
    audit: Audit = Audit()
    log: Log = Log()
    tracing: Tracing = Tracing()
    metrics: bool = True  # counted and shown at /metrics; docs/decisions/0015 says what it costs
    listeners: dict[str, Listener] = {}

    @field_validator("admin_token")
    @classmethod
    def _a_real_token(cls, token: SecretStr | None) -> SecretStr | None:
        text = None if token is None else token.get_secret_value()
        if text is not None and (not text or text != text.strip()):
            raise ValueError("is empty, or begins or ends with a space; unset it or set a token")
        return token

    @model_validator(mode="after")
    def _closed_or_guarded(self) -> Self:
        if self.admin_token is None and not _is_loopback(self.http.host):
            raise ValueError(
                f"SHOP_HTTP__HOST={self.http.host} opens the API to others; set SHOP_ADMIN_TOKEN "
                "as well, or stay with 127.0.0.1"
            )
        return self

    @property
    def embedded_broker(self) -> bool:
        return not self.kafka.bootstrap_servers

    def listener(self, group: str) -> Listener:
        """The overrides for a group; environment variables write `-` as `_`."""
        return self.listeners.get(group) or self.listeners.get(group.replace("-", "_"), Listener())


def load_settings(file: Path | None = None) -> Settings:
    """Read the settings; raises SettingsError naming what is wrong and where."""
    _refuse_unknown_variables()

    class Loaded(Settings):
        @classmethod
        def settings_customise_sources(
            cls,
            settings_cls: type[BaseSettings],
            init_settings: PydanticBaseSettingsSource,
            env_settings: PydanticBaseSettingsSource,
            dotenv_settings: PydanticBaseSettingsSource,
            file_secret_settings: PydanticBaseSettingsSource,
        ) -> tuple[PydanticBaseSettingsSource, ...]:
            if file is None:
                return (env_settings,)
            return env_settings, TomlConfigSettingsSource(settings_cls, toml_file=file)

    if file is not None and not file.is_file():
        raise SettingsError(f"settings file {file} does not exist")
    try:
        return Loaded()
    except ValidationError as error:
        raise SettingsError("; ".join(_explain(e) for e in error.errors())) from None
    except ValueError as error:  # a TOML syntax error, or JSON expected in a variable
        raise SettingsError(f"settings cannot be read: {error}") from None


def masked(settings: Settings) -> dict[str, Any]:
    """The settings as plain values for showing, secrets as stars."""
    return settings.model_dump(mode="json")


def environment(settings: Settings) -> dict[str, str]:
    """The same settings as environment variables, for a child process; secrets in the clear."""
    result: dict[str, str] = {}

    def walk(prefix: str, value: Any) -> None:
        if isinstance(value, BaseModel):
            value = {name: getattr(value, name) for name in type(value).model_fields}
        if isinstance(value, dict):
            for name, item in value.items():
                walk(f"{prefix}{name.upper()}__", item)
        elif value is not None:
            secret = isinstance(value, SecretStr)
            result[prefix.removesuffix("__")] = value.get_secret_value() if secret else str(value)

    for name in Settings.model_fields:
        walk(f"{PREFIX}{name.upper()}__", getattr(settings, name))
    return result


def _explain(error: Any) -> str:
    name = PREFIX + "__".join(str(part).upper() for part in error["loc"])
    if error["type"] == "extra_forbidden":
        return f"unknown setting {name}; `shop settings` lists them all"
    if error["type"] == "value_error":
        return f"{name}: {error['ctx']['error']}" if error["loc"] else str(error["ctx"]["error"])
    return f"{name}: {error['msg'].lower()} (it is {_shown(error['input'])})"


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _shown(value: object) -> str:
    return "set" if isinstance(value, dict) else repr(value)


def _refuse_unknown_variables() -> None:
    """pydantic-settings passes over unknown variables at the top level; a typing error must not."""
    known = {name.upper() for name in Settings.model_fields}
    for variable in os.environ:
        upper = variable.upper()
        if upper.startswith(PREFIX) and upper.removeprefix(PREFIX).split("__")[0] not in known:
            raise SettingsError(f"unknown setting {variable}; `shop settings` lists them all")
