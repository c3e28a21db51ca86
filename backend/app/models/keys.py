"""API keys."""

from datetime import datetime

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ForeignKey,
    Index,
    LargeBinary,
    Text,
    UniqueConstraint,
    false,
    func,
    text,
)
from sqlalchemy.orm import Mapped, mapped_column

from app.core.limit_format import CONCURRENCY_MAX
from app.core.security import KeyEnvironment
from app.models.base import ID, TIME, Base, after_create, is_limit
from app.models.billing import CapPeriod


class ApiKey(Base):
    """A key. Whatever stops it is a column of this row, so that one row lock decides whether it is active."""

    __tablename__ = "api_keys"
    __table_args__ = (
        UniqueConstraint("key_hash"),
        CheckConstraint("environment in ('live', 'test')", name="environment"),
        CheckConstraint("octet_length(key_hash) = 32", name="key_hash"),
        CheckConstraint(is_limit("generate_limit"), name="generate_limit"),
        CheckConstraint("cap >= 0", name="cap"),
        CheckConstraint("cap_period in ('day', 'month')", name="cap_period"),
        CheckConstraint("held >= 0", name="held"),
        CheckConstraint(f"generate_concurrency between 1 and {CONCURRENCY_MAX}", name="generate_concurrency"),
        Index("api_keys_of_account_idx", "account_id", "created_at", "id"),
    )

    id: Mapped[str] = mapped_column(ID, primary_key=True)
    user_id: Mapped[str | None] = mapped_column(ForeignKey("users.id"))
    """The user that made the key; null once the account was deleted."""
    name: Mapped[str] = mapped_column(Text)
    environment: Mapped[KeyEnvironment] = mapped_column(Text)
    prefix: Mapped[str] = mapped_column(Text)
    key_hash: Mapped[bytes] = mapped_column(LargeBinary)
    created_at: Mapped[datetime] = mapped_column(TIME, server_default=func.now())
    last_used_at: Mapped[datetime | None] = mapped_column(TIME)
    revoked_at: Mapped[datetime | None] = mapped_column(TIME)
    is_suspended: Mapped[bool] = mapped_column(server_default=false())
    """True while the account is disabled; set by the transaction that disables it."""
    generate_limit: Mapped[str | None] = mapped_column(Text)
    """The key's own limit, such as `600/minute`; null for the account's."""
    generate_concurrency: Mapped[int | None]
    """How many generations the key may run at a time; null for the account's number."""
    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"))
    """The account that owns the key and whatever is generated with it."""
    revision: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    """Raised by one, by a trigger, with every change of what the key may do. A generation that was admitted under an
    earlier revision is admitted anew."""
    expires_at: Mapped[datetime | None] = mapped_column(TIME)
    """From when on the key is refused; null for never."""
    cap: Mapped[int | None] = mapped_column(BigInteger)
    """The most that may be spent with it in a period, in millionths of the currency; null for no cap. The next four
    columns say something only while there is one."""
    cap_period: Mapped[CapPeriod | None] = mapped_column(Text)
    """A calendar day or month in UTC; null for the key's whole life."""
    period: Mapped[datetime] = mapped_column(TIME, server_default=text("'-infinity'"))
    """When the period began that `spent` belongs to."""
    spent: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    """The prices of what was delivered since then."""
    held: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    """The sum of the prices of its generations that are queued or processing."""


_RAISE_REVISION = """
create function raise_key_revision() returns trigger language plpgsql as $$
begin
  new.revision := old.revision + 1;
  return new;
end
$$
"""

_RAISE_REVISION_ON_CHANGE = """
create trigger api_keys_raise_revision
before update of revoked_at, is_suspended, expires_at, generate_limit, generate_concurrency on api_keys
for each row when (
  (old.revoked_at, old.is_suspended, old.expires_at, old.generate_limit, old.generate_concurrency)
  is distinct from (new.revoked_at, new.is_suspended, new.expires_at, new.generate_limit, new.generate_concurrency)
) execute function raise_key_revision()
"""

after_create(ApiKey.__table__, _RAISE_REVISION, _RAISE_REVISION_ON_CHANGE)
