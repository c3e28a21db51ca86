"""Which worker of a running server is who, as its kernel tells it: to whoever started it, and to other processes."""

import asyncio
from collections.abc import Collection, Sequence
from contextlib import suppress

from app.core.processes import PROC
from tests.harness import looks

LOOK_SECONDS = 0.05


class Workers:
    """The workers of the server whose first process is `parent`."""

    def __init__(self, parent: int, *, port: int, size: int) -> None:
        self.parent = parent
        self.port = port
        self.size = size

    def workers(self) -> Sequence[int]:
        """Who answers requests: the children that uvicorn spawned, or with one worker the process itself."""
        if self.size == 1:
            return [self.parent]
        mine = [pid for pid in _children(self.parent) if b"spawn_main" in _command(pid)]
        return sorted(mine)

    def holders(self) -> dict[int, int]:
        """Which worker holds the connection that a client has from this port: those that were accepted."""
        return {there: worker for worker, here, there in self._connections() if here == self.port}

    def owner_of(self, outgoing: int) -> int:
        """The worker whose connection to somewhere leaves from this port."""
        return next(worker for worker, here, _ in self._connections() if here == outgoing)

    def connections_to(self, port: int) -> Collection[tuple[int, int, int]]:
        """The connections of all workers to this port."""
        return {each for each in self._connections() if each[2] == port}

    async def have_left(self, connections: Collection[tuple[int, int, int]]) -> None:
        """Returns once every worker has seen that these are gone. It may try to make new ones all the time."""
        for _ in looks():
            if not {*connections} & {*self._connections()}:
                return
            await asyncio.sleep(LOOK_SECONDS)
        raise AssertionError("a worker still holds one")

    def _connections(self) -> Sequence[tuple[int, int, int]]:
        """Worker, its port, the other's port."""
        ports = {}
        for line in (PROC / "net/tcp").read_text().splitlines()[1:]:
            _, local, remote, *rest = line.split()
            ports[f"socket:[{rest[6]}]"] = int(local.partition(":")[2], 16), int(remote.partition(":")[2], 16)
        held = [(link, worker) for worker in self.workers() for link in _open_files(worker)]
        return [(worker, *ports[link]) for link, worker in held if link in ports]


def _children(parent: int) -> Sequence[int]:
    found = []
    for folder in PROC.glob("[0-9]*"):
        with suppress(OSError):
            status, ppid = (folder / "stat").read_text().rpartition(")")[2].split()[:2]
            if int(ppid) == parent and status != "Z":
                found.append(int(folder.name))
    return found


def _command(pid: int) -> bytes:
    with suppress(OSError):
        return (PROC / str(pid) / "cmdline").read_bytes()
    return b""


def _open_files(pid: int) -> set[str]:
    links = set()
    with suppress(OSError):
        for link in (PROC / str(pid) / "fd").iterdir():
            with suppress(OSError):
                links.add(str(link.readlink()))
    return links
