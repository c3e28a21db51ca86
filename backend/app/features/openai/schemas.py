"""What OpenAI's SDK sends and expects."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field

from app.core.images import ImageFormat
from app.core.schemas import Answer, Body, Text
from app.features.generate.schemas import Prompt, SizeText
from app.generations.spec import GenerationSpec

DEFAULT_SIZE = "1024x1024"
IMAGES_MAX = 10

_DEFAULTS: dict[str, str | bool | None] = {
    "quality": "auto",
    "background": "auto",
    "moderation": "auto",
    "stream": False,
    "style": None,
    "output_compression": None,
    "partial_images": None,
    "complexity": None,
    "frame_count": None,
    "frame_duration_ms": None,
    "svg": None,
}
"""What is known to OpenAI and cannot be honoured here, with its default, which changes nothing."""


class ImageGenerate(Body):
    """Pictures to be made, as OpenAI's SDK asks for them. What is null counts as left out."""

    # Unknown fields get this far, to be refused like those that cannot be honoured: with the status that OpenAI gives.
    model_config = ConfigDict(extra="allow", json_schema_extra={"additionalProperties": False})

    prompt: Prompt
    model: Text | None = None
    n: Annotated[int, Field(ge=1, le=IMAGES_MAX)] | None = None
    size: SizeText | None = None
    response_format: Literal["url", "b64_json"] | None = None
    output_format: ImageFormat | None = None
    user: Text | None = None
    safety_identifier: Text | None = None
    quality: Any = None
    background: Any = None
    moderation: Any = None
    stream: Any = None
    style: Any = None
    output_compression: Any = None
    partial_images: Any = None
    complexity: Any = None
    frame_count: Any = None
    frame_duration_ms: Any = None
    svg: Any = None

    @property
    def spec(self) -> GenerationSpec:
        """The request, for any dialect."""
        return GenerationSpec(
            self.prompt,
            DEFAULT_SIZE if self.size in {None, "auto"} else self.size or "",
            self.output_format or "png",
            self.n or 1,
            as_bytes=self.response_format == "b64_json",
            model=self.model,
        )

    @property
    def not_to_be_honoured(self) -> str | None:
        """The first parameter that asks for something that there is not; empty for a name that the caller made up."""
        asked = ((name, getattr(self, name), default) for name, default in _DEFAULTS.items())
        made_up = "" if any(value is not None for value in (self.model_extra or {}).values()) else None
        return next((name for name, value, default in asked if value not in (None, default)), made_up)


class Image(Answer):
    """One picture: where it is, or its bytes in base64."""

    url: str | None = None
    b64_json: str | None = None


class ImageFailed(Answer):
    """A picture that could not be made. It does not count."""

    index: int = Field(description="Which of the `n` pictures it is, from 0.", examples=[3])
    code: str = Field(description="The code of its error.", examples=["provider_failed"])


class Images(Answer):
    """Pictures that were made."""

    created: int = Field(description="Seconds since 1970.", examples=[1_795_000_000])
    data: Sequence[Image]
    size: str = Field(examples=["1024x1024"])
    output_format: ImageFormat
    errors: Sequence[ImageFailed] | None = Field(
        default=None, description="The pictures that `data` lacks of the `n` that were asked for; left out for none."
    )
