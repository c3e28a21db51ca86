"""`make bench-images`: images scaled and converted by the present program and by earlier commits of it, in one run.

Each program works in a process of its own, and they take turns at every image.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any

from benchmarks import image_work
from benchmarks.base import checked_out
from benchmarks.machine import BACKEND, machine
from PIL import Image, ImageChops, ImageStat
from tests.standins.photographs import photograph

ROUNDS = 15


@dataclass(frozen=True)
class Program:
    """`benchmarks.image_work` with the `app` of one commit."""

    process: subprocess.Popen[str]
    folder: Path

    def ask(self, work: str) -> Any:
        if self.process.stdin is None or self.process.stdout is None:
            raise ValueError("The program has no pipes")
        print(work, file=self.process.stdin, flush=True)
        return json.loads(self.process.stdout.readline())

    def made(self) -> tuple[int, float]:
        """The bytes of the image that was made last, and how far its samples are, of 255, from those of the source as
        Pillow scales it.
        """
        content = (self.folder / "made").read_bytes()
        image, source = (Image.open(BytesIO(each)).convert("RGB") for each in (content, photograph(1)))
        difference = ImageChops.difference(image, source.resize(image.size, Image.Resampling.LANCZOS))
        return len(content), statistics.mean(ImageStat.Stat(difference).mean)


def main(revisions: Sequence[str]) -> None:
    with ExitStack() as stack:
        backends = {each: stack.enter_context(checked_out(each)) for each in revisions} | {"now": BACKEND}
        programs = {name: _start(stack, backend) for name, backend in backends.items()}
        print(f"\n{machine()}\n{ROUNDS} rounds, interleaved; processor time in ms, medians, and against the first;")
        print(f"bytes; difference from the source, a PNG of {len(photograph(1)):,} bytes\n")
        print(f"| | {' | '.join(programs)} |\n|---|{'---|' * len(programs)}")
        for work in image_work.WORKS:
            rounds = [_round(programs, work) for _ in range(ROUNDS)]
            print(f"| {work} | {' | '.join(_cell(name, program, rounds) for name, program in programs.items())} |")
        memory = ", ".join(f"{each:,}" for each in programs["now"].ask(image_work.MEMORY))
        print(f"\nmemory now over {image_work.IMAGES} images by {image_work.THREADS} threads: {memory} KiB")


def _start(stack: ExitStack, backend: Path) -> Program:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-images-")))
    (folder / "png").write_bytes(photograph(1))
    Image.open(BytesIO(photograph(1))).save(folder / "jpeg", "jpeg", quality=95)
    process = subprocess.Popen(
        [sys.executable, image_work.__file__, folder],
        env={**os.environ, "PYTHONPATH": str(backend)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    return Program(stack.enter_context(process), folder)


def _round(programs: Mapping[str, Program], work: str) -> Mapping[str, float]:
    """The milliseconds of each program that can do this."""
    took = {name: program.ask(work) for name, program in programs.items()}
    return {name: milliseconds for name, milliseconds in took.items() if milliseconds is not None}


def _cell(name: str, program: Program, rounds: Sequence[Mapping[str, float]]) -> str:
    if name not in rounds[0]:
        return "-"
    first = next(iter(rounds[0]))
    ratio = statistics.median(each[first] / each[name] for each in rounds)
    size, difference = program.made()
    took = statistics.median(each[name] for each in rounds)
    return f"{took:.1f} ms, {ratio:.2f} times as fast; {size:,}; {difference:.2f}"


if __name__ == "__main__":
    main(sys.argv[1:])
