"""Uploaded images."""

from app.core.errors import NotFound
from app.generations.collaborators import Generations
from app.generations.spec import Caller
from app.providers.intake import TakenIn


class UploadNotFound(NotFound):
    code, detail = "upload_not_found", "There is no such upload"


async def open_upload(generations: Generations, *, caller: Caller, upload_id: str) -> TakenIn:
    """The image of an upload. Raises UploadNotFound."""
    del generations, caller, upload_id
    raise UploadNotFound
