"""`python -m tests.chaos.mutants NAME serve`: the program with a defect that the fault tests must find."""

import sys
from collections.abc import Sequence
from typing import Any
from unittest.mock import patch

from app import cli
from app.features.keys.service import InvalidApiKey
from app.features.usage.ledger.entries import Entry
from app.features.usage.ledger.writer import StatementLostError, StatementRefusedError, Writer

_fetch = vars(Writer)["_fetch"]


async def _lost_is_refused(writer: Writer, *statement: Any) -> Any:
    try:
        return await _fetch(writer, *statement)
    except StatementLostError:
        raise StatementRefusedError("57P01") from None


async def _missing_is_revoked(
    _writer: Writer, _connection: object, doubts: Sequence[tuple[Entry, bool | None]]
) -> None:
    for entry, _ in doubts:
        entry.fail(InvalidApiKey())


MUTANTS = {
    "lost-is-refused": ("_fetch", _lost_is_refused),
    "missing-is-revoked": ("_resolve", _missing_is_revoked),
}

if __name__ == "__main__":
    with patch.object(Writer, *MUTANTS[sys.argv.pop(1)]):
        cli.main()
