"""The settings of pictures: who draws them, and where they are kept."""

from typing import Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, SecretStr, field_validator


class PictureSettings(BaseModel):
    """Providers and stores. Test keys always use the stub."""

    image_provider: Literal["stub", "gemini", "openai"] = Field(
        default="stub",
        description="Who draws for live keys: the stub, Gemini, or an OpenAI-compatible endpoint.",
    )
    generation_deadline_seconds: float = Field(
        default=60, ge=1, le=600, description="How long a provider may take for a generation, tries included; then 504."
    )
    provider_calls_max: int = Field(
        default=1000,
        ge=1,
        le=100_000,
        description="Pictures that a provider draws for one process at a time; then 503.",
    )
    gemini_api_key: SecretStr | None = Field(default=None, description="The key for Gemini.")
    gemini_base_url: str = Field(default="https://generativelanguage.googleapis.com", description="Where Gemini is.")
    gemini_api_version: str = Field(default="v1beta", description="The version in Gemini's addresses.")
    gemini_model: str = Field(default="gemini-2.5-flash-image", description="The model that draws.")
    gemini_sizes: str = Field(
        default="", description="`1024x1024=1:1/1K, ...`: sizes, and what is drawn for them. By default the usual ones."
    )
    openai_api_key: SecretStr | None = Field(default=None, description="The key for the OpenAI-compatible endpoint.")
    openai_base_url: str = Field(
        default="https://api.openai.com/v1", description="Where the OpenAI-compatible endpoint is."
    )
    openai_model: str = Field(default="gpt-image-2.5-sunburst", description="The model that it draws with.")
    openai_sizes: str = Field(default="", description="`1024x1024, ...`: what it draws. By default the usual ones.")
    image_store: Literal["disk", "s3"] = Field(
        default="disk", description="Where pictures are kept: `disk`, under DATA_DIR, or `s3`, any S3: R2, MinIO, AWS."
    )
    image_retention_days: int | None = Field(
        default=None, ge=1, le=36_500, description="How long pictures are kept. By default until they are deleted."
    )
    s3_bucket: str = Field(default="", description="The bucket.")
    s3_endpoint: str = Field(default="", description="Where it is. By default AWS, in S3_REGION.")
    s3_region: str = Field(default="auto", description="Its region; `auto` for R2.")
    s3_access_key_id: str = Field(default="", description="Who writes and reads there.")
    s3_secret_access_key: SecretStr | None = Field(default=None, description="The secret of that key.")
    s3_prefix: str = Field(default="", description="What the names of all pictures in the bucket begin with.")
    s3_redirect_seconds: int | None = Field(
        default=None,
        ge=1,
        le=604_800,
        description="Lead callers to the bucket for pictures, with addresses that are good for so long.",
    )
    s3_allow_http: bool = Field(default=False, description="Let S3_ENDPOINT be plain HTTP on another machine.")

    @field_validator(
        "gemini_api_key",
        "openai_api_key",
        "s3_secret_access_key",
        "s3_redirect_seconds",
        "image_retention_days",
        mode="before",
    )
    @classmethod
    def _nothing_is_unset(cls, value: object) -> object:
        return None if value == "" else value

    @field_validator("gemini_base_url", "openai_base_url")
    @classmethod
    def _keeps_the_key_secret(cls, value: str) -> str:
        parts = urlsplit(value)
        is_here = parts.hostname in {"127.0.0.1", "::1", "localhost"}
        if not parts.hostname or parts.scheme not in {"https", "http"} or (parts.scheme == "http" and not is_here):
            raise ValueError("must begin with https://, unless it is on this machine")
        return value

    @property
    def uses_stub(self) -> bool:
        """Whether the stub draws for live keys too, so that no image costs."""
        return self.image_provider == "stub"

    @property
    def model(self) -> str:
        """The name of the model that draws for live keys."""
        models = {"gemini": self.gemini_model, "openai": self.openai_model}
        return models.get(self.image_provider, self.image_provider)
