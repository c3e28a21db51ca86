"""Uploads over HTTP."""

from typing import Annotated

from fastapi import APIRouter, Request

from app.core.errors import Invalid, RateLimited
from app.features.dependencies import CurrentGenerations, Session
from app.features.keys.dependencies import Caller, WaitingCaller
from app.features.uploads.dependencies import FILE, Sent, Uploader
from app.features.uploads.schemas import UploadPublic
from app.generations import uploads
from app.generations.errors import InvalidApiKey
from app.models import Upload
from app.web.headers import add_response_headers
from app.web.openapi import BODY_PROBLEMS, problems
from app.web.pagination import PageQuery, one_page
from app.web.query import query_of

router = APIRouter(prefix="/v1/uploads", tags=["Uploads"])


@router.post(
    "",
    status_code=201,
    responses=problems(InvalidApiKey, RateLimited, uploads.UploadsFull, *BODY_PROBLEMS),
    openapi_extra={"requestBody": FILE},
)
async def create_upload(
    request: Request, caller: Uploader, sent: Sent, generations: CurrentGenerations
) -> UploadPublic:
    """Upload an image, to go into generations by its id.

    PNG, JPEG, WebP, AVIF, HEIC or GIF, by its bytes. It is turned upright and loses its metadata. It is kept until
    `expires_at`, for keys of the account and environment that it was uploaded with.
    """
    upload = await uploads.save(
        generations, caller=caller, sent=sent.content, first_frame=sent.first_frame, pointer=sent.pointer
    )
    return _created(request, upload)


@router.get("", responses=problems(InvalidApiKey, RateLimited, Invalid))
async def list_uploads(
    request: Request,
    caller: Caller,
    query: Annotated[PageQuery, query_of(PageQuery)],
    session: Session,
) -> list[UploadPublic]:
    """List the uploads of the key's account and environment, newest first."""
    found = await uploads.find_all(
        session, caller=caller, before_id=query.after.id if query.after else None, limit=query.limit + 1
    )
    return [UploadPublic.of(each) for each in one_page(request, found, query=query)]


@router.get("/{upload_id}", responses=problems(InvalidApiKey, RateLimited, uploads.UploadNotFound))
async def get_upload(caller: Caller, upload_id: str, session: Session) -> UploadPublic:
    """Show one upload of the key's account and environment."""
    return UploadPublic.of(await uploads.find_one(session, caller=caller, upload_id=upload_id))


@router.delete("/{upload_id}", status_code=204, responses=problems(InvalidApiKey, RateLimited, uploads.UploadNotFound))
async def delete_upload(caller: WaitingCaller, upload_id: str, generations: CurrentGenerations) -> None:
    """Delete an upload for good. What was made from it stays."""
    await uploads.delete_one(generations, caller=caller, upload_id=upload_id)


def _created(request: Request, upload: Upload) -> UploadPublic:
    add_response_headers(request, {b"location": f"/v1/uploads/{upload.id}".encode()})
    return UploadPublic.of(upload)
