"""`make bench-async-beside BASE=5df0720`: what callers who wait feel of 1,000 asynchronous calls a second beside them.

All are drawn by the stub, in one process, on the same two cores as the callers. Where a process has nothing to spare,
each call takes the place of another: so the same is measured beside as many synchronous calls, of this program and,
with BASE, of an earlier commit, which has a database of its own. `--rounds 2 --seconds 2` runs short.
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

import uvloop
from benchmarks.base import checked_out, prepared_settings
from benchmarks.machine import (
    BACKEND,
    GENERATE,
    Load,
    Server,
    free_port,
    load,
    machine,
    median_ratio,
    new_keys,
    serving,
    tool,
)

ROUNDS, SECONDS, WARM_UP_SECONDS = 8, 4, 3
PER_SECOND, CONNECTIONS = 1000, 50
RATIO_MAX = 1.1
"""What asynchronous calls may cost more than as many synchronous ones of the earlier commit, in processor time."""
NOTHING, SYNCHRONOUS, ASYNCHRONOUS = "alone", "beside synchronous", "beside asynchronous"


@dataclass(frozen=True)
class Round:
    """What came of it: of those who wait, how many others were answered, and the server's processor time for each call
    of all, in microseconds.
    """

    load: Load
    beside: int
    cpu: float

    @property
    def all_per_second(self) -> float:
        return self.load.per_second + self.beside / self.load.seconds


@dataclass(frozen=True)
class Program:
    """One that serves, with the keys of those who wait and of those beside them."""

    server: Server
    key: str
    other_key: str

    def measure(self, beside: str, seconds: int) -> Round:
        before = self.server.cpu_seconds
        done, others = self._load(beside, seconds)
        return Round(done, others, 1e6 * (self.server.cpu_seconds - before) / (done.requests + others))

    def _load(self, beside: str, seconds: int) -> tuple[Load, int]:
        if beside == NOTHING:
            return load(self.server.url, keys=[self.key], seconds=seconds), 0
        arguments = ("call", self.server.url, self.other_key, str(seconds), beside)
        command = [sys.executable, "-m", "benchmarks.async_beside", *arguments]
        with subprocess.Popen(command, cwd=BACKEND, stdout=subprocess.PIPE) as calling:
            done = load(self.server.url, keys=[self.key], seconds=seconds)
            told, _ = calling.communicate()
        return done, json.loads(told)


def main() -> None:
    tool()
    if sys.argv[1:2] == ["call"]:
        uvloop.run(call(sys.argv[2], sys.argv[3], float(sys.argv[4]), is_async=sys.argv[5] == ASYNCHRONOUS))
        return
    options = argparse.ArgumentParser(prog="benchmarks.async_beside")
    options.add_argument("--base", help="a commit whose synchronous calls are measured too")
    options.add_argument("--rounds", type=int, default=ROUNDS)
    options.add_argument("--seconds", type=int, default=SECONDS)
    chosen = options.parse_args()
    with ExitStack() as stack:
        programs = {"now": _started(stack, BACKEND)}
        cases = [("now", NOTHING), ("now", SYNCHRONOUS), ("now", ASYNCHRONOUS)]
        if chosen.base:
            programs[chosen.base] = _started(stack, stack.enter_context(checked_out(chosen.base)))
            cases += [(chosen.base, NOTHING), (chosen.base, SYNCHRONOUS)]
        rounds: dict[str, list[Round]] = {_title(*each): [] for each in cases}
        for number in range(chosen.rounds):
            for name, beside in cases if number % 2 else reversed(cases):
                rounds[_title(name, beside)].append(programs[name].measure(beside, chosen.seconds))
            print(f"round {number + 1} of {chosen.rounds}", file=sys.stderr)
    _report(rounds, base=chosen.base)


def _started(stack: ExitStack, backend: Path) -> Program:
    port, settings = free_port(), prepared_settings(stack, backend)
    server = stack.enter_context(serving("app.cli", "serve", port=port, backend=backend, PORT=str(port), **settings))
    live, test = new_keys(server.url, 1, environments=("live", "test"))
    load(server.url, keys=[live.raw], seconds=WARM_UP_SECONDS)
    return Program(server, live.raw, test.raw)


def _title(name: str, beside: str) -> str:
    return f"{name}, {beside}"


async def call(url: str, key: str, seconds: float, *, is_async: bool) -> None:
    """Calls so often a second, and prints how many were answered as they should be."""
    head = f"Authorization: Bearer {key}\r\nContent-Type: application/json"
    length = f"Content-Length: {len(GENERATE)}" + "\r\nPrefer: respond-async" * is_async
    expected = b"HTTP/1.1 202" if is_async else b"HTTP/1.1 200"
    request = f"POST /v1/generate HTTP/1.1\r\nHost: pictures.test\r\n{head}\r\n{length}\r\n\r\n{GENERATE}".encode()
    loop, port = asyncio.get_running_loop(), urlsplit(url).port
    begin, interval = loop.time(), CONNECTIONS / PER_SECOND

    async def converse(number: int) -> int:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        accepted, at = 0, begin + interval * number / CONNECTIONS
        while at < begin + seconds:
            await asyncio.sleep(at - loop.time())
            writer.write(request)
            answer = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(answer.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0]))
            accepted += answer.startswith(expected)
            at += interval
        writer.close()
        return accepted

    print(sum(await asyncio.gather(*map(converse, range(CONNECTIONS)))))


def _report(rounds: Mapping[str, Sequence[Round]], *, base: str | None) -> None:
    number = len(next(iter(rounds.values())))
    print(f"\n{machine()}\n{number} rounds, interleaved, 32 connections that wait, one worker; medians\n")
    print("| what | waiting requests/s | p50 ms | p99 ms | others/s | all/s | server's CPU, us a call | errors |")
    print("|---|---|---|---|---|---|---|---|")
    for title, done in rounds.items():
        loads = [each.load for each in done]
        told = [statistics.median(getattr(each, field) for each in loads) for field in ("per_second", "p50", "p99")]
        beside = statistics.median(each.beside / each.load.seconds for each in done)
        both, errors = statistics.median(each.all_per_second for each in done), sum(each.errors for each in loads)
        row = f"{told[0]:,.0f} | {told[1]:.1f} | {told[2]:.1f} | {beside:,.0f} | {both:,.0f}"
        print(f"| {title} | {row} | {statistics.median(each.cpu for each in done):.0f} | {errors} |")
    beside_async = _title("now", ASYNCHRONOUS)
    of = [_title("now", NOTHING), _title("now", SYNCHRONOUS), *([_title(base, SYNCHRONOUS)] if base else [])]
    for other in of:
        pairs = list(zip(rounds[beside_async], rounds[other], strict=True))
        waiting = median_ratio([a.load for a, _ in pairs], [b.load for _, b in pairs], "per_second")
        both = statistics.median(a.all_per_second / b.all_per_second for a, b in pairs)
        cost = statistics.median(a.cpu / b.cpu for a, b in pairs)
        bound = f" (at most {RATIO_MAX})" if other == _title(base or "", SYNCHRONOUS) else ""
        print(f"\n{beside_async} : {other}")
        print(f"waiting requests a second = {waiting:.3f}, all = {both:.3f}; processor time a call = {cost:.3f}{bound}")


if __name__ == "__main__":
    main()
