"""`python -m tests.chaos.mutants NAME serve`: the program with a defect that the fault tests must find."""

import sys
from collections.abc import Sequence
from typing import Any
from unittest.mock import patch

from app import cli
from app.generations.errors import InvalidApiKey
from app.generations.ledger.queue import PendingRecord
from app.generations.ledger.writer import StatementLostError, StatementRefusedError, Writer

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


MUTANTS = {
    "lost-is-refused": ("_fetch", _lost_is_refused),
    "missing-is-revoked": ("_resolve", _missing_is_revoked),
}

if __name__ == "__main__":
    with patch.object(Writer, *MUTANTS[sys.argv.pop(1)]):
        cli.main()
