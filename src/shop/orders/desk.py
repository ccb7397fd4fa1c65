"""Taking orders in: the order, its idempotency key and its event are committed as one."""

from shop.db.database import Database
from shop.http.desk import Desk
from shop.orders.placement import Outcome, Placement, take


class OrderDesk(Desk[Placement, Outcome]):
    def __init__(self, database: Database) -> None:
        super().__init__(database, take)
