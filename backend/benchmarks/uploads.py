"""`make bench-uploads`: 50 callers that send 16 images of 4 MB each at once, to one process; what of it is in memory.

`python -m benchmarks.uploads 10` does so with so many callers.
"""

import asyncio
import json
import os
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import ExitStack
from io import BytesIO
from pathlib import Path
from secrets import token_urlsafe
from tempfile import TemporaryDirectory

import httpx2
import pybase64
from benchmarks.live import KEY, MODEL, PIECE_BYTES, SIDE
from benchmarks.machine import WIDE_OPEN, Server, database, free_port, machine, new_key, serving
from PIL import Image

CALLERS, IMAGES = 50, 16
NOISE_SIDE = 1155  # 4.00 MB
LOOK_SECONDS = 0.2
DEADLINE_SECONDS = 600


def main() -> None:
    callers = int(sys.argv[1]) if sys.argv[1:] else CALLERS
    with ExitStack() as stack:
        port, upstream_port = free_port(), free_port()
        upstream = stack.enter_context(serving("benchmarks.live", "draw", str(upstream_port), port=upstream_port))
        folder = stack.enter_context(TemporaryDirectory(prefix="bench-uploads-"))
        settings = {
            **WIDE_OPEN,
            "DATABASE_URL": stack.enter_context(database()),
            "DATA_DIR": folder,
            "SECRET_KEY": token_urlsafe(48),
            "GENERATION_DEADLINE_SECONDS": str(DEADLINE_SECONDS),
            "IMAGE_PROVIDER": "openai",
            "OPENAI_API_KEY": KEY,
            "OPENAI_BASE_URL": f"{upstream.url}/v1",
            "OPENAI_MODEL": MODEL,
            "OPENAI_CAPABILITIES": f"edit, references:{IMAGES}",
        }
        server = stack.enter_context(serving("app.cli", "serve", port=port, PORT=str(port), **settings))
        asyncio.run(measure(server, new_key(server.url), Path(folder), callers))


async def measure(server: Server, key: str, folder: Path, callers: int) -> None:
    body = request_body()
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json", "Content-Length": str(len(body))}
    limits = httpx2.Limits(max_connections=callers + 1)
    print(f"\n{machine()}\n{callers} callers at once, each with {IMAGES} images of 4 MB: {len(body):,} bytes\n")
    async with httpx2.AsyncClient(base_url=server.url, limits=limits, timeout=DEADLINE_SECONDS) as client:
        before, began = server.memory_kib, time.monotonic()
        free, health = os.statvfs(folder).f_bfree, asyncio.create_task(slowest_health(client, folder))
        calls = (client.post("/v1/generate", content=pieces(body), headers=headers) for _ in range(callers))
        answers = await asyncio.gather(*calls)
        seconds = time.monotonic() - began
        health.cancel()
        slowest, least_free = await health
    statuses = Counter(each.status_code for each in answers)
    on_disk = (free - least_free) * os.statvfs(folder).f_frsize
    print("| answers | seconds | processor seconds | memory MiB before, most | files MiB, most | slowest health ms |")
    print("|---|---|---|---|---|---|")
    print(
        f"| {', '.join(f'{count} of {status}' for status, count in statuses.items())} | {seconds:.0f} "
        f"| {server.tree_cpu_seconds:.0f} | {before / 1024:.0f}, {server.most_memory_kib / 1024:.0f} "
        f"| {on_disk / 2**20:,.0f} | {1e3 * slowest:.0f} |"
    )
    if set(statuses) != {200}:
        sys.exit(f"Not all were answered: {next(each.text for each in answers if each.status_code != 200)}")


async def slowest_health(client: httpx2.AsyncClient, folder: Path) -> tuple[float, int]:
    """Until it is cancelled: how long `/health` took at most, and the fewest blocks that were free on the disk."""
    slowest, least_free = 0.0, os.statvfs(folder).f_bfree
    try:
        while True:
            began = time.monotonic()
            await client.get("/health")
            slowest, least_free = max(slowest, time.monotonic() - began), min(least_free, os.statvfs(folder).f_bfree)
            await asyncio.sleep(LOOK_SECONDS)
    except asyncio.CancelledError:
        return slowest, least_free


def request_body() -> bytes:
    images = [f"data:image/png;base64,{pybase64.b64encode_as_string(noise())}" for _ in range(IMAGES)]
    return json.dumps({"prompt": "A cute banana", "size": f"{SIDE}x{SIDE}", "images": images}).encode()


def noise() -> bytes:
    """A PNG that no encoder makes smaller."""
    encoded = BytesIO()
    Image.frombytes("RGB", (NOISE_SIDE, NOISE_SIDE), os.urandom(3 * NOISE_SIDE**2)).save(encoded, "PNG")
    return encoded.getvalue()


async def pieces(body: bytes) -> AsyncIterator[bytes]:
    """The body, of which all callers send the same bytes."""
    for start in range(0, len(body), PIECE_BYTES):
        yield body[start : start + PIECE_BYTES]


if __name__ == "__main__":
    main()
