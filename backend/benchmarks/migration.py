"""`make bench-migration`: two million generations of the version before are migrated while it serves.

The version before runs from a git worktree of its own, as it was committed. Fifty calls a second reach it over HTTP:
generations with and without an Idempotency-Key, repetitions, lists, usage, images, new and revoked keys. Each has one
status that is right. They go on while the database is migrated to the schema of the next version, and while it is
brought back.
"""

import asyncio
import itertools
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import ExitStack, asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import asyncpg
import httpx2
from app.core.embedded import embedded_postgres
from app.core.security import hash_password
from benchmarks.machine import ACCOUNT, BACKEND, WIDE_OPEN, free_port, machine, serving
from sqlalchemy.engine import make_url
from tests.version_before.statements import REVISION
from tests.version_before.statements_by_model import REVISION as NEXT

BEFORE = "5df0720"
ROWS = int(os.environ.get("ROWS", "2000000"))
KEYS = 1000
CALLS_PER_SECOND = 50
SETTLING_SECONDS = 3
_ROWS_AT_ONCE = 250_000
_ANSWER_SECONDS_MAX = 30

_ADD_KEYS = """
insert into api_keys (id, user_id, name, environment, prefix, key_hash)
select 'key_' || lpad(n::text, 20, '0'), (select id from users limit 1), 'bench', 'live', 'nb_live_00000000',
  sha256(convert_to('nb_live_' || lpad(to_hex(n), 32, '0'), 'UTF8'))
from generate_series(1, $1::bigint) n
"""
# Of the last year, spread over its days and over all the keys. Ids begin with their milliseconds in base 32.
_ADD_ROWS = """
insert into generations (id, key_id, prompt, size, provider, status, created_at, delivered_at)
select 'gen_' || time || lpad(n::text, 20, '0'), 'key_' || lpad((1 + n * 7919 % $3)::text, 20, '0'), 'A cute banana',
  '1024x1024', 'stub', 'delivered', at, at
from generate_series($1::bigint, $2::bigint) n
cross join lateral (select now() - interval '364 days' + n * interval '364 days' / $4::bigint as at) t
cross join lateral (
  select string_agg(substr('0123456789abcdefghjkmnpqrstvwxyz', 1 + (ms >> 5 * digit & 31)::int, 1), '' order by -digit)
    as time
  from generate_series(0, 9) digit, (select (extract(epoch from at) * 1000)::bigint as ms) m
) i
"""
_COUNT_ROWS = """
insert into usage select key_id, (delivered_at at time zone 'UTC')::date, count(*) from generations
where delivered_at is not null group by 1, 2
"""
_DEADLOCKS = "select deadlocks from pg_stat_database where datname = current_database()"


class Call(NamedTuple):
    """A call that was answered, or failed: its kind, its status (0 for none) and how many seconds it took."""

    kind: str
    status: int
    seconds: float
    is_right: bool


@dataclass
class Traffic:
    """Calls at a constant rate, whatever the answers take, until it is stopped."""

    client: httpx2.AsyncClient
    token: str
    keys: list[str]
    calls: list[Call] = field(default_factory=list)
    _running: set[asyncio.Task[None]] = field(default_factory=set)
    _repeated: list[str] = field(default_factory=list)

    async def run(self) -> None:
        kinds = itertools.cycle(["generate"] * 4 + ["keyed", "repeat", "list", "usage", "image", "key"])
        start = time.monotonic()
        for number in itertools.count():
            await asyncio.sleep(start + number / CALLS_PER_SECOND - time.monotonic())
            task = asyncio.create_task(self._call(next(kinds)))
            self._running.add(task)
            task.add_done_callback(self._running.discard)

    async def finish(self) -> None:
        while self._running:
            await asyncio.gather(*self._running)

    async def _call(self, kind: str) -> None:
        start, status, is_right = time.monotonic(), 0, False
        try:
            status = await getattr(self, kind)()
            is_right = status == (201 if kind == "key" else 200)
        except (httpx2.HTTPError, LookupError) as error:
            print(f"{kind}: {error!r}", file=sys.stderr)
        self.calls.append(Call(kind, status, time.monotonic() - start, is_right))

    async def generate(self) -> int:
        return (await self._post_generate({})).status_code

    async def keyed(self) -> int:
        key = secrets.token_hex(8)
        answer = await self._post_generate({"Idempotency-Key": key}, owner=self.keys[0])
        self._repeated.append(key)
        return answer.status_code

    async def repeat(self) -> int:
        answer = await self._post_generate({"Idempotency-Key": secrets.choice(self._repeated)}, owner=self.keys[0])
        is_right = answer.status_code != 200 or "idempotent-replayed" in answer.headers
        return answer.status_code if is_right else 0

    async def list(self) -> int:
        headers = {"Authorization": f"Bearer {secrets.choice(self.keys)}"}
        return (await self.client.get("/v1/generations", headers=headers)).status_code

    async def usage(self) -> int:
        return (await self.client.get("/v1/usage", headers=self._logged_in())).status_code

    async def image(self) -> int:
        answer = await self._post_generate({})
        if answer.status_code != 200:
            return answer.status_code
        return (await self.client.get(f"/v1/images/{answer.json()['id']}.png")).status_code

    async def key(self) -> int:
        answer = await self.client.post("/v1/keys", json={"name": "bench"}, headers=self._logged_in())
        if answer.status_code != 201:
            return answer.status_code
        revoked = await self.client.delete(f"/v1/keys/{answer.json()['id']}", headers=self._logged_in())
        return answer.status_code if revoked.status_code == 204 else revoked.status_code

    async def _post_generate(self, headers: dict[str, str], *, owner: str | None = None) -> httpx2.Response:
        owner = owner or secrets.choice(self.keys)
        body = {"prompt": "A cute banana", "size": "64x64"}
        return await self.client.post(
            "/v1/generate", json=body, headers={"Authorization": f"Bearer {owner}", **headers}
        )

    def _logged_in(self) -> dict[str, str]:
        return {"Authorization": f"Bearer {self.token}"}


def main() -> None:
    with ExitStack() as stack:
        before = stack.enter_context(_worktree())
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-")))
        url = stack.enter_context(embedded_postgres(folder / "postgres"))
        environment = {**WIDE_OPEN, "DATABASE_URL": url, "DATA_DIR": str(folder), "KEYS_PER_ACCOUNT_MAX": "10000"}
        _run(before, environment, "app.cli", "migrate")
        asyncio.run(_fill(url))
        port = free_port()
        environment["PORT"] = str(port)
        stack.enter_context(serving("app.cli", "serve", port=port, backend=before, **environment))
        print(f"{machine()}\n{ROWS:,} generations of {KEYS:,} keys, {CALLS_PER_SECOND} calls a second\n")
        print("| | seconds | calls | failed | median ms | longest ms | longest before ms | deadlocks |")
        print("|---|---|---|---|---|---|---|---|")
        steps = {"migrated": ("alembic", "upgrade", NEXT), "brought back": ("alembic", "downgrade", REVISION)}
        for name, command in steps.items():
            asyncio.run(_measure(name, f"http://127.0.0.1:{port}", url, environment, command))
        _run(BACKEND, environment, "app.cli", "migrate")
        print(_run(BACKEND, environment, "app.cli", "usage", "reconcile"))


async def _measure(name: str, server: str, url: str, environment: dict[str, str], command: tuple[str, ...]) -> None:
    """Runs the command under traffic, and prints a row."""
    async with _traffic(server) as traffic:
        await asyncio.sleep(SETTLING_SECONDS)
        calls_before, start = len(traffic.calls), time.monotonic()
        await asyncio.to_thread(_run, BACKEND, environment, *command)
        seconds = time.monotonic() - start
        await asyncio.sleep(SETTLING_SECONDS)
    quiet, calls = traffic.calls[:calls_before], traffic.calls[calls_before:]
    failed = Counter((each.kind, each.status) for each in traffic.calls if not each.is_right)
    in_order = sorted(each.seconds for each in calls)
    median, longest, longest_before = in_order[len(in_order) // 2], in_order[-1], max(each.seconds for each in quiet)
    deadlocks = await _scalar(url, _DEADLOCKS)
    print(
        f"| {name} | {seconds:.1f} | {len(traffic.calls):,} | {failed.total()} | {median * 1e3:.1f} "
        f"| {longest * 1e3:.0f} | {longest_before * 1e3:.0f} | {deadlocks} |"
    )
    if failed:
        print(f"failed: {dict(failed)}")


@asynccontextmanager
async def _traffic(server: str) -> AsyncIterator[Traffic]:
    limits = httpx2.Limits(max_connections=None)
    async with httpx2.AsyncClient(base_url=server, timeout=_ANSWER_SECONDS_MAX, limits=limits) as client:
        answer = await client.post("/v1/auth/login", json=ACCOUNT)
        keys = [f"nb_live_{number:032x}" for number in range(1, KEYS + 1)]
        traffic = Traffic(client, answer.json()["access_token"], keys)
        await traffic.keyed()
        async with under_way(traffic):
            yield traffic


@asynccontextmanager
async def under_way(traffic: Traffic) -> AsyncIterator[None]:
    """Calls inside the `with`; the last ones are answered when it ends."""
    running = asyncio.create_task(traffic.run())
    try:
        yield
    finally:
        running.cancel()
        await traffic.finish()


@contextmanager
def _worktree() -> Iterator[Path]:
    """The backend folder of the version before, checked out for as long as it is needed."""
    with tempfile.TemporaryDirectory(prefix="bench-before-") as folder:
        _git("worktree", "add", "--detach", folder, BEFORE)
        try:
            yield Path(folder) / "backend"
        finally:
            _git("worktree", "remove", "--force", folder)


def _git(*arguments: str) -> None:
    subprocess.run(["git", *arguments], cwd=BACKEND, check=True, capture_output=True)


def _run(folder: Path, environment: dict[str, str], *command: str) -> str:
    """Runs a program of the version that is in this folder; what it says."""
    done = subprocess.run(
        [sys.executable, "-m", *command],
        cwd=folder,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        sys.exit(f"{' '.join(command)} failed: {done.stdout}{done.stderr}")
    return done.stdout


async def _fill(url: str) -> None:
    connection = await asyncpg.connect(_plain(url))
    await connection.execute(
        "insert into users (id, email, password_hash) values ($1, $2, $3)",
        "usr_00000000000000000000",
        ACCOUNT["email"],
        hash_password(ACCOUNT["password"]),
    )
    await connection.execute(_ADD_KEYS, KEYS)
    await connection.execute("set session_replication_role = replica")  # foreign keys hold by construction
    for begin in range(1, ROWS + 1, _ROWS_AT_ONCE):
        await connection.execute(_ADD_ROWS, begin, min(ROWS, begin + _ROWS_AT_ONCE - 1), KEYS, ROWS)
    await connection.execute(_COUNT_ROWS)
    await connection.execute("vacuum analyze")
    await connection.execute("checkpoint")
    await connection.close()


async def _scalar(url: str, query: str) -> object:
    connection = await asyncpg.connect(_plain(url))
    found: object = await connection.fetchval(query)
    await connection.close()
    return found


def _plain(url: str) -> str:
    return make_url(url).set(drivername="postgresql").render_as_string(hide_password=False)


if __name__ == "__main__":
    main()
