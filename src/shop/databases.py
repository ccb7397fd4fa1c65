"""The services' databases, opened and brought to their schema when first asked for."""

import threading
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import quote

from sqlalchemy.engine import make_url

from shop.db.database import Database
from shop.db.schema import upgrade
from shop.settings import Settings, SettingsError

if TYPE_CHECKING:
    from shop.metrics import Metrics


class Databases:
    """One per service: an SQLite file, or a schema on PostgreSQL. Thread-safe."""

    def __init__(self, settings: Settings, metrics: "Metrics | None" = None) -> None:
        self._settings = settings
        self._metrics = metrics.databases if metrics else None
        self._lock = threading.Lock()
        self._open: dict[str, Database] = {}
        self._looked_at: dict[str, Database] = {}

    def of(self, service: str) -> Database:
        """The database of a service, its schema at the newest version. Raises StoreUnavailable."""
        with self._lock:
            if service not in self._open:
                database = self._connect(service)
                database.metrics = self._metrics
                upgrade(database, f"shop.{service}")
                self._open[service] = database
            return self._open[service]

    def existing(self, service: str) -> Database | None:
        """The database of a service as it is, maybe without tables; None where it is a file that
        is not there: looking makes none."""
        with self._lock:
            if service in self._open:
                return self._open[service]
            if service not in self._looked_at:
                url = self._configured(service)
                file = make_url(url).database if url.startswith("sqlite") else None
                if not url:
                    file = str(self._file(service))
                if file and not Path(file).exists():
                    return None
                self._looked_at[service] = self._connect(service)
            return self._looked_at[service]

    def close(self) -> None:
        with self._lock:
            for databases in (self._open, self._looked_at):
                for database in databases.values():
                    database.close()
                databases.clear()

    def _configured(self, service: str) -> str:
        return self._settings.database.url.get_secret_value().replace("{service}", service)

    def _file(self, service: str) -> Path:
        return (self._settings.data_dir / f"{service}.db").absolute()

    def _connect(self, service: str) -> Database:
        url = self._configured(service)
        if not url:
            path = self._file(service)
            try:
                return Database(f"sqlite:///{quote(str(path))}")
            except OSError as error:
                raise SettingsError(
                    f"cannot use {path.parent} ({error.strerror}); SHOP_DATA_DIR chooses another"
                ) from None
        try:
            prefix = self._settings.database.schema_prefix
            schema = f"{prefix}{service}" if url.startswith("postgres") else None
            return Database(url, schema=schema)
        except ValueError as error:
            raise SettingsError(f"SHOP_DATABASE__URL: {error}") from None
