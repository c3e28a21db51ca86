"""`python -m tests.chaos.mutants NAME serve`: the program with a defect that the fault tests must find."""

import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from typing import Any
from unittest.mock import patch

from app import cli
from app.generations.errors import InvalidApiKey
from app.generations.ledger.connection import StatementLostError, StatementRefusedError
from app.generations.ledger.queue import PendingRecord
from app.generations.ledger.statements import SETTLE, Statement
from app.generations.ledger.writer import Writer

_fetch = vars(Writer)["_fetch"]


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


def _settling(changes: Mapping[str, str]) -> Callable[..., Coroutine[Any, Any, Any]]:
    """Settles by the statement with these parts changed."""
    text = SETTLE.text
    for part, changed in changes.items():
        assert part in text, part
        text = text.replace(part, changed)
    mutant = replace(SETTLE, text=text)

    async def fetch(writer: Writer, connection: object, statement: Statement, **values: Any) -> Any:
        return await _fetch(writer, connection, mutant if statement is SETTLE else statement, **values)

    return fetch


MUTANTS = {
    "lost-is-refused": ("_fetch", _lost_is_refused),
    "missing-is-revoked": ("_resolve", _missing_is_revoked),
    "fallback-counts-twice": (
        "_fetch",
        _settling(
            {"g.cost, g.delivered_at": "g.cost, g.tries, g.delivered_at", "model, count(*)": "model, sum(tries)"}
        ),
    ),
    "settlement-forgets-cost": ("_fetch", _settling({", cost = u.cost + excluded.cost": ""})),
}

if __name__ == "__main__":
    with patch.object(Writer, *MUTANTS[sys.argv.pop(1)]):
        cli.main()
