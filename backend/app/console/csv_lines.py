"""Lines of CSV files, for spreadsheets that evaluate a cell which looks like a formula."""

import csv
import unicodedata
from collections.abc import Iterable
from io import StringIO

_FORMULA_SIGNS = frozenset("=+-@\N{MINUS SIGN}")
_INVISIBLE = {"Cc", "Cf", "Zl", "Zp", "Zs"}  # categories of Unicode: control and format characters, separators
_LINE_SIGNS = ("\t", "\r", "\n")


def csv_lines(rows: Iterable[Iterable[object]]) -> str:
    """The rows as CSV (RFC 4180). A text that a spreadsheet could evaluate as a formula gets an apostrophe in front."""
    lines = StringIO()
    csv.writer(lines).writerows([_harmless(cell) if isinstance(cell, str) else cell for cell in row] for row in rows)
    return lines.getvalue()


def _harmless(text: str) -> str:
    # Full-width, small, superscript and other forms of a sign are the sign itself in Unicode's NFKC, and a spreadsheet
    # may take them for it, whatever invisible characters stand before them.
    first = next((each for each in text if unicodedata.category(each) not in _INVISIBLE), "")
    is_formula = text.startswith(_LINE_SIGNS) or unicodedata.normalize("NFKC", first)[:1] in _FORMULA_SIGNS
    return f"'{text}" if is_formula else text
