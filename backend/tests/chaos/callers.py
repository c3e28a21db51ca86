"""Callers in processes of their own, over connections to every worker: `python -m tests.chaos.callers`."""

import asyncio
import json
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import asdict
from itertools import chain, cycle
from pathlib import Path
from typing import Literal, NamedTuple

from tests.chaos.load import Call, Key, Line, lines_to_every_worker
from tests.chaos.workers import Workers

PROCESSES = 2

Manner = Literal["at_once", "pressing", "patient"]

_BACKEND = Path(__file__).parents[2]
_JOURNAL_BYTES_MAX = 2**28
_PRESSING_PAUSE_SECONDS = 0.03
_CALLS_OF_PATIENT_MAX = 50


class _Key(NamedTuple):
    id: str
    raw: str


class _Plan(NamedTuple):
    """What one process is told to do."""

    name: str
    parent: int
    port: int
    size: int
    manner: Manner
    lines: int
    seconds: float
    keys: Sequence[_Key]


async def calls_of(
    manner: Manner, keys: Sequence[Key], workers: Workers, *, lines: int, seconds: float = 0
) -> list[Call]:
    """What callers in two processes were told, each with this many lines to every worker. They begin together.

    at_once: one call on every line, with the keys in turn. pressing: calls on every line for some seconds. patient:
    each key is called until it is told to wait, and once more after exactly that time.
    """
    async with AsyncExitStack() as stack:
        crowd = []
        for number in range(PROCESSES):
            mine = [_Key(key.id, key.raw) for key in keys]
            mine = mine[number::PROCESSES] if manner == "patient" else mine
            plan = _Plan(str(number), workers.parent, workers.port, workers.size, manner, lines, seconds, mine)
            crowd.append(await stack.enter_async_context(_process(plan)))
        for process in crowd:
            assert await _hear(process) == "connected"
        for process in crowd:
            _tell(process, "go")
        return [Call(**fields) for process in crowd for fields in json.loads(await _hear(process))]


@asynccontextmanager
async def _process(plan: _Plan) -> AsyncIterator[asyncio.subprocess.Process]:
    command, pipe = (sys.executable, "-m", "tests.chaos.callers"), subprocess.PIPE
    process = await asyncio.create_subprocess_exec(
        *command, cwd=_BACKEND, stdin=pipe, stdout=pipe, limit=_JOURNAL_BYTES_MAX
    )
    try:
        _tell(process, json.dumps(plan))
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.communicate()


def _tell(process: asyncio.subprocess.Process, line: str) -> None:
    assert process.stdin is not None
    process.stdin.write(f"{line}\n".encode())


async def _hear(process: asyncio.subprocess.Process) -> str:
    assert process.stdout is not None
    return (await process.stdout.readline()).decode().rstrip()


async def _main() -> None:
    plan = _Plan(*json.loads(sys.stdin.readline()))
    plan = plan._replace(keys=[_Key(*key) for key in plan.keys])
    workers, journal = Workers(plan.parent, port=plan.port, size=plan.size), list[Call]()
    async with lines_to_every_worker(workers, journal, each=plan.lines) as lines:
        assert len(lines) == plan.size
        _say("connected")
        await asyncio.to_thread(sys.stdin.readline)
        await _MANNERS[plan.manner](plan, list(chain(*zip(*lines, strict=True))))
    _say(json.dumps([asdict(call) for call in journal]))


def _say(line: str) -> None:
    sys.stdout.write(f"{line}\n")
    sys.stdout.flush()


async def _at_once(plan: _Plan, lines: Sequence[Line]) -> None:
    calls = zip(range(len(lines)), lines, cycle(plan.keys), strict=False)
    await asyncio.gather(*(line.ask(key, f"{plan.name} {n}") for n, line, key in calls))


async def _pressing(plan: _Plan, lines: Sequence[Line]) -> None:
    end = time.monotonic() + plan.seconds

    async def press(line: Line, name: str) -> None:
        for n, key in enumerate(cycle(plan.keys)):
            if time.monotonic() > end:
                return
            await line.ask(key, f"{name} {n}")
            await asyncio.sleep(_PRESSING_PAUSE_SECONDS)

    await asyncio.gather(*(press(line, f"{plan.name} {n}") for n, line in enumerate(lines)))


async def _patient(plan: _Plan, lines: Sequence[Line]) -> None:
    """Each key has two lines of its own."""

    async def call(key: _Key, one: Line, another: Line) -> None:
        for n in range(_CALLS_OF_PATIENT_MAX):
            told = await one.ask(key, f"{key.id} {n}")
            if told.status != 200:
                break
        await asyncio.sleep(told.retry_after)
        await another.ask(key, f"{key.id} afterwards")

    await asyncio.gather(*(call(key, *lines[n :: len(plan.keys)][:2]) for n, key in enumerate(plan.keys)))


_MANNERS: Mapping[Manner, Callable[[_Plan, Sequence[Line]], Awaitable[None]]] = {
    "at_once": _at_once,
    "pressing": _pressing,
    "patient": _patient,
}

if __name__ == "__main__":
    asyncio.run(_main())
