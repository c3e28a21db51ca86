"""`python -m tests.chaos.jobs.program VARIANT...`: a worker without a server, that differs in these ways."""

import asyncio
import signal
import sys
from collections.abc import Mapping
from contextlib import ExitStack
from typing import Any
from unittest.mock import patch

from app.assembly import open_services
from app.core.settings import load_settings
from app.generations.ledger import Ledger

SEND_SECONDS = 2
_mark_sent = Ledger.mark_sent


async def _mark_late(ledger: Ledger, *arguments: Any) -> None:
    await asyncio.sleep(SEND_SECONDS)
    await _mark_sent(ledger, *arguments)


VARIANTS: Mapping[str, Any] = {
    "sends-late": lambda: patch.object(Ledger, "mark_sent", _mark_late),
}


async def _work() -> None:
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stop.set)
    async with open_services(load_settings()):
        await stop.wait()


if __name__ == "__main__":
    with ExitStack() as stack:
        for name in sys.argv[1:]:
            stack.enter_context(VARIANTS[name]())
        asyncio.run(_work())
