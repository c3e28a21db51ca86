"""The table of docs/clients.md: what the user of each client got from each call. A run of all these tests writes it."""

import re
from collections.abc import Mapping, Sequence

from tests.clients.calls import Call, Client
from tests.clients.cases import CASES
from tests.docs.settings_pages import ROOT

PAGE = ROOT / "docs" / "clients.md"

_TABLE = re.compile(r"(<!-- results: written by make test-clients -->\n).*(<!-- end of results -->\n)", re.DOTALL)
_HEAD = ["| client | version | call | what its user gets |", "|---|---|---|---|"]

Results = dict[tuple[str, str], str]
"""What was got, by the names of the client and of the call."""


def rows() -> Sequence[tuple[str, ...]]:
    """Client, version and call of each row of the page."""
    found = _TABLE.search(PAGE.read_text())
    assert found, "the marks of the table are gone"
    lines = [line for line in found[0].splitlines() if line.startswith("|")]
    return [tuple(cell.strip() for cell in line.split("|")[1:4]) for line in lines[len(_HEAD) :]]


def write(results: Mapping[tuple[str, str], str]) -> None:
    """Writes the table, unless there is a call without a result."""
    if all((client.name, call.name) in results for client, call in CASES):
        table = "\n".join([*_HEAD, *(_row(client, call, results) for client, call in CASES)])
        PAGE.write_text(_TABLE.sub(lambda marks: f"{marks[1]}\n{table}\n\n{marks[2]}", PAGE.read_text()))


def _row(client: Client, call: Call, results: Mapping[tuple[str, str], str]) -> str:
    result = results.get((client.name, call.name), "does not work yet")
    return f"| {client.name} | {client.version} | {call.name} | {result} |"
