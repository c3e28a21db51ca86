"""The dashboard and the alerts of ops/, read by a real Prometheus that scrapes a real server; and what each shows."""

import json
import re
from pathlib import Path

import pytest
from app.core.metrics import Metrics
from tests.docs.settings_pages import ROOT
from tests.ops.conftest import NEEDS_A_FAULT, Health
from tests.ops.deployment import Deployment
from tests.ops.faults import FAULTS, Fault
from tests.ops.prometheus import CONFIGURATION, RULES, dashboard_expressions, metrics_in, promtool
from tests.ops.thresholds import SERIES, rule_tests

PAGE = (ROOT / "docs" / "monitoring.md").read_text()
_COMPARED = re.compile(r"(?P<measured>.+) (>|<|==) \S+", re.DOTALL)


def _series() -> set[str]:
    """The names of all series of the program's metrics."""
    parts = {"counter": ("",), "gauge": ("",), "histogram": ("_bucket", "_sum", "_count")}
    declared = Metrics().families.declared
    return {f"{each.name}{part}" for each in declared for part in parts[each.kind]}


def test_promtool_finds_no_mistake_in_configuration_and_rules() -> None:
    promtool("check", "rules", RULES)
    for each in (CONFIGURATION, CONFIGURATION.with_name("compose.yml")):
        promtool("check", "config", each)


def test_every_alert_fires_beyond_its_threshold_and_not_before_it(tmp_path: Path) -> None:
    file = tmp_path / "tests.json"
    file.write_text(json.dumps(rule_tests(RULES)))  # JSON is YAML too
    promtool("test", "rules", file)


def test_a_scraped_server_has_every_metric(health: Health) -> None:
    assert _series() - health.metrics == set()


def test_every_panel_shows_something_of_a_healthy_server(health: Health) -> None:
    assert health.without_data == NEEDS_A_FAULT


def test_every_metric_is_in_the_dashboard_and_every_name_there_and_in_the_alerts_is_a_metric(health: Health) -> None:
    shown = set().union(*map(metrics_in, dashboard_expressions()))
    alerted = set().union(*(metrics_in(each.expression) for each in health.alerts))
    assert (shown | alerted) - _series() == set()
    names = {re.sub("_(bucket|sum|count)$", "", each) for each in shown}
    assert {each.name for each in Metrics().families.declared} == names


def test_no_alert_fires_for_a_healthy_server(health: Health) -> None:
    assert health.firing == []
    assert {each.name for each in health.alerts} == set(SERIES)


def test_what_alerts_compare_is_there_unless_it_needs_a_fault(deployed: Deployment, health: Health) -> None:
    for alert in health.alerts:
        match = _COMPARED.fullmatch(alert.expression)
        assert match, alert.expression
        if match["measured"].replace("5m", "1m") not in NEEDS_A_FAULT:
            assert deployed.prometheus.values(match["measured"]), alert.name


def test_every_alert_stands_in_the_page_with_its_severity_and_a_section(health: Health) -> None:
    rows = re.findall(r"^\| \[`(\w+)`\]\(#(\w+)\) \| (\w+) \| `(.+)` \|$", PAGE, re.MULTILINE)
    expected = [(each.name, each.name.lower(), each.severity, each.expression) for each in health.alerts]
    assert [(name, anchor, severity, text.replace("\\|", "|")) for name, anchor, severity, text in rows] == expected
    for alert in health.alerts:
        assert alert.runbook == f"docs/monitoring.md#{alert.name.lower()}"
        assert f"\n### {alert.name}\n" in PAGE


def test_every_fault_stands_in_the_page() -> None:
    table = PAGE.partition("## What a fault looks like\n")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (?!situation|---).*$", table, re.MULTILINE)
    assert rows == [row for fault in FAULTS for row in fault.rows]


@pytest.mark.parametrize("fault", FAULTS, ids=lambda fault: fault.situation)
async def test_a_fault_moves_its_metrics_writes_its_lines_and_meets_its_alerts(
    fault: Fault, deployed: Deployment, health: Health
) -> None:
    prometheus, expressions = deployed.prometheus, {each.name: each.expression for each in health.alerts}
    await deployed.until(lambda: prometheus.values("nanobanana_database_writable") == [1])
    before, written = [prometheus.total(sign.metric) for sign in fault.signs], len(deployed.log)

    def unseen() -> list[str]:
        return [
            sign.alert
            for sign, value in zip(fault.signs, before, strict=True)
            if not sign.has_moved(value, prometheus.total(sign.metric))
            or f'"event": "{sign.line}"' not in deployed.log[written:]
            or not prometheus.values(expressions[sign.alert])
        ]

    async with fault.make(deployed):
        await deployed.until(lambda: not unseen(), model=fault.model)
    await deployed.until_it_generates()
    await deployed.until(lambda: prometheus.values("nanobanana_workers") == [2])  # without those that have died
