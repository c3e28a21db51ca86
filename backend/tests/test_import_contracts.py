"""Every import contract of pyproject.toml notices an import that breaks it."""

import os
import shutil
import subprocess
import sys
import tomllib
from pathlib import Path

VIOLATIONS = {
    "down only": ("app/ratelimit/memory.py", "import app.generations.spec"),
    "features stand on one another in one order": ("app/features/auth/service.py", "import app.features.usage.service"),
    "a generation knows no HTTP, directly or through another module": (
        "app/generations/accept.py",
        "import app.features.dependencies",
    ),
    "a worker needs no web framework": ("app/worker.py", "import app.main"),
    "HTTP is for main, console and features, and for the server that speaks it": (
        "app/checks.py",
        "import app.web.headers",
    ),
    "HTTP knows nothing of the product": ("app/web/headers.py", "import app.models"),
    "ports know no models": ("app/storage/filesystem.py", "import app.models"),
    "a service knows no HTTP": ("app/features/keys/service.py", "import fastapi"),
    "auth is reached through its service or its dependencies": (
        "app/features/usage/service.py",
        "import app.features.auth.schemas",
    ),
    "keys is reached through its service or its dependencies": (
        "app/features/usage/service.py",
        "import app.features.keys.schemas",
    ),
    "generate is reached through its service or its dependencies": (
        "app/server.py",
        "import app.features.generate.schemas",
    ),
    "openai is reached by chat, whose errors are the same": (
        "app/console/state.py",
        "import app.features.openai.schemas",
    ),
    "chat is reached by nobody": ("app/console/state.py", "import app.features.chat.schemas"),
    "gemini is reached by nobody": ("app/console/state.py", "import app.features.gemini.schemas"),
    "models is reached by nobody": ("app/console/state.py", "import app.features.models.schemas"),
    "uploads is reached by nobody": ("app/console/state.py", "import app.features.uploads.schemas"),
    "usage is reached through its service or its dependencies": ("app/server.py", "import app.features.usage.schemas"),
    "billing is reached through its service or its dependencies": (
        "app/server.py",
        "import app.features.billing.schemas",
    ),
    "health is reached through its service or its dependencies": ("app/server.py", "import app.features.health.api"),
}
"""For each contract, a module and a line that break it."""


def _broken(copy: Path) -> set[str]:
    """The contracts that are broken in this copy of the application."""
    lint = Path(sys.executable).parent / "lint-imports"
    environment = {**os.environ, "PYTHONPATH": str(copy)}
    done = subprocess.run([lint, "--no-cache"], cwd=copy, env=environment, capture_output=True, text=True, check=False)
    assert "Contracts: " in done.stdout, done.stdout + done.stderr
    return {line.removesuffix(" BROKEN") for line in done.stdout.splitlines() if line.endswith(" BROKEN")}


def _copied(backend: Path, folder: Path) -> Path:
    shutil.copytree(backend / "app", folder / "app", ignore=shutil.ignore_patterns("__pycache__", "static"))
    shutil.copy(backend / "pyproject.toml", folder)
    return folder


def test_every_contract_is_broken_by_an_import_that_it_forbids(backend: Path, tmp_path: Path) -> None:
    contracts = tomllib.loads((backend / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    assert {contract["name"] for contract in contracts} == set(VIOLATIONS)
    copy = _copied(backend, tmp_path)
    assert _broken(copy) == set()
    for name, (module, line) in VIOLATIONS.items():
        text = (copy / module).read_text()
        (copy / module).write_text(f"{text}\n{line}\n")
        assert name in _broken(copy), f"{line} in {module}"
        (copy / module).write_text(text)
