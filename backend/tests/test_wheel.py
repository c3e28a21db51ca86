"""What a wheel installs runs by itself: in an empty folder, where nothing of the checkout can be imported."""

import asyncio
import os
import re
import shutil
import signal
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from io import BytesIO
from pathlib import Path

import httpx2
import pip as pip_package
import pytest
from app import __version__
from packaging.requirements import Requirement
from PIL import Image
from tests.harness import PATIENCE_SECONDS, free_port, fresh_database, generate, looks, sign_up

BACKEND = Path(__file__).parents[1]
NOT_PYTHON = {
    "app/py.typed",
    "app/console/static/console.css",
    "app/console/templates/base.html",
    "app/migrations/script.py.mako",
    "app/ratelimit/decide.lua",
}


def run(*command: str | Path, cwd: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command, cwd=cwd, env=env, capture_output=True, text=True, timeout=PATIENCE_SECONDS, check=False
    )


def pip(*arguments: str | Path, cwd: Path) -> str:
    """Runs the pip of this environment, without a network; returns what it said."""
    options = ("--disable-pip-version-check", "--no-input")
    done = run(sys.executable, "-m", "pip", *options, *arguments, cwd=cwd, env={**os.environ, "PIP_NO_INDEX": "1"})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def build_wheel(source: Path, target: Path) -> Path:
    pip("wheel", "--no-deps", "--no-build-isolation", "--wheel-dir", target, source, cwd=target)
    [wheel] = target.glob("*.whl")
    return wheel


def make(target: str, prefix: Path) -> str:
    """Runs make in the checkout, without a network; returns what it said."""
    environment = {**os.environ, "PIP_NO_INDEX": "1"}
    done = run("make", "--silent", target, f"PREFIX={prefix}", cwd=BACKEND.parent, env=environment)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def link_locked_distributions(site_packages: Path) -> None:
    """Makes what requirements.txt pins importable, and nothing else that is installed here for development."""
    for line in re.findall(r"^[\w.-]+==[^\\\n]+", (BACKEND / "requirements.txt").read_text(), re.MULTILINE):
        pinned = Requirement(line)
        if pinned.marker is None or pinned.marker.evaluate():
            distribution = metadata.distribution(pinned.name)
            assert distribution.version in pinned.specifier
            for name in {file.parts[0] for file in distribution.files or ()} - {"..", "__pycache__"}:
                link = site_packages / name
                if not link.exists():
                    link.symlink_to(str(distribution.locate_file(name)))


@dataclass(frozen=True)
class Installed:
    """An environment that holds the wheel, and an empty folder to work in."""

    programs: Path
    home: Path
    folder: Path

    def environment(self, settings: dict[str, str]) -> dict[str, str]:
        return {"HOME": str(self.home), **settings}

    def run(self, program: str, *arguments: str, **settings: str) -> subprocess.CompletedProcess[str]:
        return run(self.programs / program, *arguments, cwd=self.folder, env=self.environment(settings))

    @contextmanager
    def serving(self, **settings: str) -> Iterator[subprocess.Popen[bytes]]:
        with (self.home / "output").open("wb") as output:
            command, environment = (self.programs / "nanobanana", "serve"), self.environment(settings)
            server = subprocess.Popen(command, cwd=self.folder, env=environment, stdout=output, stderr=output)
        try:
            yield server
        finally:
            server.terminate()
            server.wait(PATIENCE_SECONDS)

    def output(self) -> str:
        return (self.home / "output").read_text()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_wheel(BACKEND, tmp_path_factory.mktemp("wheel"))


@pytest.fixture(scope="module")
def prefix(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make install` has installed, at a path that is hard to handle. The locked distributions are there already,
    as after an earlier installation.
    """
    prefix = tmp_path_factory.mktemp("environment") / "100% new"
    environment = prefix / "lib" / "nanobanana"
    assert run(sys.executable, "-m", "venv", "--without-pip", environment, cwd=prefix.parent).returncode == 0
    [site_packages] = environment.glob("lib/python*/site-packages")
    link_locked_distributions(site_packages)
    (site_packages / "pip").symlink_to(Path(pip_package.__file__).parent)
    (environment / "requirements.installed").touch()
    assert make("install", prefix).splitlines()[-1].startswith("nanobanana, version ")
    return prefix


@pytest.fixture(scope="module")
def environment(prefix: Path) -> Path:
    """The virtual environment in it."""
    return prefix / "lib" / "nanobanana"


@pytest.fixture
def installed(environment: Path, tmp_path: Path) -> Installed:
    for name in ("home", "empty"):
        (tmp_path / name).mkdir()
    return Installed(environment / "bin", tmp_path / "home", tmp_path / "empty")


def test_a_wheel_and_one_built_from_the_source_distribution_hold_every_file_of_the_package(
    wheel: Path, tmp_path: Path
) -> None:
    files = (str(each.relative_to(BACKEND)) for each in (BACKEND / "app").rglob("*") if each.is_file())
    expected = {name for name in files if "__pycache__" not in name}
    assert expected >= NOT_PYTHON
    built = "from flit_core import buildapi; import sys; print(buildapi.build_sdist(sys.argv[1]))"
    name = run(sys.executable, "-c", built, tmp_path, cwd=BACKEND).stdout.strip()
    with tarfile.open(tmp_path / name) as archive:
        archive.extractall(tmp_path, filter="data")
    (tmp_path / "again").mkdir()
    for each in (wheel, build_wheel(tmp_path / name.removesuffix(".tar.gz"), tmp_path / "again")):
        assert {name for name in zipfile.ZipFile(each).namelist() if ".dist-info/" not in name} == expected


BUILD = """
import sys
from flit_core.buildapi import build_sdist, build_wheel
print(build_sdist(sys.argv[1]), build_wheel(sys.argv[1]))
"""


def build_both(source: Path, target: Path) -> tuple[Path, Path]:
    """Source distribution and wheel, as `make dist` builds them."""
    target.mkdir()
    done = run(sys.executable, "-c", BUILD, target, cwd=source, env={**os.environ, "SOURCE_DATE_EPOCH": "1764115200"})
    assert done.returncode == 0, done.stderr
    sdist, wheel = done.stdout.split()
    return target / sdist, target / wheel


def test_one_commit_has_the_same_bytes_wherever_and_whenever_it_is_built(tmp_path: Path) -> None:
    for name, mode in (("here", 0o644), ("there", 0o600)):
        shutil.copytree(BACKEND / "app", tmp_path / name / "app", ignore=shutil.ignore_patterns("__pycache__"))
        for other in ("pyproject.toml", "LICENSE"):
            shutil.copy(BACKEND / other, tmp_path / name)
        for file in (tmp_path / name / "app").rglob("*.py"):
            file.chmod(mode)
            os.utime(file, (mode * 1_000_000, mode * 1_000_000))
    sdist, wheel = build_both(tmp_path / "here", tmp_path / "built here")
    assert [each.read_bytes() for each in build_both(tmp_path / "there", tmp_path / "built there")] == [
        sdist.read_bytes(),
        wheel.read_bytes(),
    ]
    with tarfile.open(sdist) as archive:
        archive.extractall(tmp_path, filter="data")
    _, again = build_both(tmp_path / sdist.name.removesuffix(".tar.gz"), tmp_path / "built from the source")
    assert again.read_bytes() == wheel.read_bytes()
    with zipfile.ZipFile(wheel) as archive:
        [licence] = [name for name in archive.namelist() if name.endswith("/LICENSE")]
        assert archive.read(licence) == (BACKEND / "LICENSE").read_bytes()
        [about] = [name for name in archive.namelist() if name.endswith("/METADATA")]
        assert "License-Expression: Apache-2.0" in archive.read(about).decode()


def test_nothing_of_the_checkout_can_be_imported_and_every_requirement_is_there(
    installed: Installed, environment: Path
) -> None:
    look = "import app, sys; print(app.__file__, *sys.path[1:], sep='\\n')"
    package, *path = installed.run("python", "-c", look).stdout.splitlines()
    assert Path(package).is_relative_to(environment)
    assert not any(Path(each).is_relative_to(BACKEND.parent) for each in path), path
    for development in ("tests", "benchmarks", "pytest"):
        assert "ModuleNotFoundError" in installed.run("python", "-c", f"import {development}").stderr
    assert "No broken requirements" in pip("--python", environment / "bin" / "python", "check", cwd=environment)


def test_it_says_its_version(installed: Installed) -> None:
    assert installed.run("nanobanana", "--version").stdout.split()[-1] == __version__
    of_metadata = "from importlib import metadata; print(metadata.version('nanobanana'))"
    assert installed.run("python", "-c", of_metadata).stdout.strip() == __version__


async def test_it_makes_a_picture_on_a_postgresql_of_its_own_and_stops_on_sigterm(installed: Installed) -> None:
    settings = {"PORT": str(free_port())}
    checked = installed.run("nanobanana", "check", **settings)
    assert checked.returncode == 0, checked.stdout + checked.stderr
    with installed.serving(**settings) as server:
        async with httpx2.AsyncClient(
            base_url=f"http://127.0.0.1:{settings['PORT']}", timeout=PATIENCE_SECONDS
        ) as client:
            await until_ready(client, server, installed)
            key = await (await sign_up(client)).create_key()
            picture = await client.get((await generate(client, key)).json()["url"])
        with Image.open(BytesIO(picture.content)) as image:
            assert (image.format, image.size) == ("PNG", (1024, 1024))
        server.terminate()
        assert server.wait(PATIENCE_SECONDS) == 128 + signal.SIGTERM
    assert len([*installed.home.rglob("nanobanana/postgres.password")]) == 1
    assert list(installed.folder.iterdir()) == []


async def until_ready(client: httpx2.AsyncClient, server: subprocess.Popen[bytes], installed: Installed) -> None:
    for _ in looks():
        assert server.poll() is None, installed.output()
        try:
            if (await client.get("/ready")).status_code == 200:
                return
        except httpx2.TransportError:
            await asyncio.sleep(0.1)
    raise AssertionError(f"it never became ready: {installed.output()}")


def test_it_migrates_a_database(installed: Installed, server_url: str) -> None:
    with fresh_database(server_url) as url:
        migrated = installed.run("nanobanana", "migrate", DATABASE_URL=url)
        assert migrated.returncode == 0, migrated.stderr
        assert "database: ok" in installed.run("nanobanana", "check", DATABASE_URL=url).stdout


def test_it_lists_its_settings(installed: Installed) -> None:
    """In the form of .env.example, which is no part of the wheel."""
    (installed.folder / ".env").write_text(installed.run("nanobanana", "settings").stdout)
    assert (installed.folder / ".env").stat().st_size > 0
    assert installed.run("nanobanana", "check").returncode == 0


def test_make_uninstall_removes_what_make_install_has_made(environment: Path, tmp_path: Path) -> None:
    (tmp_path / "lib").mkdir()
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "another").touch()
    (tmp_path / "lib" / "nanobanana").symlink_to(environment)
    make("install", tmp_path)
    make("uninstall", tmp_path)
    assert {*tmp_path.rglob("*")} == {tmp_path / "lib", tmp_path / "bin", tmp_path / "bin" / "another"}
    assert environment.exists()
