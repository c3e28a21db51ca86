"""Uploaded images."""

from datetime import datetime

from sqlalchemy import BigInteger, CheckConstraint, ForeignKey, Index, Text, false, func
from sqlalchemy.orm import Mapped, mapped_column

from app.core.images import ImageFormat
from app.core.security import KeyEnvironment
from app.models.base import ID, TIME, Base


class Upload(Base):
    """An image that a caller has uploaded. The row is there before its file in the store, and until after it, so that
    no file is without a row; it counts among the account's bytes for as long.
    """

    __tablename__ = "uploads"
    __table_args__ = (
        CheckConstraint("environment in ('live', 'test')", name="environment"),
        CheckConstraint("format in ('png', 'jpeg', 'webp')", name="format"),
        CheckConstraint("width > 0 and height > 0 and bytes > 0", name="size"),
        Index("uploads_of_account_idx", "account_id", "environment", "id"),
    )

    id: Mapped[str] = mapped_column(ID, primary_key=True)
    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"))
    environment: Mapped[KeyEnvironment] = mapped_column(Text)
    format: Mapped[ImageFormat] = mapped_column(Text)
    width: Mapped[int]
    height: Mapped[int]
    bytes: Mapped[int] = mapped_column(BigInteger)
    is_stored: Mapped[bool] = mapped_column(server_default=false())
    """False until the file is in the store: then nobody sees the upload."""
    created_at: Mapped[datetime] = mapped_column(TIME, server_default=func.now())
    expires_at: Mapped[datetime] = mapped_column(TIME, index=True)
    """From when on nobody sees it, and the sweep deletes it."""
