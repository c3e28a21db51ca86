"""The settings of accounts: how long a login lasts, and how much an account may have."""

from typing import Literal

from pydantic import BaseModel, Field

Registration = Literal["open", "invite", "closed"]


class AccountSettings(BaseModel):
    """Accounts, their logins and their keys."""

    registration: Registration = Field(
        default="open",
        description=(
            "Who may sign up: anybody, whoever has a link of `nanobanana invitations create`, or nobody, where "
            "`nanobanana accounts create` makes all accounts."
        ),
    )
    login_token_minutes: int = Field(default=60, ge=1, le=60, description="How long a login token is good for.")
    session_days: int = Field(
        default=14, ge=1, le=90, description="How long a login in a browser lasts at most, however much it is used."
    )
    password_bytes_min: int = Field(
        default=8, ge=8, le=1024, description="The shortest password that can be chosen, in bytes as UTF-8."
    )
    hash_queue_max: int = Field(
        default=64, ge=1, le=100_000, description="Password hashes that may wait in one process; beyond it, 503."
    )
    keys_per_account_max: int = Field(
        default=100, ge=1, le=10_000, description="Unrevoked keys that an account may have, both environments together."
    )
