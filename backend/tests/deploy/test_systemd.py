"""The units for systemd: it takes them as they are, and finds little that they leave open."""

import re
import subprocess
import sys
from pathlib import Path

import pytest
from app.core.secret_files import secret_names
from app.core.settings import Settings
from app.server import grace_seconds
from tests.proxies.programs import program

UNITS = sorted((Path(__file__).parents[3] / "ops" / "systemd").glob("*.service"))
EXPOSURE_MAX = 14
"""In tenths of systemd's measure, from 0 to 10: each protection that is taken away adds one or more."""

needs_systemd = pytest.mark.skipif(not program("systemd-analyze"), reason="There is no systemd-analyze: make proxies")


def analyze(*arguments: str | Path) -> tuple[int, str]:
    command = [program("systemd-analyze") or "", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return done.returncode, done.stdout + done.stderr


@needs_systemd
def test_systemd_takes_the_units_without_a_warning(tmp_path: Path) -> None:
    for unit in UNITS:  # the program is not installed where the tests run
        (tmp_path / unit.name).write_text(unit.read_text().replace("/usr/local/bin/nanobanana", sys.executable))
    assert analyze("verify", "--man=no", *(tmp_path / unit.name for unit in UNITS)) == (0, "")


@needs_systemd
@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_the_units_leave_little_open(unit: Path) -> None:
    code, text = analyze("security", "--no-pager", "--offline=true", f"--threshold={EXPOSURE_MAX}", unit)
    assert code == 0, text


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_every_variable_is_a_setting_and_every_secret_is_a_credential(unit: Path) -> None:
    text = unit.read_text()
    known = {*Settings.model_fields, *(f"{name}_file" for name in secret_names(Settings))}
    lines = re.findall(r"^Environment=(.*)$", text, re.MULTILINE)
    variables = dict(variable.split("=") for line in lines for variable in line.split())
    assert {name.lower() for name in variables} <= known
    credentials = set(re.findall(r"^LoadCredential=(\w+):/etc/nanobanana/secrets/\1$", text, re.MULTILINE))
    assert {value.removeprefix("%d/") for name, value in variables.items() if name.endswith("_FILE")} == credentials


@pytest.mark.parametrize(
    ("name", "seconds"),
    [
        ("nanobanana", grace_seconds(Settings(image_provider="gemini"))),
        ("nanobanana-work", Settings().job_deadline_seconds),
    ],
)
def test_each_service_has_the_time_to_end_what_it_has_begun(name: str, seconds: float) -> None:
    [service] = [unit for unit in UNITS if unit.stem == name]
    [given] = re.findall(r"^TimeoutStopSec=(\d+)$", service.read_text(), re.MULTILINE)
    assert int(given) > seconds
