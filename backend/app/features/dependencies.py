"""What every feature's routes stand on: the services, and a transaction."""

from collections.abc import AsyncIterator
from dataclasses import replace
from functools import partial
from typing import Annotated

from fastapi import Depends, Request
from sqlalchemy.ext.asyncio import AsyncSession

from app.generations.collaborators import Generations
from app.services import Services
from app.web.disconnect import cancelled_on_disconnect
from app.web.public_url import public_url_of


def services_of(request: Request) -> Services:
    """The services that the application's lifespan has opened."""
    services: Services = request.scope["state"]["services"]
    return services


def generations_with_urls_of(request: Request) -> Generations:
    """The generations service, with the URLs of this request."""
    generations, public_url = services_of(request).generations, public_url_of(request)
    return generations if public_url == generations.public_url else replace(generations, public_url=public_url)


def generations_of(request: Request) -> Generations:
    """The same, whose unpaid work is cancelled when the client of this request leaves."""
    generations = generations_with_urls_of(request)
    return replace(generations, cancelled_on_disconnect=partial(cancelled_on_disconnect, request))


async def _session(request: Request) -> AsyncIterator[AsyncSession]:
    async with services_of(request).sessions.begin() as session:
        yield session


CurrentServices = Annotated[Services, Depends(services_of)]
CurrentGenerations = Annotated[Generations, Depends(generations_of)]

# scope="function": FastAPI by default runs the exit of a dependency after it has sent the response. A commit that fails
# there would have been answered as a success.
Session = Annotated[AsyncSession, Depends(_session, scope="function")]
"""One transaction around the route, committed before the response is sent."""
