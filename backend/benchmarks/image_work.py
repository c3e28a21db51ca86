"""What `benchmarks.images` measures, as a program of its own: it runs with the `app` of any commit.

It gets a folder with a PNG and the same as JPEG. Each line of standard input names a work; the answer is a line of
JSON, null where this commit cannot do that, and the image that was made is in `made`.
"""

import json
import resource
import sys
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import partial
from pathlib import Path

from app.core.images import ImageFormat
from app.core.memory import return_large_blocks_when_freed
from app.providers import Image, Size, decode

WHOLE, HALF, THUMBNAIL = Size(1024, 1024), Size(512, 512), 256
MEMORY, IMAGES, THREADS, LOOKS = "memory", 500, 2, 5


def main(folder: Path) -> None:
    return_large_blocks_when_freed()
    png, jpeg = (folder / "png").read_bytes(), (folder / "jpeg").read_bytes()
    for line in sys.stdin:
        work = line.strip()
        done: float | list[int] | None = None
        with suppress(AttributeError):  # of a function that this commit has not
            done = _memory_kib(png) if work == MEMORY else _milliseconds(partial(WORKS[work], png, jpeg), folder)
        print(json.dumps(done), flush=True)


def _milliseconds(work: Callable[[], Image], folder: Path) -> float:
    """Of processor time."""
    began = time.process_time()
    made = work()
    took = time.process_time() - began
    (folder / "made").write_bytes(made.content)
    return 1000 * took


def _memory_kib(png: bytes) -> list[int]:
    """Of the process, after each part of many images."""
    looks = []
    with ThreadPoolExecutor(THREADS) as threads:
        for _ in range(LOOKS):
            list(threads.map(lambda _: decode.convert(decode.fit(png, HALF), "webp"), range(IMAGES // LOOKS)))
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            looks.append(pages * resource.getpagesize() // 1024)
    return looks


def _converted(content: bytes, image_format: ImageFormat) -> Image:
    return decode.convert(decode.fit(content, WHOLE), image_format)


WORKS: Mapping[str, Callable[[bytes, bytes], Image]] = {
    "PNG scaled to 512x512": lambda png, _: decode.fit(png, HALF),
    "JPEG scaled to 512x512": lambda _, jpeg: decode.fit(jpeg, HALF),
    "thumbnail of 256x256, WebP": lambda png, _: decode.thumbnail(png, THUMBNAIL, "webp"),
    "PNG to JPEG": lambda png, _: _converted(png, "jpeg"),
    "PNG to WebP": lambda png, _: _converted(png, "webp"),
    "JPEG to PNG": lambda _, jpeg: _converted(jpeg, "png"),
}


if __name__ == "__main__":
    main(Path(sys.argv[1]))
