"""The settings of limits: one field for each."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field, StringConstraints

LimitText = Annotated[str, StringConstraints(pattern=r"^[1-9][0-9]{0,6}/(second|minute|hour|day)$")]


class LimitSettings(BaseModel):
    """How often calls are allowed, and how many run at a time. `600/minute` allows 600 at once, refilled evenly."""

    generate_limit_mode: Literal["observe", "enforce"] = Field(
        default="enforce",
        description="`enforce` refuses calls over a generate limit; `observe` only counts them and sets the headers.",
    )
    generate_limit_per_key: LimitText = Field(
        default="600/minute", description="Images per key, unless `nanobanana limits set` says otherwise."
    )
    generate_limit_per_account: LimitText = Field(
        default="3000/minute", description="Images of all keys of an account together, unless set otherwise."
    )
    generate_concurrency_per_key: int = Field(
        default=100,
        ge=1,
        le=1_000_000,
        description="Generations of a key that may run at a time, unless set otherwise.",
    )
    unknown_key_limit_per_ip: LimitText = Field(
        default="60/minute", description="Calls with keys that do not exist, per address (IPv6: per /64)."
    )
    register_limit_per_ip: LimitText = Field(default="30/hour", description="Sign-ups per address (IPv6: per /64).")
    register_limit_per_network: LimitText = Field(
        default="300/hour", description="Sign-ups per network (IPv4: /24, IPv6: /48)."
    )
    register_limit_per_account: LimitText = Field(
        default="60/hour", description="Sign-ups with one email, from everywhere together."
    )
    register_limit_global: LimitText = Field(default="10000/hour", description="Sign-ups from everywhere together.")
    login_limit_per_ip: LimitText = Field(default="30/minute", description="Logins per address (IPv6: per /64).")
    login_limit_per_network: LimitText = Field(
        default="300/minute", description="Logins per network (IPv4: /24, IPv6: /48)."
    )
    login_limit_per_account: LimitText = Field(
        default="10/minute", description="Failed logins per account from one address."
    )
    login_limit_per_account_anywhere: LimitText = Field(
        default="1000/hour",
        description="Failed logins per account from all addresses together: wide, so that strangers lock no owner out.",
    )
    login_limit_global: LimitText = Field(default="6000/minute", description="Logins from everywhere together.")
    limit_processes: int | None = Field(
        default=None,
        ge=1,
        le=100_000,
        description="Processes on all machines; each applies its share while Redis fails. By default WORKERS.",
    )
    redis_timeout_ms: int = Field(
        default=75,
        ge=10,
        le=10_000,
        description="How long Redis may take to decide; after that, the process decides alone.",
    )
    requests_max: int = Field(
        default=1000, ge=1, le=1_000_000, description="Requests that one process works on at a time; beyond it, 503."
    )
