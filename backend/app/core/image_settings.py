"""The settings of images: the provider that generates them, and the store that keeps them."""

from typing import Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, Field, SecretStr, field_validator


class ImageSettings(BaseModel):
    """Providers and stores. Test keys always use the stub."""

    image_provider: Literal["stub", "gemini", "openai"] = Field(
        default="stub",
        description="The provider of live keys: the stub, Gemini, or an OpenAI-compatible endpoint.",
    )
    generation_deadline_seconds: float = Field(
        default=60,
        ge=1,
        le=600,
        description="How long a provider may take for a generation, retries included; then 504.",
    )
    provider_calls_max: int = Field(
        default=1000,
        ge=1,
        le=100_000,
        description="Images that a provider generates for one process at a time; then 503.",
    )
    gemini_api_key: SecretStr | None = Field(default=None, description="The key for Gemini.")
    gemini_base_url: str = Field(default="https://generativelanguage.googleapis.com", description="Gemini's base URL.")
    gemini_api_version: str = Field(default="v1beta", description="The version in Gemini's URLs.")
    gemini_model: str = Field(default="gemini-2.5-flash-image", description="Gemini's model.")
    gemini_sizes: str = Field(
        default="",
        description="`1024x1024=1:1/1K, ...`: sizes, with aspect ratio and resolution. By default the usual ones.",
    )
    openai_api_key: SecretStr | None = Field(default=None, description="The key for the OpenAI-compatible endpoint.")
    openai_base_url: str = Field(
        default="https://api.openai.com/v1", description="The base URL of the OpenAI-compatible endpoint."
    )
    openai_model: str = Field(default="gpt-image-2.5-sunburst", description="The endpoint's model.")
    openai_sizes: str = Field(
        default="", description="`1024x1024, ...`: the sizes that it generates. By default the usual ones."
    )
    image_store: Literal["disk", "s3"] = Field(
        default="disk", description="Where images are stored: `disk`, under DATA_DIR, or `s3`, any S3: R2, MinIO, AWS."
    )
    image_retention_days: int | None = Field(
        default=None, ge=1, le=36_500, description="How long images are kept. By default until they are deleted."
    )
    s3_bucket: str = Field(default="", description="The bucket.")
    s3_endpoint: str = Field(default="", description="The URL of the S3 service. By default AWS, in S3_REGION.")
    s3_region: str = Field(default="auto", description="Its region; `auto` for R2.")
    s3_access_key_id: str = Field(default="", description="The id of the access key that reads and writes the bucket.")
    s3_secret_access_key: SecretStr | None = Field(default=None, description="The secret of that key.")
    s3_prefix: str = Field(default="", description="The prefix of all images' names in the bucket.")
    s3_redirect_seconds: int | None = Field(
        default=None,
        ge=1,
        le=604_800,
        description="Redirect clients to the bucket for images, with URLs that are valid for so long.",
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
    def model(self) -> str:
        """The model of live keys: `stub`, or the name that is sent to the provider."""
        return {"stub": "stub", "gemini": self.gemini_model, "openai": self.openai_model}[self.image_provider]
