"""The routes of orders: validate, one transaction, answer."""

from decimal import Decimal
from typing import Annotated, Any
from urllib.parse import quote, urlencode

from litestar import Controller, MediaType, Request, Response, get, post
from litestar.datastructures import ResponseHeader
from litestar.di import NamedDependency
from litestar.params import JSONBody, PathParameter, QueryParameter

from shop.http import context
from shop.http.amount import POSITIVE, any_positive
from shop.http.body import JsonResponse
from shop.http.idempotency import IdempotencyKey, KeyReused
from shop.http.moment import moment
from shop.http.paging import cursor_of, position_of
from shop.http.problems import FieldError, ProblemError, documented, invalid
from shop.http.waiting import LongPoll
from shop.orders.contract import (
    EMAIL,
    ID,
    TEXT,
    NewOrder,
    OrderPage,
)
from shop.orders.desk import OrderDesk
from shop.orders.model import Status
from shop.orders.placement import Outcome, Placement, Result, placement
from shop.orders.reading import OrderReader, OrderView, Position

TITLE = "OrderController"

_LOCATION = ResponseHeader(
    name="Location", description="Where the order is.", documentation_only=True
)


class OrderController(Controller):
    path = "/orders"
    tags = ("orders",)

    @post(
        status_code=202,
        response_headers=[_LOCATION],
        responses=documented(409, 413, 415, 422, 503),
    )
    async def place(
        self,
        request: Request[Any, Any, Any],
        data: JSONBody[NewOrder],
        desk: NamedDependency[OrderDesk],
        idempotency_key: IdempotencyKey = None,
    ) -> Response[OrderView]:
        """202 as soon as the order is safe, whether Kafka is there or not."""
        order = _placement(request, data.email, Decimal(data.amount), data.id, idempotency_key)
        outcome = await desk.take(order)
        if outcome.result is Result.KEY_REUSED:
            raise KeyReused
        if outcome.result is Result.ID_REUSED:
            raise ProblemError(
                422,
                "There is another order with this id.",
                kind="order-id-taken",
                errors=[FieldError(pointer="#/id", detail="is another order's")],
            )
        return _accepted(request, outcome)

    @get(responses=documented(503))
    async def newest(
        self,
        reader: NamedDependency[OrderReader],
        email: Annotated[str | None, QueryParameter(max_length=254, pattern=TEXT)] = None,
        status: Annotated[Status | None, QueryParameter()] = None,
        limit: Annotated[int, QueryParameter(ge=1, le=200)] = 50,
        cursor: Annotated[
            str | None, QueryParameter(description="From `next` of the page before.")
        ] = None,
    ) -> OrderPage:
        """Newest first, page by page."""
        after = position_of(cursor, Position)
        orders, more = await reader.newest(limit, email=email, status=status, after=after)
        if more is None:
            return OrderPage(orders)
        asked = {"email": email, "status": status, "limit": limit, "cursor": cursor_of(more)}
        query = urlencode({name: value for name, value in asked.items() if value is not None})
        return OrderPage(orders, f"/orders?{query}")

    @get("/{order_id:str}", responses=documented(404, 503))
    async def show(
        self,
        order_id: Annotated[str, PathParameter()],
        reader: NamedDependency[OrderReader],
        decisions: NamedDependency[LongPoll[OrderView]],
        wait: Annotated[
            float,
            QueryParameter(
                ge=0, le=60, description="Seconds to wait for the decision; then as it is."
            ),
        ] = 0,
    ) -> OrderView:
        """One order; with `wait` as soon as it is decided."""
        order = await reader.get(order_id)
        if order is None:
            raise ProblemError(404, "There is no order with this id.")
        if wait and order.decided_at is None:
            return await decisions.of(order_id, wait) or order
        return order


@get(
    "/new",
    media_type=MediaType.TEXT,
    tags=("orders",),
    responses=documented(409, 503),
)
async def place_by_query(
    request: Request[Any, Any, Any],
    desk: NamedDependency[OrderDesk],
    email: Annotated[str, QueryParameter(pattern=EMAIL, max_length=254)],
    amount: Annotated[
        str,
        QueryParameter(
            description="Any positive decimal, kept exactly.", schema_extra={"pattern": POSITIVE}
        ),
    ],
    uuid: Annotated[str | None, QueryParameter(pattern=ID)] = None,
) -> str:
    """The form the Java system's callers use. Only the id makes an order the same."""
    try:
        exact = any_positive(amount)
    except ValueError as error:
        raise invalid(FieldError(parameter="amount", detail=str(error))) from None
    outcome = await desk.take(_placement(request, email, exact, uuid, None))
    return "New order sent" if outcome.result is Result.TAKEN else "Old order received."


def _placement(
    request: Request[Any, Any, Any],
    email: str,
    amount: Decimal,
    order_id: str | None,
    key: str | None,
) -> Placement:
    return placement(
        email,
        amount,
        order_id,
        correlation_id=context.correlation_id(request.scope, TITLE),
        key=key,
        traceparent=context.traceparent(request.scope),
    )


def _accepted(request: Request[Any, Any, Any], order: Outcome) -> Response[OrderView]:
    """The first answer, each time: also when the order has been decided since."""
    context.correlate(request.scope, order.correlation_id)
    view = OrderView(
        order.order_id,
        order.email,
        order.amount,
        Status.ACCEPTED,
        order.correlation_id,
        moment(order.created_at),
    )
    location = f"/orders/{quote(order.order_id, safe='')}"
    return JsonResponse(view, status_code=202, headers={"Location": location})
