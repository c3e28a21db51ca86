"""What health asks about."""

from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy.ext.asyncio import AsyncEngine


def _engine(request: Request) -> AsyncEngine:
    engine: AsyncEngine = request.app.state.engine
    return engine


def _recording(request: Request) -> bool:
    recording: bool = request.app.state.studio.ledger.alive
    return recording


Recording = Annotated[bool, Depends(_recording)]
"""Whether the ledger's writer is at work."""

Database = Annotated[AsyncEngine, Depends(_engine)]
