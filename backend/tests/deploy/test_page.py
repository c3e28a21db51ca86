"""docs/deploy.md: its commands can be run as they stand, as far as a test can try that."""

import re
import subprocess
from pathlib import Path

import pytest
from app import cli
from app.core.secret_files import secret_names
from app.core.settings import Settings

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs" / "deploy.md").read_text()
BLOCKS = re.findall(r"^```bash\n(.*?)^```", PAGE, re.MULTILINE | re.DOTALL)


@pytest.mark.parametrize("block", BLOCKS)
def test_a_shell_takes_every_block_of_commands(block: str) -> None:
    done = subprocess.run(["bash", "-n"], input=block, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_every_command_target_and_file_of_this_project_that_it_names_is_there() -> None:
    commands = set(re.findall(r"(?:`|app |nanobanana )nanobanana ([a-z]+)\b", PAGE))
    assert commands >= {"migrate", "check"}
    assert commands <= set(cli.COMMANDS)
    targets = set(re.findall(r"\bmake ([a-z]+)\b", PAGE))
    assert targets >= {"install", "uninstall"}
    assert targets <= set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))
    for name in set(re.findall(r"\b(?:ops|scripts)/[\w./-]*\w", PAGE)):
        assert (ROOT / name).exists(), name


def test_the_table_of_secrets_has_each_and_its_file() -> None:
    told = re.findall(r"^\| ((?:`[A-Z0-9_]+` ?)+) \| ((?:`[A-Z0-9_]+_FILE` ?)+) \|$", PAGE, re.MULTILINE)
    rows = [(re.findall(r"\w+", secrets), re.findall(r"\w+", files)) for secrets, files in told]
    assert all(files == [f"{name}_FILE" for name in names] for names, files in rows)
    assert sorted(name.lower() for names, _ in rows for name in names) == sorted(secret_names(Settings))
