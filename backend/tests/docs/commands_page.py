"""docs/commands.md as a test reads it: its examples, and the database that they were made on."""

import re
import shlex
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path

import asyncpg
from tests.docs.settings_pages import ROOT
from tests.test_cli import nanobanana_in_here

PAGE = (ROOT / "docs" / "commands.md").read_text()
KEY = "nb_live_1234567890abcdef1234567890abcdef"
FILES = {"password.txt": "correct horse battery staple\n", "leaked.txt": f"{KEY}\n"}
"""What the files hold that the examples read."""

_SUFFIX = "28fm63cjp43w44255s68"
_ROWS = (
    ("insert into users (id, email, password_hash) values ($1, 'grace@example.com', 'none')", f"usr_{_SUFFIX}"),
    (
        """
        insert into api_keys (id, user_id, account_id, name, environment, prefix, key_hash, last_used_at)
        values ($1, 'usr_' || substr($1, 5), 'acc_' || substr($1, 5), 'website', 'live', $2, $3, now())
        """,
        f"key_{_SUFFIX}",
        KEY[:16],
        sha256(KEY.encode()).digest(),
    ),
    (
        """
        insert into generations (id, request_id, account_id, environment, key_id, model, provider, prompt, size, status,
          created_at, delivered_at, list_price, cost)
        select id, id, 'acc_' || $1, 'live', 'key_' || $1, 'nano-banana', 'stub', 'A cute banana', '64x64', 'delivered',
          at, at, 50000, 39000
        from (
          select 'gen_' || n || $1 as id, '2026-10-14T12:00Z'::timestamptz as at from generate_series(1, 3) n
        ) as made
        """,
        _SUFFIX,
    ),
    ("insert into usage values ($1, '2026-10-14', 3, 'nano-banana', 150000, 0, 117000)", f"key_{_SUFFIX}"),
    ("update deployment set currency = 'USD'",),
    (
        """
        insert into generations (id, request_id, account_id, environment, key_id, provider, prompt, size, status, error,
          attempts, sent_at, expires_at)
        select $1, $1, 'acc_' || substr($1, 15), 'live', 'key_' || substr($1, 15), 'openai', 'A cute banana', '64x64',
          'lost', 'lost', 1, now(), now()
        """,
        f"gen_01kapn5vfe{_SUFFIX}",
    ),
    ("insert into lanes (account_id, class) values ($1, 'now'), ($1, 'batch')", f"acc_{_SUFFIX}"),
    ("insert into lane_keys (account_id, class, key_id) values ($1, 'now', $2)", f"acc_{_SUFFIX}", f"key_{_SUFFIX}"),
    (
        "insert into invitations (id, token_hash, uses_max, expires_at) values ($1, $2, 1, now() + interval '7 days')",
        f"inv_{_SUFFIX}",
        sha256(b"").digest(),
    ),
)
_EXAMPLE = re.compile(r"^\$ (?P<command>.*)\n(?P<output>(?:(?!\$ ).*\n)*)", re.MULTILINE)
_DIFFER = {
    r"\b(acc|usr|key|inv|ent|op)_(?:[0-9a-z]{10})?[0-9a-z]{20}\b": r"\1",
    r"\d{4}-\d\d-\d\dT[\d:.]+Z": "TIME",
    r"(?<=password is )[\w-]{24}": "PASSWORD",
    r"(?<=invitation=)[\w-]{43}": "TOKEN",
    r"[\d.]+ GB": "SPACE",
    r" +": " ",
}
"""What differs from run to run, and what stands for it in a comparison."""


@dataclass(frozen=True)
class Example:
    """A command line of the page, and what it prints."""

    command: str
    output: str

    def run(self, folder: Path, database_url: str) -> str:
        """What the command prints here, on both of its outputs."""
        words = shlex.split(self.command)
        name = words.index("nanobanana")
        given = dict(word.split("=", 1) for word in words[:name])
        arguments, _, file = " ".join(words[name + 1 :]).partition(" < ")
        arguments, _, lines = arguments.partition(" | head -n ")
        settings = {**given, "DATABASE_URL": database_url, "PUBLIC_URL": "https://images.example.com"}
        done = nanobanana_in_here(folder, *arguments.split(), stdin=FILES[file] if file else "", **settings)
        return "".join((done.stdout + done.stderr).splitlines(keepends=True)[: int(lines) if lines else None])


def examples() -> Sequence[Example]:
    """All of them, in order."""
    blocks = re.findall(r"^```console\n(.*?)^```$", PAGE, re.MULTILINE | re.DOTALL)
    return [Example(**found.groupdict()) for block in blocks for found in _EXAMPLE.finditer(block)]


def comparable(output: str) -> str:
    """The output without what differs from run to run."""
    for pattern, stand_in in _DIFFER.items():
        output = re.sub(pattern, stand_in, output)
    return output


async def fill(database: asyncpg.Connection) -> None:
    """Writes what the examples begin with: an account with a key, three images of October 2026, and an invitation."""
    for statement, *arguments in _ROWS:
        await database.execute(str(statement), *arguments)
