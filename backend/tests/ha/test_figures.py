"""The instrument itself: each figure counts what it says."""

from dataclasses import astuple

import asyncpg
from tests.chaos.load import Call
from tests.ha.figures import measure

JOURNAL = [
    Call("key", "recorded", "ok", ["gen_1"], 200, received=2),
    Call("key", "again", "unknown", (), 503, "outcome_unknown", received=6),
    Call("key", "again", "ok", ["gen_2"], 200, received=7),
    Call("key", "lost", "ok", ["gen_3"], 200, received=8),
    Call("key", "refused", "fail", (), 503, "unavailable", received=8),
    Call("key", "refused, yet recorded", "fail", (), 503, "unavailable", received=8),
    Call("key", "unknown", "unknown", (), 503, "outcome_unknown", received=9),
    Call("key", "unknown, and recorded", "unknown", (), 503, "outcome_unknown", received=9),
    Call("key", "a defect", "fail", (), 500, "internal_error", received=9),
    Call("key", "revoked", "fail", (), 401, "invalid_api_key", received=9),
]
RECORDED = {"gen_1": "recorded", "gen_2": "again", "gen_4": "refused, yet recorded", "gen_5": "unknown, and recorded"}


class Recorded:
    """A database with these rows."""

    def __init__(self, url: str) -> None:
        self._url = url

    async def connect(self) -> asyncpg.Connection:
        connection = await asyncpg.connect(self._url)
        await connection.execute("create temporary table generations (id text, prompt text, key_id text, status text)")
        rows = [(each, prompt, "key", "delivered") for each, prompt in RECORDED.items()]
        await connection.executemany("insert into generations values ($1, $2, $3, $4)", rows)
        return connection

    def deadlocks(self) -> int:
        return 0


async def test_each_figure_counts_what_it_says(database_url: str) -> None:
    figures = await measure(Recorded(database_url.replace("+asyncpg", "")), JOURNAL, since=1)
    assert astuple(figures) == (5, 3, 2, 2, 1, 1, 1, 1)
