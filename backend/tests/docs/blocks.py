"""The commands in the documentation: every fenced block of bash, console or SQL, and how it is tested."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from textwrap import dedent

from tests.docs.settings_pages import ROOT

REASONS = {
    "it names the reader's own machines",
    "it needs root",
    "it needs an account at a provider",
    "it needs a Docker engine",
}
"""Why a block may be left out, in a comment right above it: `<!-- not run: it needs root -->`."""

_BLOCK = re.compile(
    r"^(?:<!-- (?P<note>[^\n]*) -->\n+)?(?P<indent> *)```(?P<language>bash|sh|shell|console|sql)\n(?P<text>.*?)^ *```$",
    re.MULTILINE | re.DOTALL,
)
_WHOLE_PAGE = re.compile(r"^<!-- all commands run by (\S+) -->$", re.MULTILINE)


@dataclass(frozen=True)
class Block:
    """One block of a page, with the comment right above it."""

    page: Path
    line: int
    language: str
    text: str
    note: str

    def __str__(self) -> str:
        return f"{self.page.relative_to(ROOT)}:{self.line}"

    @property
    def script(self) -> str:
        """What is to be run of it: of a console, the lines after a `$`."""
        if self.language != "console":
            return self.text
        return "\n".join(re.findall(r"^\$ (.*)$", self.text, re.MULTILINE))


def pages() -> list[Path]:
    """Every page for people who run or call the program."""
    return [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/*.md"))]


def blocks() -> Iterator[Block]:
    """Every block, those of a page that a test of its own runs with a comment that says so."""
    for page in pages():
        text = page.read_text()
        whole = _WHOLE_PAGE.search(text)
        for found in _BLOCK.finditer(text):
            line = text.count("\n", 0, found.start("indent")) + 1
            note = f"run by {whole[1]}" if whole else found["note"] or ""
            yield Block(page, line, found["language"], dedent(found["text"]), note)


def is_left_out(block: Block) -> bool:
    """Whether its comment says that it is not run here: for one of REASONS, or since another test, which exists, runs
    it. Raises AssertionError for any other reason or test.
    """
    if block.note.startswith("not run: "):
        assert block.note.removeprefix("not run: ") in REASONS, f"{block}: the reason must be one of {sorted(REASONS)}"
        return True
    if block.note.startswith("run by "):
        file, _, name = block.note.removeprefix("run by ").partition("::")
        test = ROOT / "backend" / file
        assert test.is_file(), f"{block}: there is no {file}"
        assert not name or f"def {name}(" in test.read_text(), f"{block}: {file} has no {name}"
        return True
    return False
