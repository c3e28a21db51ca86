"""The settings of images that go into generations: uploads, and URLs that are fetched."""

from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated

from pydantic import BaseModel, Field, field_validator
from pydantic_settings import NoDecode


class InputSettings(BaseModel):
    """Images that callers send in: fetched from `https` URLs, or uploaded."""

    fetch_images: bool = Field(
        default=True,
        description=(
            "Fetch images from URLs that callers send: by `https`, from public addresses alone, and directly, never "
            "through `EGRESS_PROXY`: with that set, from `ALLOW_NETWORKS` alone."
        ),
    )
    allow_networks: Annotated[tuple[IPv4Network | IPv6Network, ...], NoDecode] = Field(
        default=(),
        description=(
            "Networks, comma-separated, such as `10.2.0.0/16`, from which images may be fetched besides the public "
            "ones, at any port. By default none."
        ),
    )
    upload_retention_hours: int = Field(
        default=24, ge=1, le=8760, description="How long an uploaded image is kept, in hours."
    )
    uploads_bytes_per_account: int = Field(
        default=1024**3,
        ge=1024**2,
        le=1024**5,
        description="How many bytes of uploaded images an account may have at a time; beyond it, 409 `uploads_full`.",
    )

    @field_validator("allow_networks", mode="before")
    @classmethod
    def _networks(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        try:
            return tuple(ip_network(part.strip()) for part in value.split(",") if part.strip())
        except ValueError:
            raise ValueError("must be networks such as 10.2.0.0/16 or fd12:3456::/48, separated by commas") from None
