"""A start that cannot succeed ends with one sentence and exit status 1; one that can, succeeds on odd machines too."""

import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path

import httpx2
import pytest
from app import server
from app.core import locations, postgres_programs
from tests.core.conftest import can_mount
from tests.core.embedded_servers import AS_ORDINARY_USER, refusal
from tests.docs.settings_pages import ROOT
from tests.harness import PATIENCE_SECONDS, on_server
from tests.starts.refused import REFUSED, WITH_KEY, Refused, models_file, taken_port
from tests.starts.servers import url_of
from tests.test_cli import Launch, environment, nanobanana_in_here, serving

RUN_EMBEDDED = """
import pathlib, sys
from app.core.embedded import EmbeddedPostgresError, embedded_postgres
try:
    with embedded_postgres(pathlib.Path(sys.argv[1])):
        print("it works")
except EmbeddedPostgresError as error:
    print(error)
"""


@pytest.fixture(scope="session")
def copied_checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkout at a path that is hard to handle."""
    root = tmp_path_factory.mktemp("copied") / "100% of a (check) out"
    shutil.copytree(ROOT / "backend" / "app", root / "backend" / "app", ignore=shutil.ignore_patterns("__pycache__"))
    for name in (".env.example", "backend/pyproject.toml", "backend/alembic.ini"):
        shutil.copy(ROOT / name, root / name)
    return root


@pytest.fixture
def checkout(copied_checkout: Path) -> Iterator[Path]:
    """The checkout, without a `.env` and a file of models."""
    yield copied_checkout
    for made in [copied_checkout / name for name in (".env", "models.toml", "key")]:
        if made.is_dir():
            made.rmdir()
        else:
            made.unlink(missing_ok=True)


DEPLOYMENTS = {
    "in euros": "update deployment set currency = 'EUR'",
    "in test mode": "update deployment set stripe_mode = 'test'",
    "in live mode": "update deployment set stripe_mode = 'live'",
}
"""What is recorded in a database, by how a situation calls it."""


def run_in(checkout: Path, *command: str, env: dict[str, str]) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command,
        cwd=checkout / "backend",
        env=env,
        capture_output=True,
        text=True,
        timeout=PATIENCE_SECONDS,
        check=False,
    )


@pytest.mark.parametrize("refused", REFUSED, ids=lambda each: each.situation)
def test_a_start_that_cannot_succeed_ends_with_one_sentence(
    checkout: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    request: pytest.FixtureRequest,
    refused: Refused,
) -> None:
    if "mount" in " ".join(refused.prefix) and not can_mount():
        pytest.skip("a process cannot mount a file system of its own here")
    (data_dir := tmp_path / "data").mkdir()
    refused.make(checkout, data_dir)
    with taken_port() if refused.settings.get("PORT") == "taken" else nullcontext() as taken:
        env = {**environment(data_dir), **refused.settings, **({"PORT": taken} if taken else {})}
        if recorded := DEPLOYMENTS.get(refused.settings.get("DATABASE_URL", "")):
            env["DATABASE_URL"] = request.getfixturevalue("new_database_url")
            on_server(env["DATABASE_URL"], recorded)
        if refused.prefix:
            done = run_in(checkout, *refused.prefix, sys.executable, "-m", "app.cli", refused.command, env=env)
        else:
            monkeypatch.setattr(locations, "CHECKOUT", checkout)
            monkeypatch.setattr(server, "run", lambda *_: None)  # a start that is not refused ends here
            done = nanobanana_in_here(data_dir, refused.command, **env)
    said = done.stderr
    for meant in (data_dir, *(checkout / name for name in ("models.toml", "nothing"))):
        said = said.replace(f"({meant})", "(PATH)")
    said = said.replace(str(data_dir), "DATA_DIR").replace(f":{env['PORT']}:", ":PORT:")
    assert (said, done.returncode, done.stdout) == (f"nanobanana: {refused.sentence}\n", 1, "")


def test_what_is_printed_in_each_situation_stands_in_the_operators_page() -> None:
    operations = (ROOT / "docs" / "operations.md").read_text()
    table = operations.partition("### When a start fails\n")[2].partition("\n#")[0]
    assert re.findall(r"^\| (?!situation|---).*$", table, re.MULTILINE) == [refused.row for refused in REFUSED]


def test_names_in_env_that_the_file_of_models_names_are_accepted_and_without_it_refused(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(locations, "CHECKOUT", checkout)
    (checkout / "key").write_text("a secret\n")
    for line in ("BANANA_KEY=a secret\n", "BANANA_KEY_FILE=key\n"):
        models_file(WITH_KEY, line)(checkout, tmp_path)
        done = nanobanana_in_here(tmp_path, "models", "check")
        assert (done.stdout, done.returncode) == ("ok: models: 1, routes: 1, default: banana\n", 0)
        done = nanobanana_in_here(tmp_path, "models", "check", MODELS_FILE="")
        name = line.partition("=")[0]
        sentence = f"{name} is set in .env, but is no setting; `nanobanana settings` lists them all."
        assert (done.stderr, done.returncode) == (f"nanobanana: {sentence}\n", 1)


@dataclass(frozen=True)
class Odd:
    """A machine on which the embedded PostgreSQL works nevertheless: what is odd about its data, environment or user.

    `make` gets the data of an earlier start and an empty folder; it returns the DATA_DIR.
    """

    name: str
    make: Callable[[Path, Path], Path] = lambda data, _: data
    variables: Mapping[str, str] = field(default_factory=dict)  # in which FOLDER is the path of the empty folder
    prefix: tuple[str, ...] = AS_ORDINARY_USER


def opened(data: Path, _folder: Path) -> Path:
    (data / "postgres").chmod(0o770)
    return data


def closed_home(data: Path, folder: Path) -> Path:
    (folder / "home").mkdir(mode=0)
    return data


def closed_temporary(data: Path, folder: Path) -> Path:
    (folder / "closed").mkdir(mode=0o500)
    return data


def long_temporary(data: Path, folder: Path) -> Path:
    (folder / ("l" * 90)).mkdir()
    return data


def no_text(data: Path, folder: Path) -> Path:
    return data.rename(os.fsdecode(os.fsencode(folder) + b"/\xff\xfe"))


def linked(data: Path, folder: Path) -> Path:
    (folder / "link").symlink_to(data)
    return folder / "link"


def empty_mount(_data: Path, folder: Path) -> Path:
    (folder / "postgres").mkdir()
    return folder


ODD = (
    Odd("TMPDIR is missing", variables={"TMPDIR": "FOLDER/gone"}),
    Odd("TMPDIR cannot be written", closed_temporary, {"TMPDIR": "FOLDER/closed"}),
    Odd("TMPDIR is too long for a socket", long_temporary, {"TMPDIR": f"FOLDER/{'l' * 90}"}),
    Odd("HOME cannot be read", closed_home, {"HOME": "FOLDER/home"}),
    Odd(
        "the user has no name",
        lambda _, folder: folder / "new",
        prefix=("unshare", "--user", "--map-user=4321", "--map-group=4321", "--"),
    ),
    Odd("a mount has opened the data to others", opened),
    Odd("postgres is an empty folder", empty_mount),
    Odd("DATA_DIR is not UTF-8", no_text),
    Odd("DATA_DIR is a link to a folder", linked),
)


@pytest.mark.parametrize("odd", ODD, ids=lambda each: each.name)
def test_the_embedded_server_works_on_an_odd_machine(data_dir: Path, tmp_path: Path, odd: Odd) -> None:
    (folder := tmp_path / "folder").mkdir()
    data = odd.make(data_dir, folder)
    env = {name: value.replace("FOLDER", str(folder)) for name, value in odd.variables.items()}
    done = run_in(
        ROOT, *odd.prefix, sys.executable, "-c", RUN_EMBEDDED, str(data), env={"PATH": os.environ["PATH"], **env}
    )
    assert (done.stdout, done.stderr) == ("it works\n", "")


def test_a_user_without_a_name_is_told_so_where_there_are_no_user_namespaces(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 4321)
    monkeypatch.setattr(postgres_programs, "_namespace_works", lambda _: False)
    assert "the user 4321 has no name, without which PostgreSQL does not run; add the user" in refusal(data_dir)


def test_a_checkout_at_any_path_serves_with_an_empty_data_dir_and_keeps_its_data_in_its_own_folder(
    checkout: Path, data_dir: Path, new_database_url: str
) -> None:
    data_dir.rename(checkout / ".data")
    launch = Launch(cwd=checkout / "backend")
    with serving(data_dir.parent, launch, DATA_DIR="") as (_, said):
        assert httpx2.get(f"{url_of(said)}/ready", timeout=PATIENCE_SECONDS).status_code == 200
    assert {"secret_key", "pictures"} <= {path.name for path in (checkout / ".data").iterdir()}
    assert {path.name for path in checkout.iterdir()} == {".data", ".env.example", "backend"}
    alembic = (sys.executable, "-m", "alembic", "upgrade", "head")
    done = run_in(checkout, *alembic, env={**environment(data_dir), "DATABASE_URL": new_database_url})
    assert done.returncode == 0, done.stderr
