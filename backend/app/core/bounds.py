"""Bounds of requests and connections that more than one layer reckons with."""

from dataclasses import dataclass

BODY_SECONDS_MAX = 10
"""In which a small body must have arrived, and the next byte of a large one: a request whose body never comes would
keep what it holds from others.
"""
BODY_BYTES_MAX = 64 * 1024
IMAGE_BYTES_MAX = 50 * 1024 * 1024
"""Of one image that goes in."""


def format_bytes(count: int) -> str:
    """Such as `64 KiB` or `96 MiB`, rounded down."""
    mib = 1024 * 1024
    return f"{count // mib} MiB" if count >= mib else f"{count // 1024} KiB"


@dataclass(frozen=True, kw_only=True)
class EdgeBounds:
    """How long clients may take, and how much one process keeps for them. A server looks at its connections every
    `sweep_seconds`, so a connection may last so much longer than these say.
    """

    sweep_seconds: float = 1
    head_seconds: float = 10
    """From the first byte of a request to the end of its headers."""
    body_seconds: float = BODY_SECONDS_MAX
    """Without a byte of a body; and after so long, what has arrived must have come at `body_bytes_per_second`."""
    body_bytes_per_second: int = 64 * 1024
    reader_seconds: float = 30
    """In which a client that is being answered acknowledges nothing."""
    response_seconds: float | None = None
    """From the end of a request's body to the first byte of its response; None for `Lifetime.response_seconds`."""
    linger_seconds: float = 2
    """For which a connection is still read after the server has ended it, so that its client can read why."""
    idle_connections_max: int = 10_000
    """The oldest are closed first."""
    unread_bytes_max: int = 256 * 1024 * 1024
    """Of responses that their clients have not read; the clients that have read nothing for longest are cut off."""
