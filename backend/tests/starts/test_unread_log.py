"""A log that nobody reads stops nothing: lines are dropped, counted and reported."""

import fcntl
import json
import os
import socket
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from subprocess import run

import httpx2
import pytest
from app.core import log_stream
from app.core.log_stream import LogStream, dropped_lines_counted
from tests.features.scraped import METRICS_TOKEN, read
from tests.harness import PATIENCE_SECONDS
from tests.starts.servers import url_of
from tests.test_cli import Launch, processes_of, serving

PAGE_BYTES = 4096
GET = b"GET /health HTTP/1.1\r\nHost: test\r\n\r\n"
AT_ONCE = 100
EVERY_PROBE = {"LOG_LEVEL": "DEBUG"}
LOGS_THEN_FAILS = """
from app.core.logs import configure_logging, logger
configure_logging("INFO")
for number in range(5000):
    logger.info("line", number=number)
raise SystemExit(7)
"""


def small_pipe() -> tuple[int, int]:
    """The descriptors to read from and write to a pipe that holds one page."""
    ends = os.pipe()
    fcntl.fcntl(ends[1], fcntl.F_SETPIPE_SZ, PAGE_BYTES)
    return ends


@pytest.fixture
def pipe() -> Iterator[tuple[int, int]]:
    ends = small_pipe()
    yield ends
    for each in ends:
        os.close(each)


def numbered(number: int) -> str:
    return json.dumps({"number": number, "text": "x" * (number % 977)}) + "\n"


def read_lines(descriptor: int) -> Iterator[dict[str, object]]:
    """The lines of a pipe, each a whole JSON object, until nobody writes to it any more."""
    with os.fdopen(os.dup(descriptor), "rb") as lines:
        yield from map(json.loads, lines)


def test_lines_beyond_the_bound_are_dropped_counted_and_reported_once_they_can_be_written_again(
    monkeypatch: pytest.MonkeyPatch, pipe: tuple[int, int]
) -> None:
    monkeypatch.setattr(log_stream, "PENDING_BYTES_MAX", 10 * PAGE_BYTES)
    counted: list[int] = []
    to_read, to_write = pipe
    with dropped_lines_counted(counted.append):
        stream = LogStream(to_write)
        for number in range(1000):
            stream.write(numbered(number))
        dropped = sum(counted)
        assert 0 < dropped < 1000
        lines = read_lines(to_read)
        found = [next(lines) for _ in range(1000 - dropped + 1)]
        [report] = [line for line in found if line.get("event") == "log_lines_dropped"]
        assert report["lines"] == dropped == sum(counted)
        numbers = [int(str(line["number"])) for line in found if "number" in line]
        assert numbers == sorted(numbers)
        stream.write(numbered(1000))
        assert next(lines)["number"] == 1000


def test_a_line_that_fits_is_written_before_write_returns(pipe: tuple[int, int]) -> None:
    to_read, to_write = pipe
    stream = LogStream(to_write)
    os.set_blocking(to_read, False)
    stream.write(numbered(1))
    assert json.loads(os.read(to_read, PAGE_BYTES)) == json.loads(numbered(1))
    assert os.get_blocking(to_write), "others who write to this pipe still wait for its reader"
    stream.close()


def test_lines_of_several_writers_are_not_mixed_in_a_pipe_that_is_read_slowly(
    pipe: tuple[int, int],
) -> None:
    to_read, to_write = pipe
    streams = [LogStream(to_write) for _ in range(4)]
    for start in range(0, 400, 50):
        for stream in streams:
            stream.write("".join(numbered(number) for number in range(start, start + 50)))
    lines = read_lines(to_read)
    assert sum(int(str(next(lines)["number"])) for _ in range(1600)) == 4 * sum(range(400))


def test_a_reader_that_is_gone_stops_nothing() -> None:
    counted: list[int] = []
    to_read, to_write = os.pipe()
    os.close(to_read)
    stream = LogStream(to_write)
    with dropped_lines_counted(counted.append):
        stream.write(numbered(1) + numbered(2))
        stream.drain()
    assert counted == [2]
    os.close(to_write)


def test_a_descriptor_that_another_process_made_non_blocking_loses_nothing(pipe: tuple[int, int]) -> None:
    to_read, to_write = pipe
    os.set_blocking(to_write, False)
    stream = LogStream(to_write)
    for number in range(100):
        stream.write(numbered(number))
    lines = read_lines(to_read)
    assert [next(lines)["number"] for _ in range(100)] == list(range(100))


def test_the_last_lines_of_a_process_that_fails_are_written() -> None:
    done = run([sys.executable, "-c", LOGS_THEN_FAILS], capture_output=True, check=False, timeout=PATIENCE_SECONDS)
    assert done.returncode == 7
    assert [json.loads(line)["number"] for line in done.stderr.splitlines()] == list(range(5000))


def answered(url: str, requests: int) -> None:
    """Sends so many requests over one connection, and reads their answers."""
    parts = httpx2.URL(url)
    with socket.create_connection((parts.host, parts.port or 80), timeout=PATIENCE_SECONDS) as connection:
        for _ in range(0, requests, AT_ONCE):
            connection.sendall(GET * AT_ONCE)
            found, rest = 0, b""
            while found < AT_ONCE:
                received = connection.recv(1 << 16)
                assert received, "the connection is closed"
                found += (rest + received).count(b'{"status":"ok"}')
                rest = received[-14:]


def dropped(url: str) -> float:
    headers = {"Authorization": f"Bearer {METRICS_TOKEN}"}
    text = httpx2.get(f"{url}/metrics", headers=headers, timeout=PATIENCE_SECONDS).text
    return read(text)["nanobanana_log_lines_dropped"].get((), 0)


@pytest.mark.parametrize("workers", ["1", "2"])
def test_a_server_whose_output_nobody_reads_answers_and_stops(
    tmp_path: Path, database_url: str, redis_url: str, pipe: tuple[int, int], workers: str
) -> None:
    settings = {"DATABASE_URL": database_url, "REDIS_URL": redis_url, "METRICS_TOKEN": METRICS_TOKEN, **EVERY_PROBE}
    with serving(tmp_path, Launch(stderr=pipe[1]), WORKERS=workers, **settings) as (process, said):
        url = url_of(said)
        answered(url, 2000)
        while not dropped(url):
            answered(url, 2000)
        assert httpx2.get(f"{url}/health", timeout=PATIENCE_SECONDS).status_code == 200
        process.terminate()
        assert process.wait(PATIENCE_SECONDS) == 143
    assert processes_of(tmp_path) == []


@pytest.mark.parametrize("workers", ["1", "2"])
def test_every_line_is_written_until_the_server_has_stopped_if_it_is_read(
    tmp_path: Path, database_url: str, redis_url: str, workers: str
) -> None:
    settings = {"DATABASE_URL": database_url, "REDIS_URL": redis_url, "WORKERS": workers, **EVERY_PROBE}
    to_read, to_write = small_pipe()
    with ThreadPoolExecutor() as pool, serving(tmp_path, Launch(stderr=to_write), **settings) as (process, said):
        os.close(to_write)
        reading = pool.submit(list, read_lines(to_read))
        answered(url_of(said), 2000)
        process.terminate()
        assert len([line for line in reading.result(PATIENCE_SECONDS) if line.get("route") == "/health"]) == 2000
    os.close(to_read)
