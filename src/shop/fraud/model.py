from decimal import Decimal

from sqlalchemy.orm import Mapped, mapped_column

from shop.db.tables import Base, ExactDecimal


class Decision(Base):
    """What was decided of an order. There is one, and it does not change."""

    __tablename__ = "decision"

    order_id: Mapped[str] = mapped_column(primary_key=True)
    amount: Mapped[Decimal] = mapped_column(ExactDecimal)
    is_fraud: Mapped[bool]
