"""docs/monitoring.md lists every line of the log, as the source has it."""

import re

from tests.docs.log_events import events
from tests.docs.settings_pages import ROOT

ROW = re.compile(r"^\| `(\w+)` \| ([A-Z]+) \| ((?:`\w+`(?:, )?)*) \| (.+) \|$", re.MULTILINE)


def test_every_line_of_the_log_stands_in_the_operators_page_with_its_level_and_fields() -> None:
    section = (ROOT / "docs" / "monitoring.md").read_text().partition("\n## Logs\n")[2].partition("\n## ")[0]
    listed = {name: (level, sorted(re.findall(r"\w+", fields))) for name, level, fields, _ in ROW.findall(section)}
    assert listed == {name: (event.level, sorted(event.fields)) for name, event in events().items()}
