"""Generations, and the idempotency keys that name them."""

from datetime import datetime
from typing import Any, Literal
from uuid import UUID

from sqlalchemy import (
    ARRAY,
    BigInteger,
    CheckConstraint,
    Index,
    LargeBinary,
    Text,
    func,
    text,
)
from sqlalchemy.dialects.postgresql import JSONB
from sqlalchemy.orm import Mapped, mapped_column

from app.core.images import ImageFormat
from app.core.security import KeyEnvironment
from app.models.base import ID, TIME, Base, after_create

GenerationKind = Literal["generate", "edit"]
GenerationClass = Literal["now", "batch"]
GenerationStatus = Literal["queued", "processing", "delivered", "failed", "lost", "cancelled"]

ENDED_UNDELIVERED = text("status <> 'delivered' and lease_until is null")
"""What has ended without an image. A statement uses the index of these rows only where this stands in it, without
parameters. What is delivered is never in the index: while it is under way it has a `lease_until`.
"""


class Generation(Base):
    """One image that was asked for, and what became of it. A request for several images has a row for each.

    Partitioned by range of `id`, which begins with its time: a partition a month, made ahead (`app.generations`).
    Without foreign keys: rows are only written under the lock of their key's row, so there is always such a key.
    """

    __tablename__ = "generations"
    __table_args__ = (
        CheckConstraint("environment in ('live', 'test')", name="environment"),
        CheckConstraint("kind in ('generate', 'edit')", name="kind"),
        CheckConstraint("format in ('png', 'jpeg', 'webp')", name="format"),
        CheckConstraint("class in ('now', 'batch')", name="class"),
        CheckConstraint(
            "status in ('queued', 'processing', 'delivered', 'failed', 'lost', 'cancelled')", name="status"
        ),
        CheckConstraint("(status = 'delivered') = (delivered_at is not null)", name="delivered_at"),
        CheckConstraint("attempts >= 0", name="attempts"),
        CheckConstraint("list_price >= 0", name="list_price"),
        CheckConstraint("price >= 0", name="price"),
        Index("generations_of_account_idx", "account_id", "environment", "id"),
        Index(
            "generations_undelivered_of_account_idx",
            *("account_id", "environment", "id"),
            postgresql_where=ENDED_UNDELIVERED,
        ),
        Index(
            "generations_undelivered_idx", "id", postgresql_where=text("status <> 'delivered' and deleted_at is null")
        ),
        Index("generations_kept_idx", "id", postgresql_where=text("provider <> 'stub' and deleted_at is null")),
        Index("generations_leased_idx", "lease_until", postgresql_where=text("lease_until is not null")),
        Index("generations_queued_idx", "key_id", "class", "id", postgresql_where=text("status = 'queued'")),
        # Not "where status in (...)": the plan that settles would take it instead of the primary key.
        Index("generations_unfinished_idx", "account_id", "id", postgresql_where=text("lease_until is not null")),
        {"postgresql_partition_by": "RANGE (id)"},
    )

    id: Mapped[str] = mapped_column(ID, primary_key=True)
    request_id: Mapped[str] = mapped_column(ID)
    """The id of the request's first image. A row that the version before wrote names itself."""
    account_id: Mapped[str] = mapped_column(ID)
    """The account and, next, the environment of its key: an account's list is read from one index."""
    environment: Mapped[KeyEnvironment] = mapped_column(Text)
    key_id: Mapped[str] = mapped_column(ID)
    kind: Mapped[GenerationKind] = mapped_column(Text, server_default="generate")
    model: Mapped[str] = mapped_column(Text, server_default="nano-banana")
    route: Mapped[str | None] = mapped_column(Text)
    """The route of the catalogue by which it was drawn; null where there was no choice."""
    provider: Mapped[str] = mapped_column(Text)
    prompt: Mapped[str] = mapped_column(Text)
    """Empty once `deleted_at` is set."""
    size: Mapped[str] = mapped_column(Text)
    quality: Mapped[str] = mapped_column(Text, server_default="auto")
    format: Mapped[ImageFormat] = mapped_column(Text, server_default="png")
    inputs: Mapped[list[Any] | None] = mapped_column(JSONB(none_as_null=True))
    """The ids and hashes of the images that it was made from; null for none, and once `deleted_at` is set."""
    art: Mapped[int] = mapped_column(server_default=text("1"))
    """The version of the stub's art: an image keeps its bytes when the stub learns to draw differently."""
    status: Mapped[GenerationStatus] = mapped_column(Text)
    generation_class: Mapped[GenerationClass] = mapped_column("class", Text, server_default="now")
    lease: Mapped[UUID | None]
    """Made anew for each attempt. A worker settles only with the lease that it was given. Null for an asynchronous
    generation that no worker has had, or that was not delivered and of which the sweeper has deleted what they kept.
    """
    lease_until: Mapped[datetime | None] = mapped_column(TIME)
    """When a queued generation expires, or a processing one is given up; null for all others."""
    attempts: Mapped[int] = mapped_column(server_default=text("0"))
    sent_at: Mapped[datetime | None] = mapped_column(TIME)
    """When it was handed to a provider: from then on it may cost, and is not drawn a second time."""
    created_at: Mapped[datetime] = mapped_column(TIME, server_default=func.now())
    delivered_at: Mapped[datetime | None] = mapped_column(TIME)
    deleted_at: Mapped[datetime | None] = mapped_column(TIME)
    """When its image was deleted. The row stays, and counts; a trigger erases its prompt and inputs."""
    error: Mapped[str | None] = mapped_column(Text)
    """The error code with which it failed."""
    list_price: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    """The catalogue's price, in millionths of the deployment's currency; likewise the next two."""
    price: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    """What the account is charged for it."""
    cost: Mapped[int | None] = mapped_column(BigInteger)
    """What the calls for it may have cost at the providers, also where it failed; null while that is not known."""
    tries: Mapped[int | None]
    """How many calls to providers it took, on all routes; null where none was needed or that is not known."""
    provider_request_id: Mapped[str | None] = mapped_column(Text)
    """What the provider called its last call."""
    expires_at: Mapped[datetime | None] = mapped_column(TIME)
    """Until when an asynchronous generation may wait; null for a synchronous one."""
    options: Mapped[dict[str, Any] | None] = mapped_column(JSONB(none_as_null=True))
    """What else a worker needs for an asynchronous generation (`app.generations.jobs`); null for a synchronous one."""


# Rows whose month has no partition yet. It stays empty: the months are made ahead.
after_create(Generation.__table__, "create table generations_default partition of generations default")

# By the database, so that no statement that marks an image as deleted can leave its prompt behind: not those of the
# version before, and not an operator's.
after_create(
    Base.metadata,
    """
create function erase_generation() returns trigger language plpgsql as $$
begin
  new.prompt := '';
  new.inputs := null;
  return new;
end
$$
""",
    """
create trigger generations_erase before update of deleted_at on generations
for each row when (new.deleted_at is not null) execute function erase_generation()
""",
)


class Claim(Base):
    """An idempotency key that was used, and for which request. It is free again after a day, or when its lease is over.

    `scope` is the SHA-256 of account, environment, route and key; `fingerprint` that of the request.
    """

    __tablename__ = "claims"
    __table_args__ = (
        CheckConstraint("octet_length(scope) = 32", name="scope"),
        CheckConstraint("octet_length(fingerprint) = 32", name="fingerprint"),
    )

    scope: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    fingerprint: Mapped[bytes] = mapped_column(LargeBinary)
    generation_id: Mapped[str] = mapped_column(ID)
    created_at: Mapped[datetime] = mapped_column(TIME, server_default=func.now(), index=True)
    other_ids: Mapped[list[str] | None] = mapped_column(ARRAY(ID))
    """The request's further images; `generation_id` is its first and names it."""
    lease_until: Mapped[datetime | None] = mapped_column(TIME)
    """Until when its images may be drawn; null once they are delivered."""
