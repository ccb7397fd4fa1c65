from sqlalchemy.orm import Mapped, mapped_column

from shop.db.tables import Base


class UserRow(Base):
    """A customer, known by an e-mail address. `created_at`: milliseconds since the epoch."""

    __tablename__ = "users"

    uuid: Mapped[str] = mapped_column(primary_key=True)
    email: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[int]
