"""`make rolling`: two servers behind the nginx and the HAProxy of `ops/` are replaced, under 50 calls a second.

A restart replaces servers of this version by themselves, again and again. An upgrade begins with servers of 5df0720 and
their schema, and takes the versions one after the other, as docs/operations.md has it: `migrate`, then each server.
Clients try nothing twice, and each call has one status that is right.

python -m benchmarks.rolling                             # both, behind both: about seven minutes
python -m benchmarks.rolling restart haproxy 300         # one of them, with so many calls
"""

import asyncio
import json
import os
import secrets
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, ExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
from app.core.embedded import embedded_postgres
from benchmarks.base import checked_out
from benchmarks.machine import ACCOUNT, BACKEND, WIDE_OPEN, free_port, machine
from benchmarks.migration import CALLS_PER_SECOND, Traffic, under_way
from tests.proxies.deployed import HOST, Deployed, deployed
from tests.redis_server import redis_server
from tests.standins.authority import Authority

CALLS = 5000
DRAIN_SECONDS = "5"
BETWEEN_STOPS_SECONDS = 4
VERSIONS = ("5df0720", "dbb0c18^")
"""Before this one: of the schema e3f6b80d417c, and of e08b5d63f2a4, which servers of the first have to pass."""
_LEAVING_SECONDS_MAX = 60


@dataclass
class Fleet:
    """Two servers on two ports of this machine, of one database and one Redis."""

    environment: dict[str, str]
    ports: tuple[int, int] = field(default_factory=lambda: (free_port(), free_port()))
    processes: dict[int, "subprocess.Popen[bytes]"] = field(default_factory=dict)

    async def replace_all(self, program: Path) -> None:
        """Stops each server and starts one of this program in its place, the second when the first is ready."""
        for port in self.ports:
            await self.stop(port)
            await self.start(port, program)
            await asyncio.sleep(BETWEEN_STOPS_SECONDS)  # the proxy sees that it is there

    async def start(self, port: int, program: Path) -> None:
        """Returns when the server is ready. It starts with a low priority, since it would have a machine of its own:
        here its start takes a core that the other server needs.
        """
        self.processes[port] = await asyncio.to_thread(self._spawn, port, program)
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}") as client:
            for _ in range(600):
                try:
                    if (await client.get("/ready")).status_code == 200:
                        os.setpriority(os.PRIO_PROCESS, self.processes[port].pid, 0)
                        return
                except httpx2.TransportError:
                    pass
                await asyncio.sleep(0.1)
        sys.exit(f"The server of {program} does not start.")

    def _spawn(self, port: int, program: Path) -> "subprocess.Popen[bytes]":
        command = ["nice", "-n", "15", sys.executable, "-m", "app.cli", "serve"]
        environment = {**self.environment, "PORT": str(port)}
        with Path(self.environment["DATA_DIR"], f"log-{port}").open("ab") as log:
            return subprocess.Popen(command, cwd=program, env=environment, stdout=log, stderr=log)

    async def stop(self, port: int) -> None:
        """Stops it as a supervisor of services does."""
        if process := self.processes.pop(port, None):
            process.terminate()
            await asyncio.to_thread(process.wait, _LEAVING_SECONDS_MAX)

    async def migrate(self, program: Path) -> None:
        """Runs `nanobanana migrate` of this program."""
        command = [sys.executable, "-m", "app.cli", "migrate"]
        await asyncio.to_thread(subprocess.run, command, cwd=program, env=self.environment, check=True)


async def measure(kind: str, proxy: str, calls: int, programs: Sequence[Path], stack: ExitStack) -> Counter[str]:
    """Prints a row, and returns what failed, by the kind of call and its status."""
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-rolling-")))
    async with _fleet(folder, programs[0]) as fleet:
        authority = Authority(folder)
        (folder / "proxy").mkdir()
        with deployed(proxy, authority, fleet.ports, folder / "proxy") as (port, _):
            async with _traffic(authority, port) as traffic:
                stops = 0
                for program in programs[1:]:
                    await fleet.migrate(program)
                    await fleet.replace_all(program)
                    stops += len(fleet.ports)
                while len(traffic.calls) < calls:
                    if kind == "restart":
                        await fleet.replace_all(programs[-1])
                        stops += len(fleet.ports)
                    else:
                        await asyncio.sleep(1)
    failed = Counter(f"{each.kind} {each.status}" for each in traffic.calls if not each.is_right)
    longest_ms = max(each.seconds for each in traffic.calls) * 1e3
    row = (kind, proxy, stops, f"{len(traffic.calls):,}", failed.total(), f"{longest_ms:.0f}")
    print(f"| {' | '.join(map(str, row))} |", flush=True)
    if failed:
        print(f"The servers logged: {dict(_logged(folder))}")
    return failed


def _logged(folder: Path) -> Counter[str]:
    """How often the servers have logged each fault, with its code and the last place of its stack."""
    lines = (line for file in folder.glob("log-*") for line in file.read_text().splitlines() if line.startswith("{"))
    read = (json.loads(line) for line in lines)
    return Counter(
        f"{each['event']} {each.get('code', '')} {each.get('exception', {}).get('frames', [''])[-1]}"
        for each in read
        if each["level"] != "info"
    )


@asynccontextmanager
async def _fleet(folder: Path, program: Path) -> AsyncIterator[Fleet]:
    async with AsyncExitStack() as stack:
        url = stack.enter_context(embedded_postgres(folder / "postgres"))
        redis = stack.enter_context(redis_server(folder))
        settings = {"DATABASE_URL": url, "REDIS_URL": redis.url, "SECRET_KEY": secrets.token_urlsafe(48)}
        more = {"DATA_DIR": str(folder), "PUBLIC_URL": f"https://{HOST}", "TRUSTED_PROXIES": "127.0.0.0/8"}
        fleet = Fleet(
            {
                **WIDE_OPEN,
                **settings,
                **more,
                "DRAIN_SECONDS": DRAIN_SECONDS,
                "KEYS_PER_ACCOUNT_MAX": "10000",
                "PATH": os.defpath,
            }
        )
        await fleet.migrate(program)
        try:
            for port in fleet.ports:
                await fleet.start(port, program)
            yield fleet
        finally:
            for port in fleet.ports:
                await fleet.stop(port)


@asynccontextmanager
async def _traffic(authority: Authority, port: int) -> AsyncIterator[Traffic]:
    async with Deployed(authority, port).client() as client:
        await client.post("/v1/auth/register", json=ACCOUNT)
        token = (await client.post("/v1/auth/login", json=ACCOUNT)).json()["access_token"]
        created = await client.post("/v1/keys", json={"name": "bench"}, headers={"Authorization": f"Bearer {token}"})
        traffic = Traffic(client, token, [created.json()["key"]])
        await traffic.keyed()
        async with under_way(traffic):
            yield traffic


def main() -> None:
    chosen = sys.argv[1:] or ["restart", "upgrade", "nginx", "haproxy", str(CALLS)]
    calls = next((int(each) for each in chosen if each.isdigit()), CALLS)
    started, failed = time.monotonic(), Counter[str]()
    print(f"{machine()}\n{CALLS_PER_SECOND} calls a second, two servers\n")
    print("| | behind | servers stopped | calls | failed | longest ms |\n|---|---|---|---|---|---|")
    with ExitStack() as stack:
        before = [stack.enter_context(checked_out(each)) for each in VERSIONS if "upgrade" in chosen]
        for kind in [each for each in ("restart", "upgrade") if each in chosen]:
            programs = [*before, BACKEND] if kind == "upgrade" else [BACKEND]
            for proxy in [each for each in ("nginx", "haproxy") if each in chosen]:
                failed += asyncio.run(measure(kind, proxy, calls, programs, stack))
    print(f"\n{time.monotonic() - started:.0f} seconds; failed: {dict(failed) or 'none'}")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
