"""A real PgBouncer in front of a database, where one is installed."""

import asyncio
import os
import pwd
import subprocess
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from sqlalchemy.engine import make_url
from tests.core.database_ways import Way
from tests.harness import free_port, looks, port_is_open
from tests.proxies.programs import program

PROGRAM = program("pgbouncer")

# As it is installed, but for the mode and the size of its pool: no start parameters are ignored.
_CONFIGURATION = """
[databases]
{database} = host=127.0.0.1 port={behind} dbname={database} user={user} password={password}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = any
pool_mode = {mode}
default_pool_size = {pool_size}
server_round_robin = {round_robin}
"""


@asynccontextmanager
async def pgbouncer(
    database_url: str, *, mode: str, pool_size: int = 20, round_robin: bool = False
) -> AsyncIterator[str]:
    """The URL of the database through a PgBouncer in this mode, whose pool has so many connections."""
    way, url, port = Way(database_url), make_url(database_url), free_port()
    configuration = _CONFIGURATION.format(
        database=url.database,
        behind=make_url(way.url).port,
        user=url.username,
        password=url.password,
        port=port,
        mode=mode,
        pool_size=pool_size,
        round_robin=int(round_robin),
    )
    with tempfile.TemporaryDirectory() as folder:
        async with way.open():
            process = _start(Path(folder, "pgbouncer.ini"), configuration)
            try:
                for _ in looks():
                    if port_is_open(port) or process.poll() is not None:
                        break
                assert process.poll() is None
                yield f"postgresql://somebody:hunter2@127.0.0.1:{port}/{url.database}"
            finally:
                process.terminate()
                await asyncio.to_thread(process.wait)


def _start(file: Path, configuration: str) -> "subprocess.Popen[bytes]":
    assert PROGRAM is not None
    file.write_text(configuration)
    account = None
    if os.geteuid() == 0:  # which it refuses to be
        nobody = pwd.getpwnam("nobody")
        account = nobody.pw_uid
        for each in (file.parent, file):
            os.chown(each, nobody.pw_uid, nobody.pw_gid)
    return subprocess.Popen([PROGRAM, "-q", str(file)], user=account, stderr=subprocess.DEVNULL)
