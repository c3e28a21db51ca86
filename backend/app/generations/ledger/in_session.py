"""Statements of the ledger in a transaction of SQLAlchemy, beside what else it changes."""

from collections.abc import Sequence
from typing import Any

from sqlalchemy.ext.asyncio import AsyncSession

from app.generations.ledger.statements import Statement


async def execute(session: AsyncSession, statement: Statement, **values: Any) -> Sequence[Any]:
    """Its rows."""
    connection = await session.connection()
    return (await connection.exec_driver_sql(statement.text, tuple(statement.arguments(values)))).all()
