"""The Dockerfile: a linter finds nothing, and what it says of the program is true of the program."""

import asyncio
import json
import re
import shutil
import subprocess
import sys
from pathlib import Path

import httpx2
from app.core.secret_files import secret_names
from app.core.settings import Settings
from tests.harness import free_port

ROOT = Path(__file__).parents[3]
DOCKERFILE = (ROOT / "Dockerfile").read_text()
INSTRUCTIONS = [
    (name, rest.strip())
    for name, _, rest in (
        line.partition(" ") for line in DOCKERFILE.replace("\\\n", "").splitlines() if line and not line.startswith("#")
    )
]


def of(name: str) -> list[str]:
    """What follows each instruction of this name."""
    return [rest for instruction, rest in INSTRUCTIONS if instruction == name]


def test_a_linter_finds_nothing() -> None:
    hadolint = shutil.which("hadolint", path=Path(sys.executable).parent)
    assert hadolint is not None
    done = subprocess.run([hadolint, "-"], input=DOCKERFILE, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, "")


async def test_its_health_check_asks_the_running_server(client: httpx2.AsyncClient) -> None:
    [health] = of("HEALTHCHECK")
    program, *arguments = json.loads(health.partition(" CMD ")[2])
    assert program == "python"
    for port, status in ((client.base_url.port, 0), (free_port(), 1)):
        process = await asyncio.create_subprocess_exec(
            sys.executable, *arguments, env={"PORT": str(port)}, stderr=asyncio.subprocess.DEVNULL
        )
        assert await process.wait() == status


def test_it_runs_as_a_user_without_rights_on_a_base_that_is_pinned_and_names_no_registry() -> None:
    assert of("FROM")
    assert all(re.fullmatch(r"python:\d+\.\d+-slim-\w+( AS build)?", base) for base in of("FROM"))
    assert re.fullmatch(r"[1-9]\d*:[1-9]\d*", of("USER")[-1])


def test_every_variable_is_a_setting_and_none_is_a_secret() -> None:
    [line] = of("ENV")
    variables = {name.lower(): value for name, _, value in (each.partition("=") for each in line.split())}
    settings = Settings(**{name: variables[name] for name in variables.keys() - {"path", "pythondontwritebytecode"}})
    assert settings.environment == "production"
    assert not variables.keys() & set(secret_names(Settings))


def test_nothing_but_the_program_is_sent_to_the_builder() -> None:
    first, *kept = [line for line in (ROOT / ".dockerignore").read_text().splitlines() if not line.startswith("#")]
    assert first == "*"
    assert {line for line in kept if line.startswith("!")} == {
        "!backend", "!backend/LICENSE", "!backend/app", "!backend/pyproject.toml", "!backend/requirements.txt"
    }  # fmt: skip
    assert "backend/*" in kept
