"""The route of an order's timeline."""

from typing import Annotated

from litestar import get
from litestar.di import NamedDependency
from litestar.params import PathParameter

from shop.http.problems import ProblemError, documented
from shop.log.timeline import Timeline, Timelines


@get("/orders/{order_id:str}/timeline", tags=("orders",), responses=documented(404, 503))
async def order_timeline(
    order_id: Annotated[str, PathParameter()], timelines: NamedDependency[Timelines]
) -> Timeline:
    """The way of an order over the topics, as far as it has come.

    Mail that was sent is no record on a topic: the request for it is the last hop seen."""
    timeline = await timelines.of(order_id)
    if timeline is None:
        raise ProblemError(404, "There is no order with this id.")
    return timeline
