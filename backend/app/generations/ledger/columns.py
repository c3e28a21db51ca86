"""The rows of a batch as the columns that its statement takes."""

from collections.abc import Collection, Sequence
from typing import Any

from app.generations.ledger.queue import (
    RECORD_DEFAULTS,
    PendingRecord,
    PendingSettlement,
    QueuedRow,
    RecordRow,
    SettleRow,
)


def columns(
    row: type[RecordRow] | type[QueuedRow] | type[SettleRow],
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
        name.rstrip("_"): None
        if values.count(RECORD_DEFAULTS.get(name)) == len(values)
        else _text_of(values)
        if name in words
        else values
        for name, values in zip(row._fields, found, strict=True)
    }


def _text_of(words: Sequence[str | int]) -> str:
    text = " ".join(map(str, words))
    if text.count(" ") != len(words) - 1:
        raise ValueError("a word of a record has a space in it")
    return text
