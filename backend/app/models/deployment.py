"""Facts about the whole deployment."""

from datetime import date
from typing import Literal

from sqlalchemy import CheckConstraint, Text, true
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, after_create

StripeMode = Literal["test", "live"]


class Deployment(Base):
    """The only row of its table."""

    __tablename__ = "deployment"
    __table_args__ = (
        CheckConstraint("is_the_row", name="is_the_row"),
        CheckConstraint("currency ~ '^[A-Z]{3}$'", name="currency"),
        CheckConstraint("stripe_mode in ('test', 'live')", name="stripe_mode"),
    )

    is_the_row: Mapped[bool] = mapped_column(primary_key=True, server_default=true())
    currency: Mapped[str | None] = mapped_column(Text)
    """The currency of all money here, such as `EUR`; null while there is no money."""
    generations_kept_from: Mapped[date | None]
    """Generations that were delivered before this UTC day may have been removed; their sums stay in `usage`. Null while
    none has been."""
    stripe_mode: Mapped[StripeMode | None] = mapped_column(Text)
    """The mode of Stripe that its customers and payments are of; null while there was no key for Stripe."""


after_create(Deployment.__table__, "insert into deployment default values")
