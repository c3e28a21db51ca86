"""`python -m tests.chaos.mutants NAME serve`: the program with a defect that the fault tests must find. The last one is
slow and has none.
"""

import asyncio
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import ExitStack
from dataclasses import replace
from typing import Any
from unittest.mock import patch

from app import cli
from app.generations.errors import InvalidApiKey
from app.generations.jobs.drawing import JobDrawing
from app.generations.ledger import Ledger
from app.generations.ledger.connection import LedgerConnection, StatementLostError, StatementRefusedError
from app.generations.ledger.queue import PendingRecord
from app.generations.ledger.statements import Statement
from app.generations.ledger.writer import Writer

LATE_SECONDS = 2
_fetch = vars(LedgerConnection)["_fetch"]
_mark_sent = Ledger.mark_sent


async def _lost_is_refused(writer: Writer, *statement: Any, **values: Any) -> Any:
    try:
        return await _fetch(writer, *statement, **values)
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


def _with(name: str, changes: Mapping[str, str]) -> tuple[type, str, Callable[..., Coroutine[Any, Any, Any]]]:
    """The statement of this name with these parts changed."""
    original = Statement.load(name)
    text = original.text
    for part, changed in changes.items():
        assert part in text, part
        text = text.replace(part, changed)
    mutant = replace(original, text=text)

    async def fetch(writer: Writer, connection: object, statement: Statement, **values: Any) -> Any:
        return await _fetch(writer, connection, mutant if statement == original else statement, **values)

    return Writer, "_fetch", fetch


MUTANTS: Mapping[str, Sequence[tuple[type, str, object]]] = {
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
    "late-to-send": [(Ledger, "mark_sent", _mark_late)],
}

if __name__ == "__main__":
    with ExitStack() as stack:
        for change in MUTANTS[sys.argv.pop(1)]:
            stack.enter_context(patch.object(*change))
        cli.main()
