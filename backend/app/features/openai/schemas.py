"""What clients of OpenAI's image routes, and of OpenRouter's, send and expect."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, ConfigDict, Field, WithJsonSchema, model_validator

from app.catalogue.ratios import AspectRatio, ImageSize
from app.core.images import ImageFormat
from app.core.long_text import ImageText
from app.core.schemas import Answer, Body, Storable, Text
from app.features.generate.schemas import ModelName, SizeText, not_blank
from app.features.terms import ExpiresIn, IsAsync, JobClass
from app.generations.spec import GenerationSpec, SentImage

DEFAULT_SIZE = "1024x1024"
IMAGES_MAX = 10
INPUTS_MAX = 16
PARTIALS_MAX = 3
COMPRESSION_MAX = 100
PROMPT_LENGTH_MAX = 32_000

UNSUPPORTED = frozenset(
    {
        *("seed", "negative_prompt", "aspect_ratio", "resolution", "width", "height", "steps", "num_inference_steps"),
        *("guidance_scale", "guidance", "cfg_scale", "sampler", "strength", "loras", "prompt_upsampling", "watermark"),
        *("image", "images", "image_url", "mask", "markup", "reference_images", "input_references", "complexity"),
        *("frame_count", "frame_duration_ms", "svg", "extra_body", "metadata", "webhook_url", "instructions", "tools"),
        *("temperature", "provider"),
    }
)
"""Parameters of this and other image APIs that cannot be honoured, and are refused by name where a route does not take
them. A name that is not among them may be anything that the client sent, and is not repeated.
"""

_QUALITIES = {"standard": "auto", "hd": "high"}
"""What OpenAI's older names mean."""

_SQUARE = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAEAAAABAAQMAAACQp+OdAAAAA1BMVEX/1AD8tgksAAAAD0lEQVR42mNgGAWjgHwAAAJAAAHg"
    "TR1EAAAAAElFTkSuQmCC"
)
"""A yellow PNG of 64x64, for examples."""

Prompt = Annotated[
    str,
    Field(min_length=1, max_length=PROMPT_LENGTH_MAX, examples=["A cute banana"]),
    Storable,
    AfterValidator(not_blank),
]


class ImageOptions(Body):
    """What is asked for, whatever it is made from. What is null counts as left out."""

    # Unknown fields get this far, to be refused like those that cannot be honoured: with the status that OpenAI gives.
    model_config = ConfigDict(extra="allow", json_schema_extra={"additionalProperties": False})

    prompt: Prompt
    model: ModelName | None = None
    n: Annotated[int, Field(ge=1, le=IMAGES_MAX)] | None = None
    size: SizeText | None = None
    quality: Literal["auto", "low", "medium", "high", "xhigh", "max", "standard", "hd"] | None = None
    background: Literal["auto", "opaque", "transparent"] | None = None
    response_format: Literal["url", "b64_json"] | None = None
    output_format: ImageFormat | None = None
    output_compression: Annotated[int, Field(ge=0, le=COMPRESSION_MAX)] | None = Field(
        default=None, description="Of a JPEG or WebP: 100 is the largest file. Without an effect on a PNG."
    )
    stream: bool | None = Field(default=None, description="Answer with events: sketches, if there are any, and images.")
    partial_images: Annotated[int, Field(ge=0, le=PARTIALS_MAX)] | None = Field(
        default=None, description="With `stream`, how many sketches to send; fewer may come."
    )
    moderation: Literal["auto", "low"] | None = Field(default=None, description="Without an effect.")
    style: Literal["vivid", "natural"] | None = Field(default=None, description="Without an effect.")
    input_fidelity: Literal["low", "high"] | None = Field(default=None, description="Without an effect.")
    user: Text | None = None
    safety_identifier: Text | None = None
    is_async: IsAsync = None
    expires_in: ExpiresIn = None
    job_class: JobClass = None

    def spec(self, images: Sequence[SentImage] = (), mask: SentImage | None = None) -> GenerationSpec:
        """The request, for any dialect, made from these images. Without a size it has the shape of the first."""
        quality = self.quality or "auto"
        compression = self.output_compression
        has_compression = self.output_format in {"jpeg", "webp"} and compression != COMPRESSION_MAX
        size = self.size if self.size not in {None, "auto"} else None
        return GenerationSpec(
            self.prompt,
            size or ("auto" if images else DEFAULT_SIZE),
            self.output_format or "png",
            self.n or 1,
            model=self.model,
            quality=_QUALITIES.get(quality, quality),
            background=self.background or "auto",
            compression=compression if has_compression else None,
            images=images,
            mask=mask,
        )

    @property
    def partials(self) -> int | None:
        """How many sketches a stream is to have; None where no stream is asked for."""
        return (self.partial_images or 0) if self.stream else None

    @property
    def unsupported(self) -> str | None:
        """The first parameter that is refused; empty for a name that may be anything that the client sent."""
        sent: dict[str, Any] = self.model_extra or {}
        names = [name for name, value in sent.items() if value is not None]
        return next((name if name in UNSUPPORTED else "" for name in names), None)


class ImageGenerate(ImageOptions):
    """Images to be made, as OpenAI's SDK asks for them."""


class ImageUrl(Body):
    """Where an image is."""

    model_config = ConfigDict(extra="ignore")

    url: ImageText = Field(description="A `data:` or `https` URL, or that of an image of ours.", examples=[_SQUARE])


class ImageReference(Body):
    """An image that goes in, by one of the two members."""

    image_url: ImageText | None = Field(default=None, description="As `url` elsewhere.", examples=[_SQUARE])
    file_id: Text | None = Field(default=None, description="The id of an upload or of an image of ours.")

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.image_url is None) == (self.file_id is None):
            raise ValueError("must have either image_url or file_id")
        return self


class ImageEdit(ImageOptions):
    """Images to be made from others, as JSON."""

    images: Annotated[list[ImageReference], Field(min_length=1, max_length=INPUTS_MAX)]
    mask: ImageReference | None = Field(
        default=None, description="Where the first image may change: where this is transparent."
    )


_File = Annotated[bytes, WithJsonSchema({"type": "string", "format": "binary"})]


class ImageEditForm(ImageOptions):
    """Images to be made from others, as a form: each field is a text, such as `2` or `true`."""

    image: Annotated[list[_File], Field(min_length=1, max_length=INPUTS_MAX)] = Field(
        description="Image files, under the name `image` or `image[]`, in order."
    )
    mask: _File | None = Field(default=None, description="Where the first image may change: where this is transparent.")


class InputReference(Body):
    """An image that goes in, as OpenRouter's clients send it."""

    type: Literal["image_url"]
    image_url: ImageUrl


class ImagesCreate(ImageOptions):
    """Images to be made, as OpenRouter's SDK asks for them."""

    aspect_ratio: AspectRatio | None = None
    resolution: ImageSize | None = None
    input_references: Annotated[list[InputReference], Field(max_length=INPUTS_MAX)] | None = None
    seed: int | None = Field(default=None, description="Without an effect.")


class Image(Answer):
    """One image: where it is, or its bytes in base64."""

    url: str | None = None
    b64_json: str | None = None


class ImageFailed(Answer):
    """An image that could not be made. It does not count."""

    index: int = Field(description="Which of the `n` images it is, from 0.", examples=[3])
    code: str = Field(description="The code of its error.", examples=["provider_failed"])


class Images(Answer):
    """Images that were made."""

    created: int = Field(description="Seconds since 1970.", examples=[1_795_000_000])
    data: Sequence[Image]
    size: str = Field(examples=["1024x1024"])
    output_format: ImageFormat
    quality: str | None = Field(default=None, description="Left out where it is `auto`.", examples=["high"])
    errors: Sequence[ImageFailed] | None = Field(
        default=None, description="The images that `data` lacks of the `n` that were asked for; left out for none."
    )
