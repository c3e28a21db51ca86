"""compose.yaml: of the form that Compose reads, hardened, and with settings under which the program starts."""

import json
import re
import shutil
import subprocess
from importlib.resources import files
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import jsonschema_rs
import pytest
from app.core import locations
from app.core.secret_files import secret_names
from app.core.settings import Settings
from app.core.settings_loading import load_settings
from app.server import grace_seconds
from ruamel.yaml import YAML

ROOT = Path(__file__).parents[3]
COMPOSE: dict[str, Any] = YAML(typ="safe").load(ROOT / "compose.yaml")
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OURS = ("app", "work", "migrate")


def default_of(value: object) -> str:
    """The value where nothing is set in the shell and in `.env`."""
    return re.sub(r"\$\{\w+:?-([^}]*)\}", r"\1", str(value))


def test_it_has_the_form_of_the_compose_specification() -> None:
    schema = files("check_jsonschema") / "builtin_schemas" / "vendor" / "compose-spec.json"
    jsonschema_rs.validate(json.loads(schema.read_text()), COMPOSE)


@pytest.mark.parametrize("name", SERVICES)
def test_every_service_can_do_no_more_than_it_must(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert "privileged" not in service
    assert all(port.startswith("127.0.0.1:") for port in service.get("ports", ()))


@pytest.mark.parametrize("name", [name for name in SERVICES if name not in OURS])
def test_every_image_is_pinned_by_its_version_and_names_no_registry(name: str) -> None:
    image, _, version = SERVICES[name]["image"].partition(":")
    assert re.search(r"\d", version)
    assert "." not in image


def test_the_worker_starts_when_the_schema_is_migrated_and_has_the_time_to_end_what_it_has_sent() -> None:
    worker = SERVICES["work"]
    assert (worker["command"], worker["depends_on"]) == ("work", SERVICES["app"]["depends_on"])
    assert int(worker["stop_grace_period"].removesuffix("s")) > Settings().job_deadline_seconds


def test_the_app_starts_when_the_schema_is_migrated_and_has_the_time_to_end_what_it_has_accepted() -> None:
    app = SERVICES["app"]
    assert app["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}
    assert SERVICES["migrate"]["command"] == "migrate"
    assert SERVICES["migrate"]["depends_on"]["postgres"] == {"condition": "service_healthy"}
    live = Settings(image_provider="gemini", record_deadline_seconds=5)
    assert int(app["stop_grace_period"].removesuffix("s")) > grace_seconds(live)


def test_prometheus_asks_the_app_and_every_worker() -> None:
    [file] = [each for each in SERVICES["prometheus"]["command"] if each.startswith("--config.file=/etc/prometheus/")]
    asked = YAML(typ="safe").load(ROOT / "ops" / "prometheus" / file.rpartition("/")[2])["scrape_configs"][0]
    app, worker = SERVICES["app"]["environment"], SERVICES["work"]["environment"]
    assert SERVICES["prometheus"]["network_mode"] == "service:app"
    assert asked["static_configs"] == [{"targets": [f"{Settings().metrics_host}:{app['METRICS_PORT']}"]}]
    assert asked["dns_sd_configs"] == [{"names": ["work"], "type": "A", "port": worker["METRICS_PORT"]}]
    assert "METRICS_HOST" not in app
    assert ip_address(worker["METRICS_HOST"]).is_unspecified, "so that another container reaches it"
    assert "ports" not in SERVICES["work"]


def test_every_variable_of_the_program_is_a_setting() -> None:
    known = {*Settings.model_fields, *(f"{name}_file" for name in secret_names(Settings))}
    for name in OURS:
        assert {variable.lower() for variable in SERVICES[name]["environment"]} <= known


def test_every_file_that_it_mounts_is_there() -> None:
    mounts = [each for service in SERVICES.values() for each in service.get("volumes", ()) if each.startswith("./")]
    assert mounts
    assert [each for each in mounts if not (ROOT / each.partition(":")[0]).exists()] == []


def test_with_the_secrets_that_the_script_makes_the_program_has_good_settings(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "scripts").mkdir()
    script = shutil.copy(ROOT / "scripts" / "make-secrets.sh", tmp_path / "scripts")
    for name in Settings.model_fields:
        monkeypatch.delenv(name.upper(), raising=False)
    for _ in range(2):
        subprocess.run([script], check=True)
        made = {file.name: file.read_text() for file in (tmp_path / "secrets").iterdir()}
        assert set(made) == set(COMPOSE["secrets"])
    for variable, value in SERVICES["app"]["environment"].items():
        monkeypatch.setenv(variable, default_of(value).replace("/run/secrets", str(tmp_path / "secrets")))
    monkeypatch.setattr(locations, "CHECKOUT", tmp_path)
    settings = load_settings().with_secret()
    assert settings.signing_secret == made["secret_key"].encode()
    assert made["postgres_password"] in made["database_url"]
    assert settings.database_url is not None
    assert [file.stat().st_mode & 0o777 for file in (tmp_path / "secrets").iterdir()] == [0o644] * len(made)
    assert (tmp_path / "secrets").stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("name", SERVICES)
def test_every_secret_of_a_service_is_declared_and_every_file_of_one_is_mounted(name: str) -> None:
    service = SERVICES[name]
    named = {
        str(value).rpartition("/")[2] for key, value in service.get("environment", {}).items() if key.endswith("_FILE")
    }
    assert named <= set(service.get("secrets", ())) <= set(COMPOSE["secrets"])
