"""The position from which a list is read on."""

import json
from base64 import urlsafe_b64decode, urlsafe_b64encode
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Self


@dataclass(frozen=True, slots=True)
class Cursor:
    """The position behind a row in a list that is ordered by time, newest first, and by id among rows of one time. Rows
    that are inserted or deleted meanwhile do not shift it.
    """

    created_at: datetime
    id: str

    @classmethod
    def read(cls, text: str) -> Self:
        """The cursor that `str` wrote. Raises ValueError for any other text."""
        try:
            created_at, row_id = json.loads(urlsafe_b64decode(text.encode("ascii")))
            cursor = cls(datetime.fromisoformat(created_at), row_id)
            sound = str(cursor) == text and cursor.created_at.utcoffset() == timedelta() and row_id.isascii()
        except (ValueError, TypeError, AttributeError, RecursionError):
            sound = False
        if not sound or "\0" in cursor.id:
            raise ValueError("must be one that a Link header gave")
        return cursor

    def __str__(self) -> str:
        return urlsafe_b64encode(json.dumps([self.created_at.isoformat(), self.id]).encode()).decode()
