"""`make bench-async-beside`: what callers who wait feel of 1,000 asynchronous calls a second beside them.

Both are drawn by the stub, in one process, on the same two cores as the callers. `--rounds 2 --seconds 2` runs short.
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
from contextlib import ExitStack
from dataclasses import dataclass
from secrets import token_urlsafe
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import uvloop
from benchmarks.machine import (
    BACKEND,
    GENERATE,
    WIDE_OPEN,
    Load,
    Server,
    database,
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
ALONE, SYNCHRONOUS, BESIDE = "alone", "beside as many synchronous", "beside"
"""What the callers who wait are measured beside: nothing, as many calls by the same program that are synchronous, and
asynchronous calls. The second is what any calls leave of them.
"""


@dataclass(frozen=True)
class Round:
    """What came of it: of those who wait, of all, and the server's processor time for a call of all."""

    load: Load
    beside: int

    @property
    def all_per_second(self) -> float:
        return self.load.per_second + self.beside / self.load.seconds


def main() -> None:
    tool()
    if sys.argv[1:2] == ["call"]:
        uvloop.run(call(sys.argv[2], sys.argv[3], float(sys.argv[4]), is_async=sys.argv[5] == BESIDE))
        return
    options = argparse.ArgumentParser(prog="benchmarks.async_beside")
    options.add_argument("--rounds", type=int, default=ROUNDS)
    options.add_argument("--seconds", type=int, default=SECONDS)
    chosen = options.parse_args()
    with ExitStack() as stack:
        port = free_port()
        settings = {
            **WIDE_OPEN,
            "DATABASE_URL": stack.enter_context(database()),
            "DATA_DIR": stack.enter_context(TemporaryDirectory(prefix="bench-")),
            "SECRET_KEY": token_urlsafe(48),
        }
        server = stack.enter_context(serving("app.cli", "serve", port=port, PORT=str(port), **settings))
        live, test = new_keys(server.url, 1, environments=("live", "test"))
        load(server.url, keys=[live.raw], seconds=WARM_UP_SECONDS)
        rounds: dict[str, list[Round]] = {ALONE: [], SYNCHRONOUS: [], BESIDE: []}
        cpu: dict[str, list[float]] = {name: [] for name in rounds}
        for number in range(chosen.rounds):
            for name in sorted(rounds, reverse=bool(number % 2)):
                before = server.cpu_seconds
                done = _measure(server, live.raw, test.raw, chosen.seconds, name)
                rounds[name].append(done)
                cpu[name].append(1e6 * (server.cpu_seconds - before) / (done.load.requests + done.beside))
            print(f"round {number + 1} of {chosen.rounds}", file=sys.stderr)
    _report(rounds, cpu)


def _measure(server: Server, key: str, other_key: str, seconds: int, name: str) -> Round:
    if name == ALONE:
        return Round(load(server.url, keys=[key], seconds=seconds), 0)
    command = [sys.executable, "-m", "benchmarks.async_beside", "call", server.url, other_key, str(seconds), name]
    with subprocess.Popen(command, cwd=BACKEND, stdout=subprocess.PIPE) as calling:
        done = load(server.url, keys=[key], seconds=seconds)
        told, _ = calling.communicate()
    return Round(done, json.loads(told))


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


def _report(rounds: dict[str, list[Round]], cpu: dict[str, list[float]]) -> None:
    print(f"\n{machine()}\n{len(rounds[ALONE])} rounds, interleaved, 32 connections that wait, one worker; medians\n")
    print("| what | waiting requests/s | p50 ms | p99 ms | others/s | all/s | server's CPU, us a call | errors |")
    print("|---|---|---|---|---|---|---|---|")
    for name, done in rounds.items():
        loads = [each.load for each in done]
        told = [statistics.median(getattr(each, field) for each in loads) for field in ("per_second", "p50", "p99")]
        beside = statistics.median(each.beside / each.load.seconds for each in done)
        both, errors = statistics.median(each.all_per_second for each in done), sum(each.errors for each in loads)
        row = f"{told[0]:,.0f} | {told[1]:.1f} | {told[2]:.1f} | {beside:,.0f} | {both:,.0f}"
        print(f"| {name} | {row} | {statistics.median(cpu[name]):.0f} | {errors} |")
    for name, first in ((BESIDE, ALONE), (SYNCHRONOUS, ALONE), (BESIDE, SYNCHRONOUS)):
        pairs = list(zip(rounds[name], rounds[first], strict=True))
        waiting = median_ratio([a.load for a, _ in pairs], [b.load for _, b in pairs], "per_second")
        both = statistics.median(a.all_per_second / b.all_per_second for a, b in pairs)
        cost = statistics.median(a / b for a, b in zip(cpu[name], cpu[first], strict=True))
        print(f"\n{name} : {first}")
        print(
            f"waiting requests a second = {waiting:.3f}; all a second = {both:.3f}; processor time a call = {cost:.3f}"
        )


if __name__ == "__main__":
    main()
