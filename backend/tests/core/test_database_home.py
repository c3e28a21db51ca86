"""A database over TCP is used whatever HOME is: what cannot be read in it is not looked for."""

import asyncio
import json
import sys
from pathlib import Path

import pytest
from app.core.database_connection import ConnectionOptions, connect
from app.core.database_tls import DatabaseUrlError
from app.core.database_url import parse_database_url
from tests.core.database_ways import Way
from tests.core.embedded_servers import AS_ORDINARY_USER
from tests.standins.postgres import standby
from tests.test_cli import SECRET, environment

CHECK_WITH_EACH_HOME = """
import json, os, sys
from app.cli import main

for home, query in json.loads(sys.argv[1]):
    os.environ.pop("HOME", None)
    os.environ.update({} if home is None else {"HOME": home}, DATABASE_URL=sys.argv[2] + query)
    try:
        main(["check"])
    except SystemExit:
        pass
"""


async def test_a_home_that_cannot_be_read_or_is_missing_keeps_nobody_from_a_database_over_tcp(
    database_url: str, tmp_path: Path
) -> None:
    (tmp_path / "closed").mkdir(mode=0)
    (tmp_path / "data").mkdir()
    way = Way(database_url)
    closed = str(tmp_path / "closed")
    cases = [(closed, ""), (closed, "?sslmode=require"), (str(tmp_path / "missing"), ""), (None, "")]
    async with way.open():
        script = (sys.executable, "-c", CHECK_WITH_EACH_HOME, json.dumps(cases), way.url.partition("?")[0])
        checking = await asyncio.create_subprocess_exec(
            *AS_ORDINARY_USER,
            *script,
            env=environment(tmp_path / "data", SECRET_KEY=SECRET),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
        )
        said, errors = await checking.communicate()
    assert errors.decode() == ""
    without_tls = "The database of DATABASE_URL speaks no TLS, which its sslmode asks for."
    results = [line for line in said.decode().splitlines() if line.startswith("database: ")]
    assert results == ["database: ok", f"database: {without_tls}", "database: ok", "database: ok"]


@pytest.mark.parametrize(
    ("content", "is_read"),
    [
        (b"# host:port\n\n*:*:*:*:a\\:b\\\\:c\n", True),
        (b"127.0.0.1:1:n\n", False),
        (b"h:1:n:u\\:p\n", False),
        (b"h:1:\xe9:u:p\n", False),
    ],
)
async def test_a_file_of_passwords_is_read_or_refused_in_one_sentence(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes, *, is_read: bool
) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (file := tmp_path / ".pgpass").write_bytes(content)
    file.chmod(0o600)
    async with standby() as port:
        url = f"postgresql://u@127.0.0.1:{port}/n?sslmode=disable"
        if is_read:
            connection = await connect(parse_database_url(url), ConnectionOptions(settings={}, is_shared=True))
            await connection.close()
        else:
            with pytest.raises(DatabaseUrlError, match="has no password, and a line in the passfile is not host:port"):
                parse_database_url(url)
            parse_database_url(url.replace("u@", "u:password@"))
