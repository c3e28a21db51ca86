"""`python -m benchmarks.polls 3856845`, from `backend`: callers who ask again and again about a generation that waits.

Of the present program and of an earlier commit, interleaved, each on its own database.
"""

import json
import statistics
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from secrets import token_urlsafe
from urllib.request import Request, urlopen

from app.core.embedded import embedded_postgres
from benchmarks.base import checked_out
from benchmarks.machine import BACKEND, GENERATE, WIDE_OPEN, Server, free_port, load, machine, new_key, serving, tool

ROUNDS, SECONDS, CONNECTIONS = 6, 3, (1, 32)
_NO_WORKER = {
    "WORK": "false",
    "IMAGE_PROVIDER": "openai",
    "OPENAI_API_KEY": "none",
    "OPENAI_BASE_URL": "http://127.0.0.1:9/v1",
    "OPENAI_MODEL": "none",
}
_GET = """
function init(args) end
function request()
  return wrk.format("GET", nil, {{["Authorization"] = "Bearer {key}"}}, "")
end
"""


@dataclass(frozen=True)
class Asked:
    """A program with a generation that waits."""

    server: Server
    key: str
    path: str

    def measure(self, connections: int) -> tuple[float, float, float]:
        """Calls a second, the 99th percentile in milliseconds, and the server's processor time for a call in us."""
        before, more = self.server.cpu_seconds, _GET.format(key=self.key)
        done = load(
            self.server.url, keys=[self.key], seconds=SECONDS, path=self.path, connections=connections, more=more
        )
        if done.errors:
            sys.exit(f"{done.errors} calls failed.")
        return done.per_second, done.p99, 1e6 * (self.server.cpu_seconds - before) / done.requests


def _start(stack: ExitStack, backend: Path) -> Asked:
    folder, port = stack.enter_context(tempfile.TemporaryDirectory(prefix="bench-polls-")), free_port()
    url = stack.enter_context(embedded_postgres(Path(folder)))
    own = {"DATABASE_URL": url, "DATA_DIR": folder, "SECRET_KEY": token_urlsafe(48)}
    settings = {**WIDE_OPEN, **_NO_WORKER, **own}
    subprocess.run([sys.executable, "-m", "app.cli", "migrate"], cwd=backend, env=settings, check=True)
    server = stack.enter_context(serving("app.cli", "serve", port=port, backend=backend, PORT=str(port), **settings))
    key = new_key(server.url)
    headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/json", "Prefer": "respond-async"}
    with urlopen(Request(f"{server.url}/v1/generate", GENERATE.encode(), headers)) as accepted:
        return Asked(server, key, f"/v1/generations/{json.load(accepted)['id']}")


def main() -> None:
    tool()
    [revision] = sys.argv[1:]
    with ExitStack() as stack:
        programs = {revision: _start(stack, stack.enter_context(checked_out(revision))), "now": _start(stack, BACKEND)}
        print(f"\n{machine()}\n{ROUNDS} rounds of {SECONDS} s, interleaved; medians\n")
        print(
            "| connections | what | calls/s | p99 ms | server's CPU, us a call | of before |\n|---|---|---|---|---|---|"
        )
        for connections in CONNECTIONS:
            rounds: dict[str, list[tuple[float, float, float]]] = {name: [] for name in programs}
            for number in range(ROUNDS):
                for name in list(programs) if number % 2 else reversed(programs):
                    rounds[name].append(programs[name].measure(connections))
            for name, done in rounds.items():
                rate, p99, cpu = (statistics.median(each[field] for each in done) for field in range(3))
                ratio = statistics.median(a[2] / b[2] for a, b in zip(done, rounds[revision], strict=True))
                print(f"| {connections} | {name} | {rate:,.0f} | {p99:.1f} | {cpu:,.0f} | {ratio:.2f} |")


if __name__ == "__main__":
    main()
