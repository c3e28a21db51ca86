"""The rows of a batch as the columns that its statement takes."""

from collections.abc import Collection, Sequence
from typing import Any, NamedTuple

from app.generations.ledger.queue import (
    RECORD_DEFAULTS,
    PendingRecord,
    PendingSettlement,
    QueuedRow,
    RecordRow,
    SettleRow,
)


class _Column(NamedTuple):
    """A field of a row: the parameter that takes its values, and the value that they have as a rule."""

    parameter: str
    default: str | int | None


_Row = type[RecordRow] | type[QueuedRow] | type[SettleRow]
_ROWS: Sequence[_Row] = (RecordRow, QueuedRow, SettleRow)
_COLUMNS = {row: [_Column(name.rstrip("_"), RECORD_DEFAULTS.get(name)) for name in row._fields] for row in _ROWS}


def columns(
    row: _Row,
    work: Sequence[PendingRecord] | Sequence[PendingSettlement],
    *,
    words: Collection[str] = (),
) -> dict[str, Sequence[Any] | None]:
    """The rows of this work by column: the name of a parameter, and its values, those of `words` as one text.

    Without any value, or with nothing but defaults, it is None, from which `unnest` makes nulls: the driver encodes an
    array value by value.
    """
    found = zip(*[each for pending in work for each in pending.rows], strict=True)
    return {
        parameter: None
        if values[0] == default and values.count(default) == len(values)
        else _text_of(values)
        if parameter in words
        else values
        for (parameter, default), values in zip(_COLUMNS[row], found, strict=True)
    }


def _text_of(words: Sequence[str | int]) -> str:
    text = " ".join(map(str, words))
    if text.count(" ") != len(words) - 1:
        raise ValueError("a word of a record has a space in it")
    return text
