"""The generation whose image a path names, as a dependency of routes."""

from typing import Annotated

from fastapi import Depends

from app.features.dependencies import CurrentGenerations
from app.generations import serve
from app.models import Generation


async def _delivered(generations: CurrentGenerations, generation_id: str, extension: str) -> Generation:
    return await serve.find_delivered(generations, generation_id=generation_id, image_format=extension)


DeliveredGeneration = Annotated[Generation, Depends(_delivered)]
"""The generation whose image may be looked at. Raises ImageNotFound for any other path."""
