"""The pages that list the settings, as the fields have them; as a program (`make settings-docs`) it writes them."""

import re
from pathlib import Path

from app.core.settings_docs import env_example, settings_tables

ROOT = Path(__file__).parents[3]
_TABLES = re.compile(r"(<!-- settings: made by make settings-docs -->\n).*(<!-- end of settings -->\n)", re.DOTALL)


def settings_pages() -> dict[Path, str]:
    """The text that each page should have."""
    operations = ROOT / "docs" / "operations.md"
    text, found = _TABLES.subn(lambda marks: f"{marks[1]}\n{settings_tables()}\n{marks[2]}", operations.read_text())
    assert found == 1, "the marks of the tables are gone"
    return {ROOT / ".env.example": env_example(), operations: text}


if __name__ == "__main__":
    for page, text in settings_pages().items():
        page.write_text(text)
