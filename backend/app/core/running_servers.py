"""The servers that run on a DATA_DIR, and how their reloads ended: each has a file there, for `nanobanana reload`."""

import json
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from app.core import files
from app.core.logs import logger
from app.core.processes import started_at

_NAMES = "server-*.json"


@dataclass(frozen=True)
class RunningServer:
    """A server by its first process. Its reloads are numbered from 1, and one ends before the next begins."""

    pid: int
    started: str | None
    address: str
    reloads_begun: int = 0
    reloads_ended: int = 0
    is_refused: bool = False
    """Whether the last reload that ended has changed nothing, or not everything."""
    sentence: str = ""
    """How the last reload ended, for the operator."""

    @property
    def is_running(self) -> bool:
        """Whether the process is there: after a `kill -9` its file may outlive it."""
        return self.started is not None and started_at(self.pid) == self.started


class ServerRecord:
    """The file of this process."""

    def __init__(self, data_dir: Path, address: str) -> None:
        self._server = RunningServer(os.getpid(), started_at(os.getpid()), address)
        self._file = data_dir / f"server-{self._server.pid}.json"
        self._is_published = False

    @contextmanager
    def published(self) -> Iterator[None]:
        """The file is there for the length of the `with`, and those of servers that were killed are not any more. Where
        DATA_DIR cannot be written there is none, and the log says so.
        """
        try:
            files.make_folder(self._file.parent)
            for file in self._file.parent.glob(_NAMES):
                if not ((server := _read(file)) and server.is_running):
                    file.unlink(missing_ok=True)
            files.write(self._file, self._content())
            self._is_published = True
        except OSError as error:
            logger.warning("reload_only_by_signal", reason=error.strerror)
        try:
            yield
        finally:
            with suppress(OSError):
                self._file.unlink(missing_ok=True)

    def begin(self) -> None:
        """A reload begins."""
        self._write(replace(self._server, reloads_begun=self._server.reloads_begun + 1))

    def end(self, sentence: str, *, is_refused: bool) -> None:
        """The reload that began last has ended."""
        ended = self._server.reloads_begun
        self._write(replace(self._server, reloads_ended=ended, is_refused=is_refused, sentence=sentence))

    def _write(self, server: RunningServer) -> None:
        self._server = server
        if self._is_published:
            try:
                files.write(self._file, self._content())
            except OSError as error:
                logger.warning("reload_not_recorded", reason=error.strerror)

    def _content(self) -> bytes:
        return json.dumps(asdict(self._server)).encode()


def running_servers(data_dir: Path) -> Sequence[RunningServer]:
    """The servers that run on the folder."""
    found = (_read(file) for file in sorted(data_dir.glob(_NAMES)))
    return [server for server in found if server and server.is_running]


def read_again(server: RunningServer, data_dir: Path) -> RunningServer | None:
    """The server as its file has it now; None where it does not run any more."""
    return next((each for each in running_servers(data_dir) if each.pid == server.pid), None)


def _read(file: Path) -> RunningServer | None:
    with suppress(OSError, ValueError, TypeError):
        return RunningServer(**json.loads(files.read(file)))
    return None
