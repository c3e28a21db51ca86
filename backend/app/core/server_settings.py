"""The settings of the server: where it listens, who is in front of it, and what it shows of itself."""

import re
from contextlib import suppress
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from typing import Annotated

from pydantic import BaseModel, Field, SecretStr, ValidationInfo, field_validator
from pydantic_settings import NoDecode

from app.core.url_format import split_url

_ORIGIN = re.compile(r"https?://(\[[^\s/?#@\[\]]+\]|[^\s/?#@:\[\]]+)(:[^\s/?#@:\[\]]+)?/*")

Network = IPv4Network | IPv6Network


class ServerSettings(BaseModel):
    """Where the server listens, who is in front of it, and what it shows of itself."""

    host: str = Field(default="127.0.0.1", min_length=1, description="The address to listen on.")
    port: int = Field(default=8000, ge=1, le=65535, description="The TCP port to listen on.")
    workers: int = Field(
        default=1, ge=1, le=256, description="Server processes that share the port. One that dies is restarted."
    )
    drain_seconds: float = Field(
        default=0,
        ge=0,
        le=600,
        description=(
            "How long a server that is asked to stop goes on taking calls, for proxies to turn to another: `/ready` is "
            "a 503 meanwhile, and every response ends its connection. 5 behind a proxy; a second signal cuts it short."
        ),
    )
    public_url: str = Field(
        default="",
        description=(
            "What every URL in an answer begins with, such as `https://images.example.com`; "
            "never taken from a request. By default `http://HOST:PORT`, "
            "or the name that was asked for if that is `localhost`, `127.0.0.1` or `[::1]`."
        ),
    )
    trusted_proxies: Annotated[tuple[Network, ...], NoDecode] = Field(
        default=(),
        description=(
            "Networks, comma-separated, whose `X-Forwarded-For` is trusted, such as `10.0.0.0/8,fd00::/8`. "
            "By default none."
        ),
    )
    security_contact: str | None = Field(
        default=None,
        description=(
            "Where vulnerabilities are reported, for `/.well-known/security.txt`: `mailto:security@example.com`, or an "
            "`https` address. Without it, that is a 404."
        ),
    )
    metrics_token: SecretStr | None = Field(
        default=None,
        description="The bearer token that Prometheus sends to `/metrics`. Without it, `/metrics` is a 404.",
    )
    metrics_port: int | None = Field(
        default=None,
        ge=1,
        le=65535,
        description=(
            "A TCP port that shows the metrics of all workers without a token, on `METRICS_HOST`. By default there is "
            "none."
        ),
    )
    metrics_host: str = Field(
        default="127.0.0.1",
        min_length=1,
        description="The address of `METRICS_PORT`: one that only Prometheus reaches.",
    )

    @field_validator("metrics_token")
    @classmethod
    def _can_be_sent(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not re.fullmatch(r"[!-~]+", value.get_secret_value()):
            raise ValueError("must be visible ASCII characters, without spaces")
        return value

    @field_validator("security_contact")
    @classmethod
    def _can_be_contacted(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"mailto:[!-~]+@[!-~]+|https://[!-~]+", value):
            raise ValueError("must be mailto: and an address, or begin with https://")
        return value

    @field_validator("trusted_proxies", mode="before")
    @classmethod
    def _comma_separated(cls, value: object) -> object:
        if not isinstance(value, str):
            return value
        try:
            return tuple(ip_network(part.strip()) for part in value.split(",") if part.strip())
        except ValueError:
            raise ValueError("must be networks such as 10.0.0.0/8, separated by commas") from None

    @field_validator("public_url")
    @classmethod
    def _an_origin(cls, value: str, info: ValidationInfo) -> str:
        if not value:
            return _own_address(info.data.get("host", ""), info.data.get("port", 0))
        if not _ORIGIN.fullmatch(value):
            raise ValueError("must look like https://images.example.com, without a path: all routes are at the root")
        split_url(value)
        return value.rstrip("/")


def _own_address(host: str, port: int) -> str:
    with suppress(ValueError):
        if ip_address(host).is_unspecified:
            host = "localhost"
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"
