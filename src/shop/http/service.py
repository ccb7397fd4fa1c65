"""A service's part of the HTTP application."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from litestar.config.app import AppConfig
from litestar.datastructures import State
from litestar.di import Provide
from litestar.plugins import InitPlugin
from litestar.types import ControllerRouterHandler


class ServiceApi(InitPlugin):
    """The routes of a service, for create_app.

    `provided`: what the handlers take as NamedDependency, by names that no other service uses.
    `stop_waiting`: called first when the server stops, to answer what is only waiting. `close`:
    called last."""

    def __init__(
        self,
        handlers: Sequence[ControllerRouterHandler],
        provided: Mapping[str, object],
        *,
        stop_waiting: Sequence[Callable[[], None]] = (),
        close: Sequence[Callable[[], Any]] = (),
    ) -> None:
        self._handlers = handlers
        self._provided = provided
        self._stop_waiting = stop_waiting
        self._close = close

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        app_config.route_handlers += self._handlers
        for name, value in self._provided.items():
            if name in app_config.dependencies:
                raise ValueError(f"another service provides {name!r} already")
            app_config.dependencies[name] = Provide(_giving(value), sync_to_thread=False)
        waiting = [*app_config.state.get("stopping", ()), *self._stop_waiting]
        app_config.state = State({**app_config.state, "stopping": waiting})
        app_config.on_shutdown += [*self._stop_waiting, *self._close]
        return app_config


def _giving(value: object) -> Callable[[], object]:
    def provide() -> object:
        return value

    provide.__annotations__["return"] = type(value)  # Litestar wants to know
    return provide
