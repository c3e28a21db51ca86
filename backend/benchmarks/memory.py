"""`make bench-memory`: pictures of two megabytes, drawn, kept, read and deleted; the process must not grow.

`python -m benchmarks.memory s3 1000` does so with so many pictures in an S3.
"""

import asyncio
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from secrets import token_urlsafe
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import httpx2
from benchmarks import provider
from benchmarks.machine import WIDE_OPEN, Server, database, free_port, machine, new_key, serving
from tests.standins.s3 import s3_server

PICTURES = 10_000
SIDE = 830  # of noise: 2.07 MB
CALLERS = 8
READ_EVERY = 5
LOOKS = 10
BYTES_MIN = 2_000_000


def main() -> None:
    store, count = sys.argv[1] if sys.argv[1:] else "disk", int(sys.argv[2]) if sys.argv[2:] else PICTURES
    with ExitStack() as stack:
        upstream = stack.enter_context(provider.provider(side=SIDE, is_noise=True))
        port = free_port()
        settings = {
            **WIDE_OPEN,
            **provider.settings(upstream, side=SIDE),
            **stack.enter_context(_bucket() if store == "s3" else _folder()),
            "DATABASE_URL": stack.enter_context(database()),
            "SECRET_KEY": token_urlsafe(48),
        }
        server = stack.enter_context(serving("app.cli", "serve", port=port, PORT=str(port), **settings))
        asyncio.run(measure(server, new_key(server.url), store, count))


async def measure(server: Server, key: str, store: str, count: int) -> None:
    print(f"\n{machine()}\n{count:,} pictures of 2 MB, {CALLERS} callers, kept in: {store}\n")
    print("| pictures | a second | memory KiB | against the first |")
    print("|---|---|---|---|")
    limits = httpx2.Limits(max_connections=CALLERS)
    headers = {"Authorization": f"Bearer {key}"}
    first = 0
    async with httpx2.AsyncClient(base_url=server.url, headers=headers, limits=limits, timeout=60) as client:
        for number in range(1, LOOKS + 1):
            began = time.monotonic()
            await asyncio.gather(*(live_through(client, count // LOOKS // CALLERS) for _ in range(CALLERS)))
            memory, rate = server.memory_kib, count / LOOKS / (time.monotonic() - began)
            first = first or memory
            print(f"| {number * count // LOOKS:,} | {rate:.0f} | {memory:,} | {memory / first:.3f} |", flush=True)


async def live_through(client: httpx2.AsyncClient, count: int) -> None:
    """So many pictures, each deleted in the end, so that the disk holds no more than there are callers."""
    for number in range(count):
        made = await client.post("/v1/generate", json={"prompt": "A cute banana", "size": f"{SIDE}x{SIDE}"})
        made.raise_for_status()
        if number % READ_EVERY == 0:
            shown = await client.get(urlsplit(made.json()["url"]).path)
            if len(shown.raise_for_status().content) < BYTES_MIN:
                sys.exit("A picture was smaller than it was kept")
        (await client.delete(f"/v1/generations/{made.json()['id']}")).raise_for_status()


@contextmanager
def _folder() -> Iterator[Mapping[str, str]]:
    with TemporaryDirectory(prefix="bench-pictures-") as folder:
        yield {"DATA_DIR": folder}


@contextmanager
def _bucket() -> Iterator[Mapping[str, str]]:
    with s3_server("pictures") as s3:
        yield {
            "IMAGE_STORE": "s3",
            "S3_BUCKET": "pictures",
            "S3_ENDPOINT": s3.url,
            "S3_ACCESS_KEY_ID": s3.key_id,
            "S3_SECRET_ACCESS_KEY": s3.secret,
        }


if __name__ == "__main__":
    main()
