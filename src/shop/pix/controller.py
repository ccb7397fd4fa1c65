"""The routes of payments and their keys: validate, one transaction, answer."""

from decimal import Decimal
from typing import Annotated, Any
from urllib.parse import quote, urlencode

from litestar import Controller, Request, Response, get, post
from litestar.datastructures import ResponseHeader
from litestar.di import NamedDependency
from litestar.openapi.datastructures import ResponseSpec
from litestar.params import JSONBody, PathParameter, QueryParameter

from shop.http import context
from shop.http.body import JsonResponse
from shop.http.idempotency import IdempotencyKey, KeyReused
from shop.http.paging import cursor_of, position_of
from shop.http.problems import ProblemError, documented
from shop.http.waiting import LongPoll
from shop.pix.contract import KeyPage, NewPayment, PixKey
from shop.pix.keys import KeyDesk, Registration
from shop.pix.model import Status
from shop.pix.reading import KeyPosition, Payment, PaymentView, PixReader
from shop.pix.transfer import PaymentDesk, transfer

TITLE = "PixController"

_LOCATION = ResponseHeader(
    name="Location", description="Where the payment is.", documentation_only=True
)


class PixController(Controller):
    path = "/pix"
    tags = ("pix",)

    @post(
        status_code=200,
        response_headers=[_LOCATION],
        responses=documented(409, 413, 415, 422, 503),
    )
    async def pay(
        self,
        request: Request[Any, Any, Any],
        data: JSONBody[NewPayment],
        payment_desk: NamedDependency[PaymentDesk],
        idempotency_key: IdempotencyKey = None,
    ) -> Response[Payment]:
        """200 as soon as the payment is safe, whether Kafka is there or not. It is decided
        later."""
        outcome = await payment_desk.take(
            transfer(
                data.source_key,
                data.target_key,
                Decimal(data.amount),
                correlation_id=context.correlation_id(request.scope, TITLE),
                key=idempotency_key,
                traceparent=context.traceparent(request.scope),
            )
        )
        if outcome.reused:
            raise KeyReused
        return _answer(request, outcome.payment)

    @get("/{identifier:str}", responses=documented(404, 503))
    async def show(
        self,
        identifier: Annotated[str, PathParameter()],
        pix_reader: NamedDependency[PixReader],
        payment_outcomes: NamedDependency[LongPoll[PaymentView]],
        wait: Annotated[
            float,
            QueryParameter(
                ge=0, le=60, description="Seconds to wait for the outcome; then as it is."
            ),
        ] = 0,
    ) -> PaymentView:
        """One payment; with `wait` as soon as it is PROCESSADO or ERRO."""
        payment = await pix_reader.get(identifier)
        if payment is None:
            raise ProblemError(404, "There is no payment with this identifier.")
        if wait and payment.status is Status.IN_PROCESS:
            return await payment_outcomes.of(identifier, wait) or payment
        return payment

    @post(
        "/keys",
        response_description="It is registered now.",
        responses={
            **documented(413, 415, 503),
            200: ResponseSpec(
                PixKey, description="It was registered already.", generate_examples=False
            ),
        },
    )
    async def register(
        self, data: JSONBody[PixKey], key_desk: NamedDependency[KeyDesk]
    ) -> Response[PixKey]:
        """Register a key, once: payments go through between keys that are registered."""
        new = await key_desk.take(Registration(data.key))
        return JsonResponse(data, status_code=201 if new else 200)

    @get("/keys", responses=documented(503))
    async def keys(
        self,
        pix_reader: NamedDependency[PixReader],
        limit: Annotated[int, QueryParameter(ge=1, le=200)] = 50,
        cursor: Annotated[
            str | None, QueryParameter(description="From `next` of the page before.")
        ] = None,
    ) -> KeyPage:
        """In the order of the keys, page by page."""
        keys, more = await pix_reader.keys(limit, position_of(cursor, KeyPosition))
        page = [PixKey(key) for key in keys]
        if more is None:
            return KeyPage(page)
        return KeyPage(page, f"/pix/keys?{urlencode({'limit': limit, 'cursor': cursor_of(more)})}")


def _answer(request: Request[Any, Any, Any], taken: PaymentView) -> Response[Payment]:
    """The first answer, each time: also when the payment has been decided since."""
    context.correlate(request.scope, taken.correlation_id)
    payment = Payment(
        taken.identifier,
        taken.source_key,
        taken.target_key,
        taken.amount,
        taken.transferred_at,
        taken.status,
    )
    location = f"/pix/{quote(taken.identifier, safe='')}"
    return JsonResponse(payment, status_code=200, headers={"Location": location})
