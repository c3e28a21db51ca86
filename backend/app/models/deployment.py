"""Facts about the whole deployment."""

from datetime import date

from sqlalchemy import CheckConstraint, Text, true
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, after_create


class Deployment(Base):
    """The only row of its table."""

    __tablename__ = "deployment"
    __table_args__ = (
        CheckConstraint("is_the_row", name="is_the_row"),
        CheckConstraint("currency ~ '^[A-Z]{3}$'", name="currency"),
    )

    is_the_row: Mapped[bool] = mapped_column(primary_key=True, server_default=true())
    currency: Mapped[str | None] = mapped_column(Text)
    """The currency of all money here, such as `EUR`; null while there is no money."""
    generations_kept_from: Mapped[date | None]
    """Generations that were delivered before this UTC day may have been removed; their sums stay in `usage`. Null while
    none has been."""


after_create(Deployment.__table__, "insert into deployment default values")
