"""`make bench-edge`: one worker, clients that hold what they can, and what ordinary callers feel beside them.

The same clients on the same two cores, but at a server that reads nothing, are the control: what callers feel beside
those is not the doing of the server that is measured.
"""

import asyncio
import json
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from secrets import token_urlsafe
from statistics import quantiles
from tempfile import TemporaryDirectory
from urllib.parse import urlsplit

import httpx2
from benchmarks import provider
from benchmarks.edge_crowd import CONNECTED, IDLE, SLOW, UNREAD
from benchmarks.machine import BACKEND, WIDE_OPEN, Key, Server, database, free_port, machine, new_keys, serving
from benchmarks.overload import generate_on, look_at_health, percentiles
from tests.chaos.load import Call, Line

ROUNDS = 2
SECONDS, SECONDS_MAX = 30, 600
SIDE = 1182  # of noise: 4.2 MB
CALLERS = 8
SETTLE_SECONDS = 5
_QUARTERS = 4
ALONE, CONTROL, OURS = "alone", "beside the control", "beside ours"


@dataclass(frozen=True)
class Felt:
    """Milliseconds that ordinary callers waited, and callers of `/health` on a connection of its own each time."""

    pictures: Sequence[float]
    health: Sequence[float]
    failed: int
    memory_kib: Sequence[int] = ()
    """The most that the server took in each quarter of each round."""
    cpu_share: float = 0
    """The server's, of one core."""


def main(arguments: Sequence[str]) -> None:
    if arguments[:1] == ["probe"]:
        asyncio.run(probe(arguments[1], Key(*arguments[2:4]), float(arguments[4])))
    else:
        measure(min(int(arguments[0]) if arguments else SECONDS, SECONDS_MAX))


def measure(seconds: int) -> None:
    with ExitStack() as stack:
        port, control_port = free_port(), free_port()
        upstream = stack.enter_context(provider.provider(side=SIDE, is_noise=True))
        settings = {
            **WIDE_OPEN,
            **provider.settings(upstream, side=SIDE),
            "GEMINI_SIZES": f"{SIDE}x{SIDE}=1:1/1K, 1024x1024=1:1/1K",
            "DATA_DIR": stack.enter_context(TemporaryDirectory(prefix="bench-pictures-")),
            "DATABASE_URL": stack.enter_context(database()),
            "SECRET_KEY": token_urlsafe(48),
            "PORT": str(port),
        }
        stack.enter_context(serving("benchmarks.edge_crowd", "control", str(control_port), port=control_port))
        server = stack.enter_context(serving("app.cli", "serve", port=port, **settings))
        live, test = new_keys(server.url, 1, environments=("live", "test"))
        image = large_image(server.url, live)
        feel(server, test, 2)  # warms up
        memory, felt = [server.memory_kib], defaultdict[str, list[Felt]](list)
        for _ in range(ROUNDS):
            felt[ALONE].append(feel(server, test, seconds))
            for name, target in {CONTROL: control_port, OURS: port}.items():
                with crowd(target, image):
                    felt[name].append(feel(server, test, seconds))
                time.sleep(SETTLE_SECONDS)
            memory.append(server.memory_kib)
        report(seconds, {name: together(each) for name, each in felt.items()}, memory)


def large_image(url: str, key: Key) -> str:
    """The path of an image in the store."""
    headers, body = {"Authorization": f"Bearer {key.raw}"}, {"prompt": "A cute banana", "size": f"{SIDE}x{SIDE}"}
    made = httpx2.post(f"{url}/v1/generate", headers=headers, json=body, timeout=60).raise_for_status()
    return urlsplit(str(made.json()["url"])).path


def together(rounds: Sequence[Felt]) -> Felt:
    return Felt(
        [each for felt in rounds for each in felt.pictures],
        [each for felt in rounds for each in felt.health],
        sum(each.failed for each in rounds),
        [kib for felt in rounds for kib in felt.memory_kib],
        sum(each.cpu_share for each in rounds) / len(rounds),
    )


def report(seconds: int, felt: Mapping[str, Felt], memory_kib: Sequence[int]) -> None:
    print(
        f"\n{machine()}\nOne worker, {ROUNDS} rounds of {seconds} s: {SLOW} clients that send a byte a second,", end=""
    )
    print(f" {UNREAD} that do not read an image of 4 MB, {IDLE:,} idle; {CALLERS} ordinary callers\n")
    print("| | picture ms | health ms | failed | server's CPU | memory MiB in each quarter of each round |")
    print("|---|---|---|---|---|---|")
    for name, each in felt.items():
        waited = f"{percentiles(each.pictures)} | {percentiles(each.health)}"
        memory = ", ".join(f"{kib / 1024:.0f}" for kib in each.memory_kib)
        print(f"| {name} | {waited} | {each.failed} | {each.cpu_share:.2f} | {memory} |")
    for name, of in (("picture", "pictures"), ("health", "health")):
        ours, control, alone = (_p99(getattr(felt[each], of)) for each in (OURS, CONTROL, ALONE))
        print(f"\np99 of {name}: {ours / control:.2f} of the control's, {ours / alone:.2f} of alone", end="")
    print(
        f"\nmemory before, and {SETTLE_SECONDS} s after each round:", ", ".join(f"{k / 1024:.0f}" for k in memory_kib)
    )


def _p99(values: Sequence[float]) -> float:
    return quantiles(values, n=100)[98]


def feel(server: Server, key: Key, seconds: float) -> Felt:
    """What the callers feel, in a process of their own, for so long."""
    command = [sys.executable, "-m", "benchmarks.edge", "probe", server.url, *key, str(seconds)]
    most, spent, began = [0] * _QUARTERS, server.cpu_seconds, time.monotonic()
    with ThreadPoolExecutor() as threads:
        probed = threads.submit(subprocess.run, command, cwd=BACKEND, capture_output=True, check=True)
        while not probed.done():
            quarter = min(_QUARTERS - 1, int(_QUARTERS * (time.monotonic() - began) / seconds))
            most[quarter] = max(most[quarter], server.memory_kib)
            time.sleep(0.25)
    share = (server.cpu_seconds - spent) / seconds
    return Felt(**json.loads(probed.result().stdout), memory_kib=most, cpu_share=share)


async def probe(url: str, key: Key, seconds: float) -> None:
    end, journal, health = time.monotonic() + seconds, list[Call](), list[float]()
    port = urlsplit(url).port or 0
    callers = [generate_on(Line(port, journal), key, end) for _ in range(CALLERS)]
    await asyncio.gather(*callers, *(look_at_health(port, health, end) for _ in range(CALLERS)))
    pictures = [1000 * (call.received - call.sent) for call in journal if call.status == 200]
    print(json.dumps({"pictures": pictures, "health": health, "failed": len(journal) - len(pictures)}))


@contextmanager
def crowd(port: int, image: str) -> Iterator[None]:
    """The other clients, from when all are connected until the block ends."""
    command = [sys.executable, "-m", "benchmarks.edge_crowd", str(port), image]
    with subprocess.Popen(command, cwd=BACKEND, stdout=subprocess.PIPE, text=True) as clients:
        try:
            if clients.stdout is None or clients.stdout.readline().strip() != CONNECTED:
                sys.exit("The clients cannot connect")
            yield
        finally:
            clients.terminate()


if __name__ == "__main__":
    main(sys.argv[1:])
