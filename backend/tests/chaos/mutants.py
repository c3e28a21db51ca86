"""`python -m tests.chaos.mutants NAME serve`: the program with a defect that the fault tests must find. `late-to-send`
is slow, `reports-without-pause` is fast, and neither has one.
"""

import asyncio
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any
from unittest.mock import patch

from app import cli
from app.billing import reporter, tasks
from app.generations.errors import InvalidApiKey
from app.generations.jobs.drawing import JobDrawing
from app.generations.ledger import Ledger, writer
from app.generations.ledger.connection import LedgerConnection, StatementLostError, StatementRefusedError
from app.generations.ledger.queue import PendingRecord
from app.generations.ledger.statements import Statement
from app.generations.ledger.verdicts import refusal_of
from app.generations.ledger.writer import Writer

LATE_SECONDS = 2
_NAME = "MUTANT"  # which no setting has as its name
_fetch = vars(LedgerConnection)["_fetch"]
_decide: Callable[..., bool] = vars(writer)["_decide"]
_mark_sent = Ledger.mark_sent


async def _lost_is_refused(itself: Writer, *statement: Any, **values: Any) -> Any:
    try:
        return await _fetch(itself, *statement, **values)
    except StatementLostError:
        raise StatementRefusedError("57P01") from None


async def _missing_is_revoked(
    _writer: Writer, _connection: object, in_doubt: Sequence[tuple[PendingRecord, object]]
) -> None:
    for record, _ in in_doubt:
        record.fail(InvalidApiKey())


async def _mark_nothing(*_: object) -> None:
    pass


async def _mark_late(*sent: Any) -> None:
    await asyncio.sleep(LATE_SECONDS)
    await _mark_sent(*sent)


Change = tuple[object, str, object]


def _with(name: str, changes: Mapping[str, str]) -> Change:
    """The statement of this name with these parts changed."""
    return _with_each([name], changes)


def _with_each(names: Sequence[str], changes: Mapping[str, str]) -> Change:
    """The same of several statements."""
    mutants = {}
    for name in names:
        statement = Statement.load(name)
        text = statement.text
        for part, changed in changes.items():
            assert part in text, part
            text = text.replace(part, changed)
        mutants[name] = replace(statement, text=text)

    async def fetch(itself: Writer, connection: object, statement: Statement, **values: Any) -> Any:
        return await _fetch(itself, connection, mutants.get(statement.name, statement), **values)

    return Writer, "_fetch", fetch


def _refuse_at_once(record: PendingRecord, row: Any, *, was_sent: bool) -> bool:
    """Without a look at what an earlier send may have recorded."""
    if row["created_at"] is None and (refusal := refusal_of(row)) is not None:
        record.fail(refusal)
        return True
    return _decide(record, row, was_sent=was_sent)


_WITHOUT_PAUSE: Change = (tasks, "_MINUTE", 0.05)
_REMEMBERED = "tried_at > clock_timestamp() - interval '23 hours'"
_TRY: str = vars(reporter)["_TRY"]
assert _REMEMBERED in _TRY

_RECORDING, _SETTLING = ("record_priced", "record_queued_priced"), ("settle_priced", "settle_jobs_priced")
MUTANTS: Mapping[str, Sequence[Change]] = {
    "lost-is-refused": [(Writer, "_fetch", _lost_is_refused)],
    "missing-is-revoked": [(Writer, "_resolve", _missing_is_revoked)],
    "fallback-counts-twice": [
        _with(
            "settle",
            {"g.cost, g.delivered_at": "g.cost, g.tries, g.delivered_at", "model, count(*)": "model, sum(tries)"},
        )
    ],
    "settlement-forgets-cost": [_with("settle", {", cost = u.cost + excluded.cost": ""})],
    "takes-without-lock": [
        _with(
            "take_jobs",
            {"for no key update skip locked\n), rounds": "\n), rounds", "  for no key update of w\n": "\n"},
        )
    ],
    "sends-without-mark": [(Ledger, "mark_sent", _mark_nothing)],
    "requeues-what-was-sent": [_with("sweep_jobs", {"when g.sent_at is not null and": "when false and"})],
    "gives-back-what-was-sent": [
        (JobDrawing, "is_sent", False),
        _with("give_back_jobs", {" and g.sent_at is null": ""}),
    ],
    "counts-what-was-admitted": [
        _with("record_queued_priced", {"from written group by 1, 2, 3\n)": "from admitted group by 1, 2, 3\n)"})
    ],
    "room-without-lock": [_with_each(_RECORDING, {"order by b.account_id for no key update": "order by b.account_id"})],
    "refuses-without-look": [(writer, "_decide", _refuse_at_once)],
    "holds-what-was-admitted": [_with_each(_RECORDING, {"key_id, price from written": "key_id, price from admitted"})],
    "releases-without-status": [_with_each(_SETTLING, {" and g.status = 'processing'": ""})],
    "reports-what-is-forgotten": [_WITHOUT_PAUSE, (reporter, "_TRY", _TRY.replace(_REMEMBERED, "true"))],
    "reports-without-pause": [_WITHOUT_PAUSE],
    "late-to-send": [(Ledger, "mark_sent", _mark_late)],
}

if __name__ in {"__main__", "__mp_main__"}:  # the latter is in the workers that a server with several of them spawns
    if __name__ == "__main__":
        os.environ[_NAME] = sys.argv.pop(1)
    for change in MUTANTS[os.environ[_NAME]]:
        patch.object(*change).start()
    if __name__ == "__main__":
        cli.main()
