"""The wire types of uploads."""

from pydantic import BaseModel, ConfigDict, Field

from app.core.images import MEDIA_TYPES
from app.core.schemas import Answer, QueryBool, Time
from app.models import Upload


class UploadQuery(BaseModel):
    """How an image is taken in."""

    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)

    first_frame: QueryBool = Field(default=False, description="Take the first frame of an animation; else it is a 422.")


class UploadPublic(Answer):
    """An uploaded image, as it is kept: upright and without metadata."""

    id: str = Field(examples=["upl_01kapn5vfe28fm63cjp43w44255s68"])
    width: int = Field(description="In pixels, as the height.")
    height: int
    media_type: str = Field(examples=["image/jpeg"])
    bytes: int
    created_at: Time
    expires_at: Time

    @classmethod
    def of(cls, upload: Upload) -> "UploadPublic":
        return cls(
            id=upload.id,
            width=upload.width,
            height=upload.height,
            media_type=MEDIA_TYPES[upload.format],
            bytes=upload.bytes,
            created_at=upload.created_at,
            expires_at=upload.expires_at,
        )
