"""`make bench BASE=5df0720`: the present program against an earlier commit of it, in one run, each on its own database.

Wall-clock figures drift on a shared machine; the processor time that a server takes for a call drifts less, and the
ratio within a round least.
"""

import secrets
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from app.core.embedded import embedded_postgres
from benchmarks.machine import (
    BACKEND,
    WIDE_OPEN,
    Load,
    Server,
    free_port,
    load,
    machine,
    median_ratio,
    new_key,
    serving,
    tool,
)

ROUNDS = 10
SECONDS = 4
WARM_UP_SECONDS = 3
RATIO_MAX = 1.05
"""What all that has come since may cost together, in processor time for a call."""


@dataclass(frozen=True)
class Program:
    """One of the two, while it serves."""

    server: Server
    key: str


@dataclass(frozen=True)
class Round:
    """What a program did in one round."""

    load: Load
    cpu_microseconds: float
    """The server's, for a call."""


def main(revision: str) -> None:
    tool()
    with ExitStack() as stack:
        earlier = stack.enter_context(checked_out(revision))
        programs = {name: _start(stack, backend) for name, backend in (("before", earlier), ("now", BACKEND))}
        for program in programs.values():
            load(program.server.url, keys=[program.key], seconds=WARM_UP_SECONDS)
        rounds: dict[str, list[Round]] = {name: [] for name in programs}
        for number in range(ROUNDS):
            names = list(programs) if number % 2 else list(reversed(programs))
            for name in names:
                rounds[name].append(_measure(programs[name]))
            print(f"round {number + 1} of {ROUNDS}", file=sys.stderr)
    _report(revision, rounds)


@contextmanager
def checked_out(revision: str) -> Iterator[Path]:
    """The folder `backend` of that commit, in a worktree of its own that is removed at the end."""
    with tempfile.TemporaryDirectory(prefix="bench-base-") as folder:
        git = ["git", "-C", str(BACKEND)]
        subprocess.run([*git, "worktree", "add", "--detach", "-q", f"{folder}/base", revision], check=True)
        try:
            yield Path(folder, "base", "backend")
        finally:
            subprocess.run([*git, "worktree", "remove", "--force", f"{folder}/base"], check=True)


def _start(stack: ExitStack, backend: Path) -> Program:
    data, port = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")), free_port()
    url = stack.enter_context(embedded_postgres(Path(data)))
    settings = {"DATABASE_URL": url, "SECRET_KEY": secrets.token_urlsafe(48), "DATA_DIR": data, **WIDE_OPEN}
    subprocess.run([sys.executable, "-m", "app.cli", "migrate"], cwd=backend, env=settings, check=True)
    server = stack.enter_context(serving("app.cli", "serve", port=port, backend=backend, PORT=str(port), **settings))
    return Program(server, new_key(server.url))


def _measure(program: Program) -> Round:
    before = program.server.cpu_seconds
    done = load(program.server.url, keys=[program.key], seconds=SECONDS)
    return Round(done, 1e6 * (program.server.cpu_seconds - before) / done.requests)


def _report(revision: str, rounds: dict[str, list[Round]]) -> None:
    print(f"\n{machine()}\n{ROUNDS} rounds of {SECONDS} s, interleaved, 32 connections, one worker; medians\n")
    print("| what | requests/s | p50 ms | p99 ms | server's CPU, us a call | errors |\n|---|---|---|---|---|---|")
    for name, done in rounds.items():
        told = [statistics.median(getattr(each.load, field) for each in done) for field in ("per_second", "p50", "p99")]
        cpu = statistics.median(each.cpu_microseconds for each in done)
        errors = sum(each.load.errors for each in done)
        title = f"{revision}" if name == "before" else "now"
        print(f"| {title} | {told[0]:,.0f} | {told[1]:.1f} | {told[2]:.1f} | {cpu:.0f} | {errors} |")
    cost = _ratio(
        [each.cpu_microseconds for each in rounds["now"]], [each.cpu_microseconds for each in rounds["before"]]
    )
    speed = median_ratio([each.load for each in rounds["now"]], [each.load for each in rounds["before"]], "per_second")
    print(f"\nrequests a second, now : {revision} = {speed:.3f}")
    print(f"processor time of the server for a call, now : {revision} = {cost:.3f} (at most {RATIO_MAX})")


def _ratio(some: Sequence[float], others: Sequence[float]) -> float:
    return statistics.median(a / b for a, b in zip(some, others, strict=True))


if __name__ == "__main__":
    main(sys.argv[1])
