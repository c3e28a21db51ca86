"""People who log in, and accounts that own keys, limits, usage and money."""

from datetime import datetime
from typing import Literal

from sqlalchemy import (
    ARRAY,
    BigInteger,
    CheckConstraint,
    ColumnElement,
    ForeignKey,
    Index,
    LargeBinary,
    Sequence,
    Text,
    UniqueConstraint,
    false,
    func,
    text,
    true,
)
from sqlalchemy.orm import InstrumentedAttribute, Mapped, mapped_column

from app.models.base import ID, TIME, Base, limit_checks
from app.models.compatibility import LegacyUserColumns

LaneClass = Literal["now", "batch"]

TURNS = Sequence("turns", metadata=Base.metadata)
"""Numbers the turns of lanes, so that the lane that was served longest ago is the next one."""


class User(LegacyUserColumns, Base):
    """A person who logs in. The email is stored in its canonical form, and its unique constraint decides between two
    who register it at once.
    """

    __tablename__ = "users"
    __table_args__ = (
        UniqueConstraint("email"),
        CheckConstraint("email = lower(email)", name="email"),
        *limit_checks(),
    )

    id: Mapped[str] = mapped_column(ID, primary_key=True, sort_order=1)
    email: Mapped[str] = mapped_column(Text, sort_order=2)
    password_hash: Mapped[str] = mapped_column(Text, sort_order=3)
    created_at: Mapped[datetime] = mapped_column(TIME, server_default=func.now(), sort_order=5)
    token_generation: Mapped[int] = mapped_column(BigInteger, server_default=text("0"), sort_order=9)
    """Raised whenever all logins are ended, by every change of the password too. Earlier login tokens are refused."""
    is_operator: Mapped[bool] = mapped_column(server_default=false(), sort_order=10)
    """Set by a command alone. It allows nothing by itself yet."""

    @property
    def account_id(self) -> str:
        """The id of the user's personal account."""
        return f"acc_{self.id.removeprefix('usr_')}"


def is_owner_of(account_id: InstrumentedAttribute[str]) -> ColumnElement[bool]:
    """The condition of the user whose personal account has this id, for a search that begins with the account."""
    return User.id == func.concat("usr_", func.substr(account_id, 5))


class BrowserSession(Base):
    """A login in a browser, until it expires or is ended. `token_hash` is the SHA-256 of its token."""

    __tablename__ = "browser_sessions"
    __table_args__ = (CheckConstraint("octet_length(token_hash) = 32", name="token_hash"),)

    token_hash: Mapped[bytes] = mapped_column(LargeBinary, primary_key=True)
    user_id: Mapped[str] = mapped_column(ForeignKey("users.id"), index=True)
    created_at: Mapped[datetime] = mapped_column(TIME, server_default=func.now())
    expires_at: Mapped[datetime] = mapped_column(TIME)


class Account(Base):
    """An owner of keys, limits and usage. The id of a user's personal account is `acc_` and the end of the user's id.
    An account whose user is gone was deleted: it stays for its numbers.

    Its money stands in `balances`, so that changing a limit and charging a generation never wait for each other.
    """

    __tablename__ = "accounts"
    __table_args__ = limit_checks()

    id: Mapped[str] = mapped_column(ID, primary_key=True)
    is_active: Mapped[bool] = mapped_column(server_default=true())
    """False stops the account's logins. Its keys are stopped by their own `is_suspended`, set in the same
    transaction."""
    created_at: Mapped[datetime] = mapped_column(TIME, server_default=func.now())
    generate_limit: Mapped[str | None] = mapped_column(Text)
    """The limit of all the account's keys together, such as `600/minute`; null for the settings' limit."""
    generate_limit_per_key: Mapped[str | None] = mapped_column(Text)
    """The limit of each key that has none of its own; null for the settings' limit."""
    generate_concurrency_per_key: Mapped[int | None]
    """How many generations each key may run at a time, unless it has a number of its own; null for the settings'."""
    models: Mapped[list[str] | None] = mapped_column(ARRAY(Text))
    """The names of the models that it may ask for; null for all."""


class Erasure(Base):
    """A deleted account whose prompts and images are still to be erased. The row goes with the last of them."""

    __tablename__ = "erasures"

    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"), primary_key=True)
    lease_until: Mapped[datetime] = mapped_column(TIME)
    """Until when a process is at it; no other takes it up before."""


class Lane(Base):
    """How many asynchronous generations of one account wait and run; the lane with the oldest turn is served next."""

    __tablename__ = "lanes"
    __table_args__ = (
        CheckConstraint("class in ('now', 'batch')", name="class"),
        CheckConstraint("waiting >= 0", name="waiting"),
        CheckConstraint("running >= 0", name="running"),
        CheckConstraint("most >= 0", name="most"),
        CheckConstraint("weight between 1 and 1000", name="weight"),
        Index("lanes_waiting_idx", "class", "turn", postgresql_where=text("waiting > 0")),
        {"postgresql_with": {"fillfactor": 50}},  # rows that change with every generation stay on their page
    )

    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"), primary_key=True)
    lane_class: Mapped[LaneClass] = mapped_column("class", Text, primary_key=True)
    turn: Mapped[int] = mapped_column(BigInteger, server_default=text("0"))
    waiting: Mapped[int] = mapped_column(server_default=text("0"))
    running: Mapped[int] = mapped_column(server_default=text("0"))
    most: Mapped[int | None]
    """The most that may run at a time; null for the settings' number."""
    weight: Mapped[int] = mapped_column(server_default=text("1"))
    """How many requests the lane hands over whenever it is its turn."""


class LaneKey(Base):
    """How many of a lane's generations wait and run under each of the account's keys. It changes under the lane's lock
    alone.
    """

    __tablename__ = "lane_keys"
    __table_args__ = (
        CheckConstraint("class in ('now', 'batch')", name="class"),
        CheckConstraint("waiting >= 0", name="waiting"),
        CheckConstraint("running >= 0", name="running"),
        Index("lane_keys_waiting_idx", "account_id", "class"),
        {"postgresql_with": {"fillfactor": 50}},
    )

    key_id: Mapped[str] = mapped_column(ID, primary_key=True)
    lane_class: Mapped[LaneClass] = mapped_column("class", Text, primary_key=True)
    account_id: Mapped[str] = mapped_column(ForeignKey("accounts.id"))
    waiting: Mapped[int] = mapped_column(server_default=text("0"))
    running: Mapped[int] = mapped_column(server_default=text("0"))
