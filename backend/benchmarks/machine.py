"""The parts that every benchmark starts, measures and stops: PostgreSQL, servers, load."""

import json
import os
import platform
import re
import shutil
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple
from urllib.request import Request, urlopen

from app import migrations
from app.core.embedded import embedded_postgres
from app.core.limit_settings import LimitSettings

BACKEND = Path(__file__).parents[1]
CONNECTIONS = 32
START_SECONDS = 30
_ANSWER_SECONDS_MAX = 30
GENERATE = '{"prompt": "A cute banana", "size": "1024x1024"}'
ACCOUNT = {"email": "bench@example.com", "password": "correct horse battery staple"}
WIDE_OPEN = {
    **{name.upper(): "1000000/second" for name in LimitSettings.model_fields if re.search("_limit_(?!mode)", name)},
    "GENERATE_CONCURRENCY_PER_KEY": "1000000",
    "CONNECTIONS_PER_ADDRESS_MAX": "1000000",
}
"""Settings under which no limit is met by accident."""

_LOAD = """
wrk.method = "POST"
wrk.headers["Content-Type"] = "application/json"
local keys = {{{keys}}}
local bodies = {{{bodies}}}
local requests = {{}}
function init(args)
  for _, key in ipairs(keys) do
    wrk.headers["Authorization"] = "Bearer " .. key
    for _, body in ipairs(bodies) do
      requests[#requests + 1] = wrk.format(nil, nil, nil, body)
    end
  end
end
local turn = 0
function request()
  turn = turn % #requests + 1
  return requests[turn]
end
done = function(summary, latency, requests)
  local seen = summary.errors
  local lost = seen.connect + seen.read + seen.write + seen.timeout
  io.stderr:write(string.format(
    '{{"requests": %d, "microseconds": %d, "p50": %d, "p99": %d, "refused": %d, "lost": %d}}',
    summary.requests, summary.duration, latency:percentile(50), latency:percentile(99), seen.status, lost))
end
{more}
"""


@dataclass(frozen=True)
class Load:
    """What one round of load came to. Latencies in milliseconds."""

    requests: int
    seconds: float
    p50: float
    p99: float
    refused: int
    lost: int

    @property
    def errors(self) -> int:
        return self.refused + self.lost

    @property
    def per_second(self) -> float:
        return self.requests / self.seconds

    @property
    def good_per_second(self) -> float:
        return (self.requests - self.refused) / self.seconds


@dataclass(frozen=True)
class Server:
    """A server that listens."""

    url: str
    process: subprocess.Popen[bytes]

    @property
    def memory_kib(self) -> int:
        return self._status("VmRSS")

    @property
    def most_memory_kib(self) -> int:
        """The most that it has had at a time."""
        return self._status("VmHWM")

    def _status(self, name: str) -> int:
        status = Path(f"/proc/{self.process.pid}/status").read_text()
        return int(re.findall(rf"{name}:\s+(\d+)", status)[0])

    @property
    def cpu_seconds(self) -> float:
        return _stat_of(self.process.pid).cpu_seconds

    @property
    def tree_cpu_seconds(self) -> float:
        """The same with the processes that it started, and those that they started."""
        return tree_cpu_seconds(self.process.pid)


@contextmanager
def database() -> Iterator[str]:
    """A migrated PostgreSQL of the benchmark's own; its URL."""
    with tempfile.TemporaryDirectory(prefix="bench-") as folder, embedded_postgres(Path(folder)) as url:
        migrations.upgrade(url)
        yield url


def serving(
    *command: str, port: int, backend: Path | str = BACKEND, **environment: str
) -> AbstractContextManager[Server]:
    """A server in another process, from its first answer on; of the program in the folder `backend`."""
    return started([sys.executable, "-m", *command], port=port, cwd=backend, environment=environment)


@contextmanager
def started(
    command: Sequence[str],
    *,
    port: int,
    cwd: Path | str,
    environment: Mapping[str, str],
    start_seconds: int = START_SECONDS,
) -> Iterator[Server]:
    """The same of any command. Raises TimeoutError where it does not listen within `start_seconds`."""
    process = subprocess.Popen(
        command, cwd=cwd, env={**os.environ, **environment}, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    try:
        _wait_for(port, process, start_seconds)
        yield Server(f"http://127.0.0.1:{port}", process)
    finally:
        process.terminate()
        process.wait(START_SECONDS)


def load(
    url: str,
    *,
    keys: Sequence[str],
    seconds: int,
    connections: int = CONNECTIONS,
    path: str = "/v1/generate",
    bodies: Sequence[str] = (GENERATE,),
    more: str = "",
) -> Load:
    """POSTs the bodies in turn for some seconds, each with the keys in turn. `more` is added to wrk's script."""
    with tempfile.NamedTemporaryFile("w", suffix=".lua") as script:
        lists = {"keys": ", ".join(f'"{key}"' for key in keys), "bodies": ", ".join(f"'{body}'" for body in bodies)}
        script.write(_LOAD.format(**lists, more=more))
        script.flush()
        limits = (f"-c{connections}", f"-d{seconds}s", "--timeout", f"{_ANSWER_SECONDS_MAX}s")
        command = [tool(), "-t1", *limits, "-s", script.name, f"{url}{path}"]
        done = subprocess.run(command, capture_output=True, text=True, check=True)
    told = json.loads(done.stderr)
    latencies = (told["p50"] / 1e3, told["p99"] / 1e3)
    return Load(told["requests"], told["microseconds"] / 1e6, *latencies, told["refused"], told["lost"])


def median_ratio(some: Sequence[Load], others: Sequence[Load], field: str) -> float:
    """The median over the rounds of the ratio within each round: what drifts between rounds drifts for both."""
    ratios: list[float] = [getattr(a, field) / getattr(b, field) for a, b in zip(some, others, strict=True)]
    return statistics.median(ratios)


class Key(NamedTuple):
    """An API key as its owner got it."""

    id: str
    raw: str


def new_keys(url: str, count: int, *, environments: Sequence[str] = ("live",)) -> list[Key]:
    """An account's keys, so many of each environment, by HTTP."""
    _post(f"{url}/v1/auth/register", ACCOUNT)
    token = _post(f"{url}/v1/auth/login", ACCOUNT)["access_token"]
    keys = [{"name": "bench", "environment": each} for each in environments for _ in range(count)]
    created = [_post(f"{url}/v1/keys", key, token) for key in keys]
    return [Key(each["id"], each["key"]) for each in created]


def new_key(url: str) -> str:
    """An account and its key, by HTTP."""
    return new_keys(url, 1)[0].raw


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def tool() -> str:
    """wrk, or an end with a sentence."""
    path = shutil.which("wrk")
    if path is None:
        sys.exit("The benchmarks need wrk, a load generator: apt-get install wrk")
    return path


def machine() -> str:
    """What the figures were measured on."""
    model = re.findall(r"model name\s*: (.+)", Path("/proc/cpuinfo").read_text())[0]
    python = platform.python_version()
    return f"{time.strftime('%Y-%m-%d')}, {os.cpu_count()} cores of {model}, Python {python}, {platform.system()}"


def _post(url: str, body: dict[str, str], token: str = "") -> dict[str, str]:
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {token}"} if token else {})}
    with urlopen(Request(url, json.dumps(body).encode(), headers)) as answer:
        found: dict[str, str] = json.load(answer)
        return found


def tree_cpu_seconds(root: int) -> float:
    """Of a process with those that it started, and those that they started, as far as they still run."""
    stats = {int(each.name): _stat_of(int(each.name)) for each in Path("/proc").iterdir() if each.name.isdigit()}
    tree = {root}
    while grown := {pid for pid, stat in stats.items() if stat.parent in tree} - tree:
        tree |= grown
    return sum(stats[pid].cpu_seconds for pid in tree)


def parent_of(pid: int) -> int:
    """The process that started this one."""
    return _stat_of(pid).parent


class _Stat(NamedTuple):
    parent: int
    cpu_seconds: float


def _stat_of(pid: int) -> _Stat:
    """Of a process; nothing of one that has ended meanwhile."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except FileNotFoundError:
        return _Stat(0, 0.0)
    return _Stat(int(fields[1]), (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK"))


def _wait_for(port: int, process: subprocess.Popen[bytes], seconds: int) -> None:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline and process.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise TimeoutError("A server did not start")
