"""`make bench BASE=5df0720`: the present program against an earlier commit of it, in one run, each on its own database.

With MODELS=50 the present one has a file of 50 priced models of the stub, and the callers ask for each in turn; the
earlier one is asked for none. `python -m benchmarks.base 5df0720 --keys 5000`, from `backend`, has the callers of both
come with so many keys in turn: more than a process is asked with in the ten seconds for which it remembers a caller.

Wall-clock figures drift on a shared machine; the processor time that a server takes for a call drifts less, and the
ratio within a round least. Of one program, started twice, the second may take a twentieth more than the first for as
long as it runs, by where its memory happens to lie: so both are started several times, and the rounds are short.
"""

import argparse
import asyncio
import json
import secrets
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

from app.core.db import connect_for_writing
from app.core.embedded import embedded_postgres
from app.core.security import new_api_key, new_id
from benchmarks.machine import (
    BACKEND,
    GENERATE,
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

STARTS = 6
ROUNDS = 8
SECONDS = 1
WARM_UP_SECONDS = 2
RATIO_MAX = 1.05
"""What all that has come since may cost together, in processor time for a call."""

_ADD_KEYS = """
insert into api_keys select (jsonb_populate_record(k, jsonb_build_object('id', a.id, 'key_hash', a.key_hash))).*
from api_keys k cross join unnest($1::text[], $2::text[]) a(id, key_hash)
"""
"""Copies of the only key, whichever columns that version has."""


@dataclass(frozen=True)
class Program:
    """One of the two, with a database of its own."""

    backend: Path
    settings: Mapping[str, str]
    keys: list[str]
    bodies: Sequence[str]

    def serving(self) -> AbstractContextManager[Server]:
        port = free_port()
        return serving("app.cli", "serve", port=port, backend=self.backend, PORT=str(port), **self.settings)

    def load(self, server: Server, seconds: int) -> Load:
        return load(server.url, keys=self.keys, seconds=seconds, bodies=self.bodies)


@dataclass(frozen=True)
class Round:
    """What a program did in one round."""

    load: Load
    cpu_microseconds: float
    """The server's, for a call."""


def main() -> None:
    tool()
    options = argparse.ArgumentParser(prog="benchmarks.base")
    options.add_argument("revision")
    options.add_argument("--models", type=int, default=0, help="so many in a MODELS_FILE; without it there is none")
    options.add_argument("--keys", type=int, default=1, help="so many that callers have, in turn")
    options.add_argument("--starts", type=int, default=STARTS, help="how often both are started")
    options.add_argument("--rounds", type=int, default=ROUNDS, help="after each start")
    chosen = options.parse_args()
    with ExitStack() as stack:
        earlier = stack.enter_context(checked_out(chosen.revision))
        programs = {
            "before": _prepared(stack, earlier, models=0, keys=chosen.keys),
            "now": _prepared(stack, BACKEND, models=chosen.models, keys=chosen.keys),
        }
        rounds: dict[str, list[Round]] = {name: [] for name in programs}
        for number in range(chosen.starts):
            for name, done in _measured(programs, rounds=chosen.rounds):
                rounds[name].append(done)
            print(f"start {number + 1} of {chosen.starts}", file=sys.stderr)
    _report(chosen.revision, rounds, chosen)


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


def prepared_settings(stack: ExitStack, backend: Path) -> dict[str, str]:
    """Settings for the program of that folder, with a database of its own, which is migrated."""
    data = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-"))
    url = stack.enter_context(embedded_postgres(Path(data)))
    settings = {"DATABASE_URL": url, "SECRET_KEY": secrets.token_urlsafe(48), "DATA_DIR": data, **WIDE_OPEN}
    subprocess.run([sys.executable, "-m", "app.cli", "migrate"], cwd=backend, env=settings, check=True)
    return settings


def _prepared(stack: ExitStack, backend: Path, *, models: int, keys: int) -> Program:
    """The program of that folder, its database migrated, with so many keys."""
    settings = prepared_settings(stack, backend)
    names = [f"model-{number}" for number in range(models)]
    if names:
        settings["MODELS_FILE"] = str(_models_file(Path(settings["DATA_DIR"]), names))
    bodies = [json.dumps({**json.loads(GENERATE), "model": name}) for name in names] or [GENERATE]
    program = Program(backend, settings, [], bodies)
    with program.serving() as server:
        program.keys.append(new_key(server.url))
    program.keys.extend(asyncio.run(_add_keys(settings["DATABASE_URL"], keys - 1)))
    return program


def _measured(programs: Mapping[str, Program], *, rounds: int) -> Iterator[tuple[str, Round]]:
    """Starts the programs beside each other, and measures each in turn, so many times."""
    with ExitStack() as stack:
        servers = {name: stack.enter_context(program.serving()) for name, program in programs.items()}
        for name, program in programs.items():
            program.load(servers[name], WARM_UP_SECONDS)
        for number in range(rounds):
            for name in programs if number % 2 else reversed(list(programs)):
                yield name, _measure(programs[name], servers[name])


async def _add_keys(url: str, number: int) -> Sequence[str]:
    """So many further keys of the account that has the only one. An account may create fewer by HTTP."""
    keys = [new_api_key("live") for _ in range(number)]
    hashes = [f"\\x{sha256(each.encode()).hexdigest()}" for each in keys]
    connection = await connect_for_writing(url)
    await connection.execute(_ADD_KEYS, [new_id("key") for _ in keys], hashes)
    await connection.close()
    return keys


def _models_file(folder: Path, names: Sequence[str]) -> Path:
    """A file of these models: each of its own price, and drawn by the stub."""
    tables = [
        f'[models.{name}]\nprice = "0.{number:06}"\n[[models.{name}.routes]]\nprovider = "stub"\n'
        for number, name in enumerate(names, 1)
    ]
    path = folder / "models.toml"
    path.write_text(f'default = "{names[0]}"\ncurrency = "USD"\n{"".join(tables)}')
    return path


def _measure(program: Program, server: Server) -> Round:
    before = server.cpu_seconds
    done = program.load(server, SECONDS)
    return Round(done, 1e6 * (server.cpu_seconds - before) / done.requests)


def _report(revision: str, rounds: dict[str, list[Round]], chosen: argparse.Namespace) -> None:
    has_models = f", {chosen.models} models" if chosen.models else ""
    has_keys = f", {chosen.keys:,} keys" if chosen.keys > 1 else ""
    of_each = f"{chosen.starts} starts of both, {chosen.rounds} rounds of {SECONDS} s after each"
    print(f"\n{machine()}\n{of_each}, interleaved, 32 connections, one worker", end="")
    print(f"{has_models}{has_keys}; medians\n")
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
    main()
