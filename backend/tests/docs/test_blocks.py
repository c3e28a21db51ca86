"""Every command block of the documentation is run as it stands: against one server, in bash, each with an account of
its own. A block that cannot be run here says so in a comment above it (tests/docs/blocks.py).
"""

import asyncio
import json
import os
import re
import secrets
import socketserver
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import httpx2
import pytest
from app.cli import main
from app.core.security import time_prefix
from app.core.settings import Settings
from click.testing import CliRunner
from pydantic import SecretStr
from tests.docs.blocks import Block, blocks, is_left_out, pages
from tests.docs.settings_pages import ROOT
from tests.features.uploads.test_uploads import png, uploaded
from tests.harness import PASSWORD, fresh_database, generate, new_email, on_server, running, sign_up
from tests.test_cli import environment
from tests.version_before.history import connected

ADVICE = (
    "Every command block of the documentation is run by tests/docs/test_blocks.py. Mend the block or the program; or "
    "give the test what the block needs, in `_prepared` or ENVIRONMENT; or put a comment right above the block: "
    "<!-- run by tests/file.py::test_name -->, or <!-- not run: REASON --> with one of the reasons in "
    "tests/docs/blocks.py; or at the head of a page: <!-- all commands run by tests/file.py -->."
)
ENVIRONMENT = {"IMAGE_RETENTION_DAYS": "30", "LEDGER_RETENTION_DAYS": "90"}
"""Settings that commands of the blocks need."""

# Of an answer that is no success curl returns an error; make says what it would do, and knows each target; `nanobanana`
# runs in this process, which is quicker than another.
_PROGRAMS = {
    "curl": '#!/bin/bash\nexec /usr/bin/env PATH="${PATH#*:}" curl --fail-with-body -sS "$@"\n',
    "make": f'#!/bin/bash\nexec /usr/bin/env PATH="${{PATH#*:}}" make --dry-run -C "{ROOT}" "$@"\n',
    "nanobanana": f"""#!{sys.executable} -IS
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as there:
    there.connect(os.environ["NANOBANANA_SOCKET"])
    there.sendall(json.dumps([sys.argv[1:], dict(os.environ), sys.stdin.read()]).encode())
    there.shutdown(socket.SHUT_WR)
    status, out, err = json.load(there.makefile())
sys.stdout.write(out)
sys.stderr.write(err)
sys.exit(status)
""",
}
_FIELD = """field() { sed 's/.*"'"$1"'":"\\([^"]*\\)".*/\\1/'; }\n"""
_LOG_IN = '"$(curl $URL/v1/auth/login -H "$JSON" -d "$ACCOUNT" | field access_token)"'
_NEW_KEY = """curl $URL/v1/keys -H "Authorization: Bearer $TOKEN" -H "$JSON" -d '{"name":"a key"}'"""
_NEW_IMAGE = """curl $URL/v1/generate -H "Authorization: Bearer $KEY" -H "$JSON" -d '{"prompt":"A cute banana"}'"""
_PLACEHOLDERS = {
    "'...the access_token...'": _LOG_IN,
    "'...the new access_token...'": _LOG_IN.replace('"$ACCOUNT"', '"${ACCOUNT/' + PASSWORD + '/a banana is a berry}"'),
    "'...the key...'": f'"$({_NEW_KEY} | field key)"',
    "key_... ": f'"$({_NEW_KEY} | field id)" ',
    "gen_.... ": f'"$({_NEW_IMAGE} | field id)" ',
    'gen_..."': f"""'"$({_NEW_IMAGE} | field id)"'\"""",
    "gen_... ": f'"$({_NEW_IMAGE} | field id)" ',
    "gen_....png": f'"$({_NEW_IMAGE} | field id)".png',
}
"""What a reader fills in by hand, from the answer before."""


class _Handler(socketserver.StreamRequestHandler):
    """Runs one command."""

    def handle(self) -> None:
        arguments, variables, given = json.load(self.rfile)
        status, out, err = 0, "", ""
        if arguments != ["serve"]:  # the server of this test runs already
            everything = {**dict.fromkeys(os.environ), **variables}
            done = CliRunner().invoke(main, arguments, env=everything, input=given)
            status, out, err = done.exit_code, done.stdout, done.stderr
        self.wfile.write(json.dumps([status, out, err]).encode())


@contextmanager
def programs(folder: Path) -> Iterator[dict[str, str]]:
    """The variables with which a shell finds the programs of blocks."""
    for name, text in _PROGRAMS.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    with socketserver.UnixStreamServer(str(folder / "socket"), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            yield {"PATH": f"{folder}:{os.environ['PATH']}", "NANOBANANA_SOCKET": str(folder / "socket")}
        finally:
            server.shutdown()
            thread.join()


@dataclass(frozen=True)
class Shop:
    """A running server, and the environment of its operator."""

    client: httpx2.AsyncClient
    variables: dict[str, str]

    async def run(self, block: Block, folder: Path) -> None:
        """Runs a block of shell commands, in which what stands for something is replaced by it."""
        script, variables = await self._prepared(block)
        await asyncio.to_thread((folder / "photo.jpg").write_bytes, png())
        command = ["bash", "-euo", "pipefail", "-c", _FIELD + script]
        done = await asyncio.to_thread(
            subprocess.run,
            command,
            cwd=folder,
            env={**self.variables, **variables},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            check=False,
        )
        assert done.returncode == 0, f"{block} fails. {ADVICE}\n\n{script}\n\n{done.stdout}{done.stderr}"

    async def _prepared(self, block: Block) -> tuple[str, dict[str, str]]:
        account = await sign_up(self.client)
        key = await account.create_key()
        made = (await generate(self.client, key)).json()["id"]
        sent = await uploaded(self.client, key) if "upl_" in block.text else ""
        url = str(self.client.base_url).rstrip("/")
        email = new_email() if "/v1/auth/register" in block.text else account.email
        examples = {
            "http://127.0.0.1:8000": url,
            "ada@example.com": email,
            "you@example.com": email,
            "key_28fm63cjp43w44255s68": key.id,
            "gen_01kapn5vfe28fm63cjp43w44255s68": made,
            "upl_01kapn5vfe28fm63cjp43w44255s68": sent,
            "scripts/manual-test.sh": f'PATH="${{PATH#*:}}" {ROOT}/scripts/manual-test.sh {url}',
            **_PLACEHOLDERS,
        }
        script = block.script
        for example, value in examples.items():
            script = script.replace(example, value)
        return script, {"TOKEN": account.token, "KEY": key.raw}


@pytest.fixture(scope="module")
def shop_url(server_url: str, migrated_url: str) -> Iterator[str]:
    """A database for the blocks alone."""
    with fresh_database(server_url, copy_of=migrated_url) as url:
        yield url


@pytest.fixture(scope="module")
async def shop(shop_url: str, settings: Settings, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Shop]:
    changed = settings.model_copy(update={"database_url": SecretStr(shop_url)})
    variables = environment(settings.data_dir, DATABASE_URL=shop_url, **ENVIRONMENT)
    with programs(tmp_path_factory.mktemp("programs")) as found:
        async with running(changed, at_its_own_url=True) as client:
            yield Shop(client, {**variables, **found})


@pytest.mark.parametrize("block", [each for each in blocks() if each.language != "sql"], ids=str)
async def test_a_block_of_shell_commands_runs_as_it_stands(block: Block, shop: Shop, tmp_path: Path) -> None:
    if not is_left_out(block):
        await shop.run(block, tmp_path)


async def test_the_block_that_asks_until_a_generation_has_ended_ends_with_a_word_where_the_key_is_wrong(
    shop: Shop, tmp_path: Path
) -> None:
    [block] = [each for each in blocks() if each.page.name == "clients.md" and "?wait=" in each.script]
    script = block.script.replace("http://127.0.0.1:8000", str(shop.client.base_url).rstrip("/"))
    variables = {"PATH": os.environ["PATH"], "KEY": "nb_live_" + "0" * 32}
    command = ["bash", "-c", script]
    done = await asyncio.to_thread(
        subprocess.run, command, cwd=tmp_path, env=variables, capture_output=True, text=True, timeout=60, check=False
    )
    assert (done.returncode, done.stdout) == (22, "")
    assert done.stderr == "curl: (22) The requested URL returned error: 401\n"


@pytest.mark.parametrize("block", [each for each in blocks() if each.language == "sql"], ids=str)
async def test_a_block_of_sql_runs_as_it_stands(block: Block, new_database_url: str) -> None:
    """On a new database; roles, databases and months of the example get names of their own."""
    if is_left_out(block):
        return
    name, month = f"nanobanana_{secrets.token_hex(4)}", (datetime.now(UTC) + timedelta(days=400)).replace(day=1)
    low, high = time_prefix("gen", month), time_prefix("gen", month + timedelta(days=28))
    script = re.sub(r"\bnanobanana\b", name, block.text).replace("2027_03", f"{month:%Y_%m}")
    script = script.replace("gen_01mfz66200", low).replace("gen_01mjf0gb00", high)
    if needs_role := f"to {name}" in script and f"create role {name}" not in script:
        await asyncio.to_thread(on_server, new_database_url, f"create role {name}")
    async with connected(new_database_url) as database:
        for statement in filter(None, map(str.strip, re.sub(r"--.*", "", script).split(";"))):
            await database.execute(statement)
        if needs_role:
            await database.execute(f"drop owned by {name}; drop role {name}")
    for kind in ("database", "role"):
        if f"create {kind} {name}" in script:
            await asyncio.to_thread(on_server, new_database_url, f"drop {kind} {name}")


@pytest.mark.parametrize("page", pages(), ids=lambda page: page.name)
def test_commands_stand_in_blocks_that_name_their_language(page: Path) -> None:
    for language, text in re.findall(r"^ *```(\w*)\n(.*?)^ *```$", page.read_text(), re.MULTILINE | re.DOTALL):
        if language in {"", "text"}:
            assert not re.search(r"^(?:\$ |curl |make |nanobanana |sudo )", text, re.MULTILINE), text


def test_a_block_that_is_left_out_has_a_reason_or_a_test_that_exists() -> None:
    page = ROOT / "README.md"
    assert is_left_out(Block(page, 1, "bash", "", "not run: it needs root"))
    assert is_left_out(Block(page, 1, "bash", "", "run by tests/docs/blocks.py::is_left_out"))
    assert not is_left_out(Block(page, 1, "bash", "", "settings: made by make settings-docs"))
    for note in ("not run: no time", "run by tests/nothing.py", "run by tests/docs/blocks.py::nothing"):
        with pytest.raises(AssertionError):
            is_left_out(Block(page, 1, "bash", "", note))


async def test_a_command_that_fails_and_a_call_that_is_refused_fail_their_block(shop: Shop, tmp_path: Path) -> None:
    for script in (
        "nanobanana accounts disable nobody@example.com",
        "curl http://127.0.0.1:8000/v1/nothing",
        "make nothing",
        "false\ntrue",
    ):
        with pytest.raises(AssertionError, match="Every command block"):
            await shop.run(Block(ROOT / "README.md", 1, "bash", script, ""), tmp_path)
