"""Invitations to sign up."""

from datetime import datetime

from sqlalchemy import CheckConstraint, LargeBinary, Text, UniqueConstraint, func, text
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import ID, TIME, Base


class Invitation(Base):
    """A link with which somebody may sign up. `token_hash` is the SHA-256 of its token, which is not stored."""

    __tablename__ = "invitations"
    __table_args__ = (
        UniqueConstraint("token_hash"),
        CheckConstraint("octet_length(token_hash) = 32", name="token_hash"),
        CheckConstraint("email = lower(email)", name="email"),
        CheckConstraint("uses_max >= 1", name="uses_max"),
        CheckConstraint("uses between 0 and uses_max", name="uses"),
    )

    id: Mapped[str] = mapped_column(ID, primary_key=True)
    token_hash: Mapped[bytes] = mapped_column(LargeBinary)
    email: Mapped[str | None] = mapped_column(Text)
    """The only email that may sign up with it, in its canonical form; null for any."""
    uses_max: Mapped[int]
    uses: Mapped[int] = mapped_column(server_default=text("0"))
    """How many accounts were made with it."""
    created_at: Mapped[datetime] = mapped_column(TIME, server_default=func.now())
    expires_at: Mapped[datetime] = mapped_column(TIME)
    revoked_at: Mapped[datetime | None] = mapped_column(TIME)
