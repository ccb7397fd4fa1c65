from shop.db.database import Database
from shop.http.service import ServiceApi
from shop.log.controller import order_timeline
from shop.log.reading import AuditReader
from shop.log.timeline import Accepted, Timelines


def timelines_api(database: Database, accepted: Accepted) -> ServiceApi:
    """The route of timelines. `accepted` says when an order was, as its own service knows."""
    timelines = Timelines(AuditReader(database), accepted)
    return ServiceApi([order_timeline], {"timelines": timelines}, close=[timelines.close])
