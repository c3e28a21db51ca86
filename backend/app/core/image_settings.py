"""The settings of images: the provider that generates them, and the store that keeps them."""

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, Field, SecretStr, ValidationInfo, field_validator

from app.core.url_format import split_url

LOCAL_HOSTS = ("127.0.0.1", "::1", "localhost")
"""The names of this machine: they are reached without the proxy, and may be reached without TLS."""

StoreName = Literal["disk", "s3"]

DEFAULT_BASE_URLS = {"gemini": "https://generativelanguage.googleapis.com", "openai": "https://api.openai.com/v1"}


def checked_base_url(value: str) -> str:
    """The URL below which a provider is called. Raises ValueError for one by which a key could get to others."""
    parts = split_url(value)
    schemes = {"http", "https"} if parts.hostname in LOCAL_HOSTS else {"https"}
    if not parts.hostname or parts.scheme not in schemes:
        raise ValueError("must begin with https:// and a host, unless it is on this machine")
    if parts.username is not None:
        raise ValueError("must hold no user or password: the key is a setting of its own")
    if "#" in value:
        raise ValueError("must have no # in it: no path can be joined to it")
    return value


class ImageSettings(BaseModel):
    """Providers draw the images, and a store keeps them. Test keys always use the stub."""

    image_provider: Literal["stub", "gemini", "openai"] = Field(
        default="stub",
        description="What draws for live keys: the built-in stub, Gemini, or any endpoint with OpenAI's image API.",
    )
    models_file: Path | None = Field(
        default=None,
        description=(
            "A file in TOML of the models that callers can ask for, their prices, and the providers that draw them; "
            "relative to `.env`. By default there is one model, `nano-banana`, drawn by `IMAGE_PROVIDER`."
        ),
    )
    strict_model_names: bool = Field(
        default=False,
        description=(
            "Without `MODELS_FILE`: refuse names such as `gpt-image-1` and `dall-e-3`, which unmodified clients ask "
            "for. By default they mean the one model."
        ),
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
        description="Images that a provider draws for one process at a time. As many more wait; beyond that, 503.",
    )
    provider_calls_max_per_account: int | None = Field(
        default=None,
        ge=1,
        le=100_000,
        description=(
            "The same for one account, so that it cannot take what others need. By default half of "
            "`PROVIDER_CALLS_MAX`, rounded up."
        ),
    )
    gemini_api_key: SecretStr | None = Field(
        default=None, description="The key for Gemini, sent as `x-goog-api-key`, never in an address."
    )
    gemini_base_url: str = Field(
        default=DEFAULT_BASE_URLS["gemini"],
        description="Where Gemini is: `https`, unless it is on this machine.",
    )
    gemini_api_version: str = Field(default="v1beta", description="The version in Gemini's addresses.")
    gemini_model: str = Field(default="gemini-2.5-flash-image", description="The model of Gemini that draws.")
    gemini_sizes: str = Field(
        default="",
        description=(
            "The sizes that callers may ask for, and what Gemini draws for them: "
            "`1024x1024=1:1/1K, 1536x1024=3:2/1K`. By default the usual ones."
        ),
    )
    gemini_capabilities: str = Field(
        default="edit, references:3",
        description=(
            "What that model takes besides prompt and size, comma-separated, of `edit` (an image to change) and "
            "`references:N` (so many images, at most 16)."
        ),
    )
    openai_api_key: SecretStr | None = Field(default=None, description="The key for the OpenAI-compatible endpoint.")
    openai_base_url: str = Field(
        default=DEFAULT_BASE_URLS["openai"],
        description=(
            "Where the OpenAI-compatible endpoint is: `https`, unless it is on this machine. "
            "A query, such as `?api-version=X`, is sent with every call."
        ),
    )
    openai_model: str = Field(default="gpt-image-2.5-sunburst", description="The model of that endpoint that draws.")
    openai_sizes: str = Field(
        default="", description="The sizes that callers may ask for: `1024x1024, 1536x1024`. By default the usual ones."
    )
    openai_capabilities: str | None = Field(
        default=None,
        description=(
            "What that endpoint takes besides prompt and size, comma-separated, of `quality`, `transparent`, "
            "`compression`, `stream`, `edit` (an image to change), `mask` and `references:N` (so many images, at most "
            "16). By default all of them at OpenAI itself, and none elsewhere."
        ),
    )
    egress_proxy: SecretStr | None = Field(
        default=None,
        description=(
            "The HTTP proxy through which providers, their downloads and the S3 are reached; this machine is not: "
            "`http://proxy.example.com:3128`, with `user:password@` if it needs that. `HTTPS_PROXY` is not followed."
        ),
    )
    egress_ca_file: Path | None = Field(
        default=None,
        description=(
            "A file of certificates in PEM that are trusted besides the system's, for providers, the S3 and the proxy. "
            "`SSL_CERT_FILE` is not followed."
        ),
    )
    image_store: StoreName = Field(
        default="disk",
        description="Where images are kept: on disk under `DATA_DIR`, or in any S3 (Cloudflare R2, MinIO, AWS).",
    )
    second_image_store: StoreName | None = Field(
        default=None,
        description=(
            "The other store, while images move: what is not in `IMAGE_STORE` is looked for there, and images are "
            "deleted in both."
        ),
    )
    image_retention_days: int | None = Field(
        default=None, ge=1, le=36_500, description="How many days images are kept. By default until they are deleted."
    )
    s3_bucket: str = Field(default="", description="The bucket in the S3.")
    s3_endpoint: str = Field(default="", description="Where the S3 is. By default AWS, in `S3_REGION`.")
    s3_region: str = Field(default="auto", description="The bucket's region; `auto` for R2.")
    s3_access_key_id: SecretStr | None = Field(
        default=None, description="The key that writes, reads, lists and deletes in the bucket."
    )
    s3_secret_access_key: SecretStr | None = Field(
        default=None, description="The secret of the key `S3_ACCESS_KEY_ID`."
    )
    s3_prefix: str = Field(default="", description="What the names of all images in the bucket begin with.")
    s3_redirect_seconds: int | None = Field(
        default=None,
        ge=1,
        le=604_800,
        description=(
            "Redirect requests for images to signed addresses of the bucket, which are good for so many seconds. "
            "By default images go through this server."
        ),
    )
    s3_allow_http: bool = Field(default=False, description="Let `S3_ENDPOINT` be plain HTTP on another machine.")

    @field_validator("gemini_base_url", "openai_base_url")
    @classmethod
    def _keeps_the_key_secret(cls, value: str) -> str:
        return checked_base_url(value)

    @field_validator("second_image_store")
    @classmethod
    def _the_other_one(cls, value: StoreName | None, info: ValidationInfo) -> StoreName | None:
        if value is not None and value == info.data.get("image_store"):
            raise ValueError("must be another store than IMAGE_STORE")
        return value

    @field_validator("egress_proxy")
    @classmethod
    def _an_http_proxy(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            parts = split_url(value.get_secret_value())
            is_proxy = parts.scheme in {"http", "https"} and bool(parts.hostname)
            if not is_proxy or parts.path not in {"", "/"} or parts.query or parts.fragment:
                raise ValueError(
                    "must look like http://proxy.example.com:3128, or http://user:password@proxy.example.com:3128"
                )
        return value

    @field_validator("s3_endpoint")
    @classmethod
    def _can_be_read(cls, value: str) -> str:
        split_url(value)
        return value

    def share_of_account(self, calls_max: int) -> int:
        """How many images of one account a provider draws for one process at a time, of `calls_max` in all."""
        return min(self.provider_calls_max_per_account or -(-calls_max // 2), calls_max)

    @property
    def model(self) -> str:
        """The model of live keys: `stub`, or the name that is sent to the provider."""
        models = {"gemini": self.gemini_model, "openai": self.openai_model}
        return models.get(self.image_provider, self.image_provider)
