"""The schema's history: bringing a database up to it, and telling how far a database is."""

from pathlib import Path
from typing import Literal

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection
from sqlalchemy.ext.asyncio import AsyncConnection

_BACKEND = Path(__file__).resolve().parents[2]

SchemaState = Literal["current", "behind"]


def upgrade(database_url: str) -> None:
    """Brings the database to this program's schema. Safe to call from several machines at once: one migrates, the
    others wait for it and find nothing left to do. Not to be called on a running event loop.
    """
    command.upgrade(_config(database_url), "head")


async def schema_state(connection: AsyncConnection) -> SchemaState:
    """Whether this program can serve on the database's schema: it has every migration that the program knows.

    A newer schema counts as current, so that the old program keeps serving while a new one is rolled out.
    """
    here = await connection.run_sync(_revision)
    script = ScriptDirectory.from_config(_config(""))
    known = {revision.revision for revision in script.walk_revisions()}
    return "behind" if here is None or (here in known and here != script.get_current_head()) else "current"


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


def _config(database_url: str) -> Config:
    config = Config(_BACKEND / "alembic.ini")
    config.attributes["database_url"] = database_url
    return config
