"""The whole schema on one page. Rows of keys, usage and generations are never deleted."""

from datetime import date, datetime
from typing import Literal

from sqlalchemy import (
    ARRAY,
    BigInteger,
    CheckConstraint,
    DateTime,
    ForeignKey,
    Index,
    LargeBinary,
    MetaData,
    Text,
    UniqueConstraint,
    false,
    func,
    text,
    true,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column

from app.core.images import ImageFormat
from app.core.security import KeyEnvironment

GenerationStatus = Literal["processing", "delivered", "failed", "lost"]

_time = DateTime(timezone=True)
_id = Text(collation="C")  # compared byte by byte: ids that begin with their time stay in the order of time


def _is_limit(column: str) -> str:
    return f"{column} ~ '^[1-9][0-9]{{0,6}}/(second|minute|hour|day)$'"


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "pk": "%(table_name)s_pkey",
            "fk": "%(table_name)s_%(column_0_name)s_fkey",
            "uq": "%(table_name)s_%(column_0_name)s_key",
            "ix": "%(table_name)s_%(column_0_N_name)s_idx",
            "ck": "%(table_name)s_%(constraint_name)s_check",
        }
    )


class User(Base):
    """An account. The email is stored in its canonical form, and the unique index on it is the only arbiter."""

    __tablename__ = "users"
    __table_args__ = (
        UniqueConstraint("email"),
        CheckConstraint("email = lower(email)", name="email"),
        CheckConstraint(_is_limit("generate_limit"), name="generate_limit"),
        CheckConstraint(_is_limit("generate_limit_per_key"), name="generate_limit_per_key"),
        CheckConstraint("generate_concurrency_per_key between 1 and 1000000", name="generate_concurrency_per_key"),
    )

    id: Mapped[str] = mapped_column(_id, primary_key=True)
    email: Mapped[str] = mapped_column(Text)
    password_hash: Mapped[str] = mapped_column(Text)
    is_active: Mapped[bool] = mapped_column(server_default=true())
    created_at: Mapped[datetime] = mapped_column(_time, server_default=func.now())
    generate_limit: Mapped[str | None] = mapped_column(Text)
    """Instead of the settings', for all its keys together, such as `600/minute`; below, for each key of its own."""
    generate_limit_per_key: Mapped[str | None] = mapped_column(Text)
    generate_concurrency_per_key: Mapped[int | None]
    token_generation: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    """Goes up whenever all logins are ended, by every change of the password too. Earlier login tokens are refused."""


class BrowserSession(Base):
    """A login in a browser, until its time is over or somebody ends it. `token_hash` is the SHA-256 of its token."""

    __tablename__ = "browser_sessions"
    __table_args__ = (CheckConstraint("octet_length(token_hash) = 32", name="token_hash"),)

    token_hash: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"), index=True)
    created_at: Mapped[datetime] = mapped_column(_time, server_default=func.now())
    expires_at: Mapped[datetime] = mapped_column(_time)


class ApiKey(Base):
    """A key. Whatever stops it is a column of this row, so that one row lock decides whether it is active."""

    __tablename__ = "api_keys"
    __table_args__ = (
        UniqueConstraint("key_hash"),
        CheckConstraint("environment in ('live', 'test')", name="environment"),
        CheckConstraint("octet_length(key_hash) = 32", name="key_hash"),
        CheckConstraint(_is_limit("generate_limit"), name="generate_limit"),
        CheckConstraint("generate_concurrency between 1 and 1000000", name="generate_concurrency"),
        Index("api_keys_of_user_idx", "user_id", "created_at", "id"),
    )

    id: Mapped[str] = mapped_column(_id, primary_key=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"))
    name: Mapped[str] = mapped_column(Text)
    environment: Mapped[KeyEnvironment] = mapped_column(Text)
    prefix: Mapped[str] = mapped_column(Text)
    key_hash: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[datetime] = mapped_column(_time, server_default=func.now())
    last_used_at: Mapped[datetime | None] = mapped_column(_time)
    revoked_at: Mapped[datetime | None] = mapped_column(_time)
    is_suspended: Mapped[bool] = mapped_column(server_default=false())
    """The account's `is_active`, the other way round, kept here by the transaction that changes it."""
    generate_limit: Mapped[str | None] = mapped_column(Text)
    """Instead of the account's or the settings'; so is the next."""
    generate_concurrency: Mapped[int | None]


class Generation(Base):
    """One picture that was asked for: what a repeated answer and the drawing of the picture need."""

    __tablename__ = "generations"
    __table_args__ = (
        CheckConstraint("status in ('processing', 'delivered', 'failed', 'lost')", name="status"),
        CheckConstraint("(status = 'delivered') = (delivered_at is not null)", name="delivered_at"),
        CheckConstraint("format in ('png', 'jpeg', 'webp')", name="format"),
        Index("generations_of_key_idx", "key_id", "id"),
        Index(
            "generations_undelivered_idx", "id", postgresql_where=text("status <> 'delivered' and deleted_at is null")
        ),
        Index("generations_kept_idx", "id", postgresql_where=text("provider <> 'stub' and deleted_at is null")),
    )

    id: Mapped[str] = mapped_column(_id, primary_key=True)
    key_id: Mapped[str] = mapped_column(ForeignKey("api_keys.id"))
    prompt: Mapped[str] = mapped_column(Text)
    size: Mapped[str] = mapped_column(Text)
    provider: Mapped[str] = mapped_column(Text)
    status: Mapped[GenerationStatus] = mapped_column(Text)
    created_at: Mapped[datetime] = mapped_column(_time, server_default=func.now())
    delivered_at: Mapped[datetime | None] = mapped_column(_time)
    format: Mapped[ImageFormat] = mapped_column(Text, server_default="png")
    deleted_at: Mapped[datetime | None] = mapped_column(_time)
    """When its picture was forgotten. The row stays, and counts."""


class Claim(Base):
    """An idempotency key that was used, and for what. Free again after a day, or when its lease is over.

    `scope` is the SHA-256 of account, environment, route and key; `fingerprint` that of the request.
    """

    __tablename__ = "claims"
    __table_args__ = (
        CheckConstraint("octet_length(scope) = 32", name="scope"),
        CheckConstraint("octet_length(fingerprint) = 32", name="fingerprint"),
    )

    scope: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    fingerprint: Mapped[bytes] = mapped_column(LargeBinary)
    generation_id: Mapped[str] = mapped_column(_id)
    created_at: Mapped[datetime] = mapped_column(_time, server_default=func.now(), index=True)
    other_ids: Mapped[list[str] | None] = mapped_column(ARRAY(_id))
    """The request's further pictures; `generation_id` is its first and names it."""
    lease_until: Mapped[datetime | None] = mapped_column(_time)
    """Until when its pictures may be drawn; null once they are delivered."""


class Usage(Base):
    """How many pictures a key delivered on one UTC day: always the count of its delivered generations."""

    __tablename__ = "usage"
    __table_args__ = (CheckConstraint("pictures >= 0", name="pictures"),)

    key_id: Mapped[str] = mapped_column(ForeignKey("api_keys.id"), primary_key=True)
    day: Mapped[date] = mapped_column(primary_key=True)
    pictures: Mapped[int] = mapped_column(BigInteger)
