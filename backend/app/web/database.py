"""The database transaction of a request."""

from collections.abc import AsyncIterator
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy.ext.asyncio import AsyncSession

from app.core.db import SessionMaker


async def _session(request: Request) -> AsyncIterator[AsyncSession]:
    sessions: SessionMaker = request.app.state.sessions
    async with sessions.begin() as session:
        yield session


# scope="function": FastAPI by default runs the exit of a dependency after it has sent the response. A commit that fails
# there would have been answered as a success.
Session = Annotated[AsyncSession, Depends(_session, scope="function")]
"""One transaction around the route, committed before the response is sent."""
