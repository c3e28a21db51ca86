"""The settings of limits: one field for each."""

import re
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, Field

from app.core.limit_format import CONCURRENCY_MAX, LIMIT_PATTERN


def _is_a_limit(text: str) -> str:
    if not re.fullmatch(LIMIT_PATTERN, text):
        raise ValueError("must look like 600/minute, with second, minute, hour or day and at most seven digits")
    return text


LimitText = Annotated[str, AfterValidator(_is_a_limit)]
LimitMode = Literal["observe", "enforce"]


class LimitSettings(BaseModel):
    """Limits. One is written `600/minute`, or with `second`, `hour` or `day`: that many at once, refilled evenly.
    A key or an account gets limits of its own for generating with `nanobanana limits set`.
    """

    generate_limit_mode: LimitMode = Field(
        default="enforce",
        description="`enforce` refuses what is over a generate limit; `observe` only sets headers and counts.",
    )
    generate_limit_per_key: LimitText = Field(
        default="600/minute", description="Images per key, unless it has a limit of its own."
    )
    generate_limit_per_account: LimitText = Field(
        default="3000/minute",
        description="Images of all keys of an account together, unless it has a limit of its own.",
    )
    test_generate_limit_per_account: LimitText = Field(
        default="10000/day",
        description=(
            "Images of all test keys of an account together, besides the limits above: they cost nothing, and each "
            "leaves a row of up to 16 KiB that is kept."
        ),
    )
    generate_concurrency_per_key: int = Field(
        default=100,
        ge=1,
        le=CONCURRENCY_MAX,
        description="Generations of a key that may run at a time, unless it has a limit of its own.",
    )
    upload_limit_per_account: LimitText = Field(default="600/hour", description="Images that an account may upload.")
    create_key_limit_per_account: LimitText = Field(
        default="300/hour", description="Keys that an account may create, however many of them it revokes."
    )
    checkout_limit_per_account: LimitText = Field(
        default="120/hour",
        description="Checkouts, changes of plan and lists of invoices of an account: each is a call to Stripe.",
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
    login_limit_per_ip: LimitText = Field(default="30/minute", description="Failed logins per address (IPv6: per /64).")
    login_limit_per_network: LimitText = Field(
        default="300/minute", description="Failed logins per network (IPv4: /24, IPv6: /48)."
    )
    login_limit_per_account: LimitText = Field(
        default="10/minute", description="Failed logins per account from one address."
    )
    login_limit_per_account_and_network: LimitText = Field(
        default="100/hour",
        description="Failed logins per account from one network: far fewer than from all addresses together.",
    )
    login_limit_per_account_anywhere: LimitText = Field(
        default="1000/hour",
        description="Failed logins per account from all addresses together: wide, so that strangers lock no owner out.",
    )
    login_limit_global: LimitText = Field(default="6000/minute", description="Failed logins from everywhere together.")
    limit_processes: int | None = Field(
        default=None,
        ge=1,
        le=100_000,
        description="Processes over all machines, for the share of each while Redis is away. By default `WORKERS`.",
    )
    redis_timeout_ms: int = Field(
        default=75,
        ge=10,
        le=10_000,
        description="How long Redis may take to decide; after that, this process decides by itself.",
    )
    requests_max: int = Field(
        default=1000,
        ge=1,
        le=1_000_000,
        description="Requests that one process works on at a time; beyond it, 503 `overloaded` at once.",
    )
    connections_per_address_max: int = Field(
        default=1000,
        ge=1,
        le=1_000_000,
        description=(
            "Connections that one process keeps for one address (IPv6: per /64) outside `TRUSTED_PROXIES`; "
            "beyond it, new ones are closed."
        ),
    )
    answer_memory_mib: int = Field(
        default=256,
        ge=8,
        le=1_000_000,
        description=(
            "MiB that answers with images as base64 may hold in one process while they are sent, about one for each "
            "and images that are there already; half of it for the stub's. Beyond it, they are read from the store, "
            "and wait or are 503."
        ),
    )
    body_bytes_max_with_images: int = Field(
        default=96 * 1024 * 1024,
        ge=1024 * 1024,
        le=1024 * 1024 * 1024,
        description=(
            "Bytes that the body of a request may have with the images in it, as base64 or in a form, where it can "
            "have any; beyond it, 413."
        ),
    )
    input_memory_mib: int = Field(
        default=128,
        ge=1,
        le=1_000_000,
        description=(
            "MiB of images and bodies that clients send which one process keeps in memory. What has more than 2 MiB, "
            "and everything beyond this, is in files without a name below `DATA_DIR`."
        ),
    )
    input_files_mib: int = Field(
        default=8192,
        ge=1,
        le=100_000_000,
        description=(
            "MiB that those files of one process may have together, half of it those of one account; beyond it, or on "
            "a full disk, 503."
        ),
    )
