"""The schema's history: bringing a database up to it, and telling how far a database is."""

from functools import cache
from typing import Literal

from alembic import command
from alembic.config import Config
from alembic.runtime.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, text
from sqlalchemy.ext.asyncio import AsyncConnection

SchemaState = Literal["current", "behind", "newer", "foreign"]
"""`newer` has a migration that this program does not know; `foreign` is what another program has migrated."""


def upgrade(database_url: str) -> None:
    """Brings the database to this program's schema. Safe to call from several machines at once: one migrates, the
    others wait for it and find nothing left to do. Not to be called on a running event loop.
    """
    config = _config()
    config.attributes["database_url"] = database_url
    command.upgrade(config, "head")


async def schema_state(connection: AsyncConnection) -> SchemaState:
    """How far the database's schema is. This program can serve on a `current` and on a `newer` one: each migration
    leaves the version before it working, so that the old program keeps serving while a new one is rolled out.
    """
    here = await connection.run_sync(_revision)
    script = _scripts()
    if here is None or here in {revision.revision for revision in script.walk_revisions()}:
        return "current" if here == script.get_current_head() else "behind"
    is_ours = await connection.scalar(text("select to_regclass('generations') is not null"))
    return "newer" if is_ours else "foreign"


def _revision(connection: Connection) -> str | None:
    return MigrationContext.configure(connection).get_current_revision()


@cache  # Alembic registers a function to be called at exit whenever it looks up a folder of a package
def _scripts() -> ScriptDirectory:
    return ScriptDirectory.from_config(_config())


def _config() -> Config:
    config = Config()
    config.set_main_option("script_location", "app:migrations")  # this folder, looked up with importlib.resources
    return config
