"""What a long-lived process of the program sets up for itself, a server's or a worker's."""

import resource
from contextlib import suppress

from app.core.log_handler import STANDARD_ERROR, STANDARD_OUTPUT
from app.core.logs import configure_logging
from app.core.settings import Settings

_DESCRIPTORS = 65_536


def configure_logging_by(settings: Settings) -> None:
    """Writes log lines of this process as its settings say."""
    descriptor = STANDARD_OUTPUT if settings.log_stream == "stdout" else STANDARD_ERROR
    configure_logging(settings.log_level, style=settings.log_style, descriptor=descriptor)


def allow_descriptors() -> None:
    """Lets this process and those that it starts have as many open files as they may: each connection is one, and by
    default there may be 1,024.
    """
    allowed, most = resource.getrlimit(resource.RLIMIT_NOFILE)
    with suppress(ValueError, OSError):
        resource.setrlimit(resource.RLIMIT_NOFILE, (max(allowed, min(most, _DESCRIPTORS)), most))
