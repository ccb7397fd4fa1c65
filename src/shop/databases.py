"""The services' databases, opened and brought to their schema when first asked for."""

import threading
from urllib.parse import quote

from shop.db.database import Database
from shop.db.schema import upgrade
from shop.settings import Settings, SettingsError


class Databases:
    """One per service: an SQLite file, or a schema on PostgreSQL. Thread-safe."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()
        self._open: dict[str, Database] = {}

    def of(self, service: str) -> Database:
        """The database of a service, its schema at the newest version. Raises StoreUnavailable."""
        with self._lock:
            if service not in self._open:
                database = self._connect(service)
                upgrade(database, f"shop.{service}")
                self._open[service] = database
            return self._open[service]

    def close(self) -> None:
        with self._lock:
            for database in self._open.values():
                database.close()
            self._open.clear()

    def _connect(self, service: str) -> Database:
        url = self._settings.database.url.get_secret_value().replace("{service}", service)
        if not url:
            path = (self._settings.data_dir / f"{service}.db").absolute()
            try:
                return Database(f"sqlite:///{quote(str(path))}")
            except OSError as error:
                raise SettingsError(
                    f"cannot use {path.parent} ({error.strerror}); SHOP_DATA_DIR chooses another"
                ) from None
        try:
            schema = service if url.startswith("postgres") else None
            return Database(url, schema=schema)
        except ValueError as error:
            raise SettingsError(f"SHOP_DATABASE__URL: {error}") from None
