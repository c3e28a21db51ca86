"""The table of docs/reliability.md: what callers met of each fault. A run of all these tests writes it."""

import re
from collections.abc import Mapping, Sequence

from benchmarks.machine import machine
from tests.docs.settings_pages import ROOT
from tests.ha.cluster import WAYS
from tests.ha.faults import FAULTS
from tests.ha.figures import Figures

PAGE = ROOT / "docs" / "reliability.md"

_TABLE = re.compile(r"(<!-- results: written by make ha -->\n).*(<!-- end of results -->\n)", re.DOTALL)
_COLUMNS = (
    *("what happens", "the server has", "gap, s", "acknowledged", "refused", "outcome unknown (recorded)"),
    *("lost", "refused, yet recorded", "other errors"),
)
_HEAD = f"| {' | '.join(_COLUMNS)} |\n{'|---' * len(_COLUMNS)}|"

Results = dict[tuple[str, str], Figures]
"""The figures, by the names of the fault and of the way to the database."""


def rows() -> Sequence[tuple[str, ...]]:
    """The cells of each row of the page."""
    found = _TABLE.search(PAGE.read_text())
    assert found, "the marks of the table are gone"
    lines = [line for line in found[0].splitlines() if line.startswith("|")]
    return [tuple(cell.strip() for cell in line.strip("|").split("|")) for line in lines[2:]]


def write(results: Mapping[tuple[str, str], Figures]) -> None:
    """Writes the table, unless there is a fault without figures."""
    cases = [(fault.name, way) for fault in FAULTS for way in WAYS]
    if all(each in results for each in cases):
        table = "\n".join([f"`make ha`, {machine()}", "", _HEAD, *(row(*each, results[each]) for each in cases)])
        PAGE.write_text(_TABLE.sub(lambda marks: f"{marks[1]}\n{table}\n\n{marks[2]}", PAGE.read_text()))


def row(fault: str, way: str, figures: Figures) -> str:
    """The row of the table."""
    counts = f"{figures.acknowledged:,} | {figures.refused:,} | {figures.unknown:,} ({figures.unknown_recorded:,})"
    zeros = f"{figures.lost} | {figures.refused_recorded} | {figures.others}"
    return f"| {fault} | {way} | {figures.gap_seconds:.1f} | {counts} | {zeros} |"
