"""What OpenAI's clients send and expect."""

from collections.abc import Sequence
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, ConfigDict, Field

from app.core.images import ImageFormat
from app.core.schemas import Answer, Body, Storable, Text
from app.features.generate.schemas import ModelName, SizeText, not_blank
from app.generations.spec import GenerationSpec

DEFAULT_SIZE = "1024x1024"
IMAGES_MAX = 10
PARTIALS_MAX = 3
COMPRESSION_MAX = 100
PROMPT_LENGTH_MAX = 32_000

UNSUPPORTED = frozenset(
    {
        *("seed", "negative_prompt", "aspect_ratio", "resolution", "width", "height", "steps", "num_inference_steps"),
        *("guidance_scale", "guidance", "cfg_scale", "sampler", "strength", "loras", "prompt_upsampling", "watermark"),
        *("image", "images", "image_url", "mask", "reference_images", "complexity", "frame_count", "svg"),
        *("frame_duration_ms", "extra_body", "metadata", "webhook_url", "instructions", "tools", "temperature"),
    }
)
"""Parameters of this and other image APIs that cannot be honoured here, and are refused by name. A name that is not
among them may be anything that the client sent, and is not repeated.
"""

_QUALITIES = {"standard": "auto", "hd": "high"}
"""What OpenAI's older names mean."""

Prompt = Annotated[
    str,
    Field(min_length=1, max_length=PROMPT_LENGTH_MAX, examples=["A cute banana"]),
    Storable,
    AfterValidator(not_blank),
]


class ImageGenerate(Body):
    """Pictures to be made, as OpenAI's SDK asks for them. What is null counts as left out."""

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

    @property
    def spec(self) -> GenerationSpec:
        """The request, for any dialect."""
        quality = self.quality or "auto"
        compression = self.output_compression
        has_compression = self.output_format in {"jpeg", "webp"} and compression != COMPRESSION_MAX
        return GenerationSpec(
            self.prompt,
            DEFAULT_SIZE if self.size in {None, "auto"} else self.size or "",
            self.output_format or "png",
            self.n or 1,
            model=self.model,
            quality=_QUALITIES.get(quality, quality),
            background=self.background or "auto",
            compression=compression if has_compression else None,
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
    quality: str | None = Field(default=None, description="Left out where it is `auto`.", examples=["high"])
    errors: Sequence[ImageFailed] | None = Field(
        default=None, description="The pictures that `data` lacks of the `n` that were asked for; left out for none."
    )
