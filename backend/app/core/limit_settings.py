"""The settings of limits: the part of Settings that grows with every limit."""

from typing import Annotated, Literal

from pydantic import BaseModel, Field, StringConstraints

from app.core.limit_format import CONCURRENCY_MAX, LIMIT_PATTERN

LimitText = Annotated[str, StringConstraints(pattern=f"^{LIMIT_PATTERN}$")]
LimitMode = Literal["observe", "enforce"]


class LimitSettings(BaseModel):
    """How often, and how much at a time. A limit is written `600/minute`: that many at once, refilled evenly."""

    generate_limit_mode: LimitMode = Field(
        default="enforce",
        description="`enforce` refuses what is over a generate limit; `observe` only tells and counts.",
    )
    generate_limit_per_key: LimitText = Field(
        default="600/minute", description="Pictures per key, unless `nanobanana limits set` says otherwise."
    )
    generate_limit_per_account: LimitText = Field(
        default="3000/minute", description="Pictures of all keys of an account together, unless set otherwise."
    )
    generate_concurrency_per_key: int = Field(
        default=100,
        ge=1,
        le=CONCURRENCY_MAX,
        description="Generations of a key that may run at a time, unless set otherwise.",
    )
    unknown_key_limit_per_ip: LimitText = Field(
        default="60/minute", description="Calls with keys that nobody has, per address (IPv6: per /64)."
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
        description="Failed logins per account from all addresses together: wide, so that strangers lock nobody out.",
    )
    login_limit_global: LimitText = Field(default="6000/minute", description="Logins from everywhere together.")
    limit_processes: int | None = Field(
        default=None,
        ge=1,
        le=100_000,
        description="Processes over all machines: the share of each while Redis is away. By default WORKERS.",
    )
    redis_timeout_ms: int = Field(
        default=75, ge=10, le=10_000, description="How long Redis may take to decide, before this process does."
    )
    requests_max: int = Field(
        default=1000, ge=1, le=1_000_000, description="Requests that one process works on at a time; beyond it, 503."
    )
