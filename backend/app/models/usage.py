"""What was used."""

from datetime import date

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Text, text
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base


class Usage(Base):
    """What a key delivered with one model on one UTC day: always the count and the sums of those generations."""

    __tablename__ = "usage"
    __table_args__ = (CheckConstraint("pictures >= 0", name="pictures"),)

    key_id: Mapped[str] = mapped_column(ForeignKey("api_keys.id"), primary_key=True)
    day: Mapped[date] = mapped_column(primary_key=True)
    pictures: Mapped[int] = mapped_column(BigInteger)
    model: Mapped[str] = mapped_column(Text, primary_key=True, server_default="nano-banana")
    list_amount: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    """The sum of the generations' `list_price`; likewise `amount` of `price`, and `cost` of `cost`."""
    amount: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    cost: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
