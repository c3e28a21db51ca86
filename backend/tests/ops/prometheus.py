"""A real Prometheus with the files of ops/, where it is installed.

python -m tests.ops.prometheus            # ends with 1 where it is not there
python -m tests.ops.prometheus install    # installs Debian's package first; ends with a sentence where it cannot
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx2
from tests.docs.settings_pages import ROOT
from tests.harness import PATIENCE_SECONDS, free_port, looks, port_is_open
from tests.proxies.programs import install, program

PACKAGES = {"prometheus": "prometheus", "promtool": "prometheus"}
CONFIGURATION, RULES = ROOT / "ops/prometheus/prometheus.yml", ROOT / "ops/prometheus/alerts.yml"
DASHBOARD = ROOT / "ops/grafana/nanobanana.json"

_ENVIRONMENT = {"PATH": "/usr/bin:/usr/sbin:/bin"}


@dataclass(frozen=True)
class Alert:
    """An alerting rule as Prometheus has read it."""

    name: str
    expression: str
    severity: str
    summary: str
    runbook: str


@dataclass(frozen=True)
class Prometheus:
    """A Prometheus that scrapes a server four times a second."""

    url: str

    def values(self, expression: str) -> list[float]:
        """The values of the expression now, one for each of its series. Raises where it cannot be read."""
        return [float(each["value"][1]) for each in self._ask("query", query=expression)["result"]]

    def total(self, expression: str) -> float:
        """The sum of these values."""
        return sum(self.values(expression))

    def alerts(self) -> list[Alert]:
        """All rules of ops/prometheus/alerts.yml."""
        [group] = self._ask("rules")["groups"]
        return [
            Alert(each["name"], each["query"], each["labels"]["severity"], **each["annotations"])
            for each in group["rules"]
        ]

    def metrics(self) -> set[str]:
        """The names of all series that it has."""
        return set(self._ask("label/__name__/values"))

    def _ask(self, path: str, **query: str) -> Any:
        answer = httpx2.get(f"{self.url}/api/v1/{path}", params=query, timeout=PATIENCE_SECONDS)
        assert answer.status_code == 200, answer.text
        return answer.json()["data"]


@contextmanager
def prometheus(folder: Path, *, target: int) -> Iterator[Prometheus]:
    """One that scrapes this loopback port, with the configuration of ops/ in all else."""
    text = CONFIGURATION.read_text().replace("127.0.0.1:9464", f"127.0.0.1:{target}").replace("15s", "250ms")
    (folder / "prometheus.yml").write_text(text)
    (folder / "alerts.yml").symlink_to(RULES)
    port = free_port()
    command = [
        *(str(program("prometheus")), f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"),
        *(f"--web.listen-address=127.0.0.1:{port}", "--log.level=warn"),
    ]
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(command, cwd=folder, env=_ENVIRONMENT, stdout=log, stderr=log)
    try:
        for _ in looks():
            if port_is_open(port) or process.poll() is not None:
                break
        assert process.poll() is None, (folder / "log").read_text()
        yield Prometheus(f"http://127.0.0.1:{port}")
    finally:
        process.terminate()
        process.wait()


def promtool(*arguments: str | Path) -> None:
    """Runs it, and raises with what it says where it finds a mistake."""
    done = subprocess.run(
        [str(program("promtool")), *arguments], env=_ENVIRONMENT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def dashboard_expressions() -> list[str]:
    """The expressions of all panels, with a minute in place of the interval that Grafana chooses."""
    panels: Sequence[Mapping[str, Any]] = json.loads(DASHBOARD.read_text())["panels"]
    texts = [target["expr"] for panel in panels for target in panel.get("targets", ())]
    return [text.replace("$__rate_interval", "1m") for text in texts]


def metrics_in(expression: str) -> set[str]:
    """The names of the program's metrics in it."""
    return set(re.findall(r"\bnanobanana_\w+", expression))


if __name__ == "__main__":
    if sys.argv[1:] == ["install"]:
        install(PACKAGES)
    sys.exit(not all(map(program, PACKAGES)))
