from shop.http.service import ServiceApi
from shop.http.waiting import LongPoll
from shop.orders.controller import OrderController, place_by_query
from shop.orders.desk import OrderDesk
from shop.orders.reading import OrderReader, OrderView


def orders_api(desk: OrderDesk, reader: OrderReader, decisions: LongPoll[OrderView]) -> ServiceApi:
    """The routes of orders."""
    return ServiceApi(
        [OrderController, place_by_query],
        {"desk": desk, "reader": reader, "decisions": decisions},
        stop_waiting=[decisions.stop],
        close=[desk.close, reader.close],
    )
