"""What a PostgreSQL that fails over consists of: Patroni in an environment of its own, `.ha`, and etcd and HAProxy.

python -m tests.ha.programs    # installs what is missing, or ends with the reason why it cannot
"""

from pathlib import Path

from tests.clients.environments import InstallationError, install_locked
from tests.proxies import programs

ENVIRONMENT = Path(__file__).parents[3] / ".ha"

_LOCK = Path(__file__).parent / "locked" / "patroni.txt"
_BUILT_HERE = "python-etcd,ydiff"  # neither has a wheel
_PACKAGES = {"etcd": "etcd-server", "haproxy": "haproxy"}


def program(name: str) -> str:
    """The path of this program. Raises FileNotFoundError where it is not installed."""
    path = ENVIRONMENT / "bin" / name
    found = str(path) if path.exists() else programs.program(name)
    if found is None:
        raise FileNotFoundError(name)
    return found


def are_installed() -> bool:
    """Whether all of them are there."""
    return (ENVIRONMENT / "installed").exists() and all(programs.program(name) for name in _PACKAGES)


def install() -> None:
    """Raises SystemExit with the reason where something cannot be installed."""
    programs.install(_PACKAGES)
    try:
        install_locked(_LOCK, ENVIRONMENT, built_here=_BUILT_HERE)
    except InstallationError as error:
        raise SystemExit(f"Patroni could not be installed.\n{error}") from error


if __name__ == "__main__":
    install()
