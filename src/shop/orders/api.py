"""The orders' part of the HTTP application."""

from litestar.config.app import AppConfig
from litestar.datastructures import State
from litestar.di import Provide
from litestar.plugins import InitPlugin

from shop.orders.controller import OrderController, place_by_query
from shop.orders.desk import OrderDesk
from shop.orders.reading import OrderReader
from shop.orders.waiting import Decisions


class OrdersApi(InitPlugin):
    """The routes of orders, for create_app."""

    def __init__(self, desk: OrderDesk, reader: OrderReader, decisions: Decisions) -> None:
        self._desk = desk
        self._reader = reader
        self._decisions = decisions

    def on_app_init(self, app_config: AppConfig) -> AppConfig:
        def provide_desk() -> OrderDesk:
            return self._desk

        def provide_reader() -> OrderReader:
            return self._reader

        def provide_decisions() -> Decisions:
            return self._decisions

        app_config.route_handlers += [OrderController, place_by_query]
        app_config.dependencies |= {
            "desk": Provide(provide_desk, sync_to_thread=False),
            "reader": Provide(provide_reader, sync_to_thread=False),
            "decisions": Provide(provide_decisions, sync_to_thread=False),
        }
        app_config.state = State({**app_config.state, "stopping": [self._decisions.stop]})
        app_config.on_shutdown += [self._decisions.stop, self._desk.close, self._reader.close]
        return app_config
