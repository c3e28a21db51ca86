"""What it takes to write images to the folder in a burst: together, as the store does it, and each on its own.

`python -m benchmarks.store_writes [FOLDER]`, about half a minute; in a folder of the disk that is asked about.
"""

import asyncio
import os
import sys
import time
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory

import uvloop
from app.storage import gathered_puts
from app.storage.filesystem import FilesystemStore
from benchmarks.machine import machine

ROUNDS = 6  # an even number: each way is the first as often
BURSTS = {300: 3000, 20_000: 2000, 200_000: 1000, 1_100_000: 200}
"""How many images of so many bytes are put in the same instant."""
LETTERS = "0123456789abcdefghjkmnpqrstvwxyz"
WAYS = {"each on its own": 1, "together": gathered_puts.IMAGES_MAX}


async def main(folder: Path) -> None:
    with TemporaryDirectory(prefix="bench-store-", dir=folder) as there:  # ext4 is slow after files were deleted
        await measure(Path(there))


async def measure(folder: Path) -> None:
    print(f"{machine()}\n\n| bytes | images | | images/s | processor us an image |\n|---|---|---|---|---|")
    for size, images in BURSTS.items():
        measured: dict[str, list[tuple[float, float]]] = {way: [] for way in WAYS}
        for number in range(ROUNDS):
            for way, together in sorted(WAYS.items(), reverse=number % 2 == 1):
                gathered_puts.IMAGES_MAX = together
                measured[way].append(await burst(folder / f"{size} {number} {together}", size, images))
        for way, rounds in measured.items():
            rate, processor = (median(values) for values in zip(*rounds, strict=True))
            print(f"| {size:,} | {images:,} | {way} | {rate:,.0f} | {processor:.0f} |", flush=True)


async def burst(folder: Path, size: int, images: int) -> tuple[float, float]:
    """Images a second, and microseconds of the processor for one, threads and system calls included."""
    store, content = FilesystemStore(folder), bytes(size)
    await store.open()
    shards = [a + b for a in LETTERS for b in LETTERS]
    names = [f"gen_01kapn5vfe28fm63cjp{number:07}{shards[number % len(shards)]}.png" for number in range(images)]
    for shard in shards:
        (folder / shard).mkdir(mode=0o700)
    os.sync()
    began, spent = time.perf_counter(), time.process_time()
    await asyncio.gather(*(store.put(name, content) for name in names))
    seconds, processor = time.perf_counter() - began, time.process_time() - spent
    await store.close()
    return images / seconds, 1e6 * processor / images


if __name__ == "__main__":
    uvloop.run(main(Path(sys.argv[1]) if sys.argv[1:] else Path()))
