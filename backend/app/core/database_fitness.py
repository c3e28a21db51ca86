"""What a database must be, whatever its schema."""

from sqlalchemy import text
from sqlalchemy.ext.asyncio import AsyncConnection

_FACTS = text("""
    select current_setting('server_encoding') as encoding, current_setting('transaction_read_only') as is_read_only,
           current_setting('fsync') as fsync, current_setting('full_page_writes') as full_page_writes
""")


async def unfit_sentence(connection: AsyncConnection) -> str | None:
    """Why this database cannot be used, as a sentence for the operator; None if it can."""
    facts = (await connection.execute(_FACTS)).one()
    if facts.encoding != "UTF8":
        return (
            f"The database's encoding is {facts.encoding}, and must be UTF8: make another one with scripts/init-db.sh."
        )
    if facts.is_read_only == "on":
        return "The database can only be read: it is a standby, or made read-only. Name the primary."
    for setting in ("fsync", "full_page_writes"):
        if getattr(facts, setting) != "on":
            return f"The database runs with {setting}=off: what it calls written may be lost. Turn it on."
    return None
