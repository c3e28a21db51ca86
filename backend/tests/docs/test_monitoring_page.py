"""docs/monitoring.md lists exactly the metrics that there are, with their labels and meanings."""

import re

from app.core.metrics import Metrics
from app.core.metrics.families import Declared
from tests.docs.settings_pages import ROOT


def _row(metric: Declared) -> str:
    labels = f"{{{','.join(metric.labels)}}}" if metric.labels else ""
    return f"| `{metric.name}{labels}` | {metric.kind} | {metric.meaning} |"


def test_every_metric_stands_in_the_page_with_its_labels_and_its_meaning() -> None:
    page = (ROOT / "docs" / "monitoring.md").read_text()
    rows = re.findall(r"^\| `nanobanana_\w+(?:\{[\w,]+\})?` \| \w+ \| .*$", page, re.MULTILINE)
    assert rows == [_row(each) for each in Metrics().families.declared]
