"""Every setting of the program, described in its field and validated before anything starts."""

import re
import secrets
from collections.abc import Mapping
from contextlib import suppress
from ipaddress import IPv4Network, IPv6Network, ip_address, ip_network
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import ConfigDict, Field, SecretStr, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, NoDecode, SettingsConfigDict, SettingsError

from app.core import files, locations
from app.core.account_settings import AccountSettings
from app.core.image_settings import ImageSettings
from app.core.limit_settings import LimitSettings

SECRET_BYTES_MIN = 32
SECRET_CHARACTERS_MIN = 10  # different ones: a secret of one repeated key has fewer
_KNOWN_SECRET_WORDS = ("secret", "change", "example", "insecure", "password", "default")
_KNOWN_SECRETS = {"09d25e094faa6ca2556c818166b7a9563b93f7099f6f0f4caa6cf63b88e8d3e7"}  # FastAPI's tutorial
_ADVICE = "Make one with: python3 -c 'import secrets; print(secrets.token_urlsafe(48))'"

_ORIGIN = re.compile(r"https?://(\[[^\s/?#@\[\]]+\]|[^\s/?#@:\[\]]+)(:[^\s/?#@:\[\]]+)?/*")
_REDIS_SCHEMES = {"redis", "rediss", "redis+cluster", "rediss+cluster", "unix"}

Environment = Literal["development", "production"]
Network = IPv4Network | IPv6Network


class ConfigurationError(Exception):
    """The settings cannot be used. The text names the setting and the reason, and holds no value."""


def _default_data_dir() -> Path:
    try:
        return locations.default_data_dir()
    except RuntimeError:
        raise ConfigurationError("DATA_DIR is not set, and this user has no home folder for it to be in.") from None


class Settings(AccountSettings, ImageSettings, LimitSettings):
    """The settings of one run of the program. Frozen, and passed as an argument, never a global."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, validate_default=True)

    environment: Environment = Field(
        default="development",
        description="`production` refuses to start without a `SECRET_KEY` of its own.",
    )
    secret_key: SecretStr | None = Field(
        default=None,
        description=(
            "Signs login tokens: at least 32 bytes, the same on all machines. Changing it ends all logins. "
            "In development one is made and kept in `DATA_DIR`. "
            "Make one with: `python3 -c 'import secrets; print(secrets.token_urlsafe(48))'`"
        ),
    )
    database_url: SecretStr | None = Field(
        default=None,
        description=(
            "The PostgreSQL to use, such as `postgresql+asyncpg://user:password@host/name`. "
            "Without it, `nanobanana serve` starts one of its own."
        ),
    )
    redis_url: SecretStr | None = Field(
        default=None,
        description=(
            "The Redis for limits that all processes share: `redis://host:6379`, `rediss://`, `unix://` or "
            "`redis+cluster://`. One process can do without; `WORKERS` above 1 cannot."
        ),
    )
    data_dir: Path = Field(
        default_factory=_default_data_dir,
        description=(
            "Where the embedded PostgreSQL, the development secret and images on disk live; relative to `.env`. "
            "By default `.data` in the checkout; installed without one, the platform's folder for this user's data."
        ),
    )
    host: str = Field(default="127.0.0.1", min_length=1, description="The address to listen on.")
    port: int = Field(default=8000, ge=1, le=65535, description="The TCP port to listen on.")
    workers: int = Field(
        default=1, ge=1, le=256, description="Server processes that share the port. One that dies is restarted."
    )
    public_url: str = Field(
        default="",
        description=(
            "What every URL in an answer begins with, such as `https://images.example.com`; "
            "never taken from a request. By default `http://HOST:PORT`."
        ),
    )
    trusted_proxies: Annotated[tuple[Network, ...], NoDecode] = Field(
        default=(),
        description=(
            "Networks, comma-separated, whose `X-Forwarded-For` is trusted, such as `10.0.0.0/8,fd00::/8`. "
            "By default none."
        ),
    )
    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = Field(
        default="INFO", description="The lowest level that is logged."
    )
    drawing_queue_max: int = Field(
        default=64,
        ge=1,
        le=100_000,
        description="Images of the stub that may wait to be drawn in one process; beyond it, 503.",
    )
    database_pool_size: int = Field(
        default=10, ge=1, le=1000, description="The most database connections that one process holds."
    )
    record_queue_max: int = Field(
        default=10_000,
        ge=1,
        le=1_000_000,
        description="Generations that may wait to be recorded in one process; beyond it, 503.",
    )
    record_deadline_seconds: float = Field(
        default=5, ge=1, le=60, description="How long a generation may take to be recorded; after that, 503."
    )
    metrics_token: SecretStr | None = Field(
        default=None,
        description="The bearer token that Prometheus sends to `/metrics`. Without it, `/metrics` is a 404.",
    )

    @model_validator(mode="before")
    @classmethod
    def _empty_is_unset(cls, values: dict[str, object]) -> dict[str, object]:
        """White space at the ends of a text is cut; a setting of which nothing remains has its default."""
        cut = {name: value.strip() if isinstance(value, str) else value for name, value in values.items()}
        return {name: value for name, value in cut.items() if value != ""}

    @field_validator("secret_key")
    @classmethod
    def _secret_is_strong(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and (weakness := _weakness(value.get_secret_value().encode())):
            raise ValueError(f"{weakness}. {_ADVICE}")
        return value

    @field_validator("database_url")
    @classmethod
    def _one_driver(cls, value: SecretStr | None) -> SecretStr | None:
        if value is None:
            return None
        scheme, separator, rest = value.get_secret_value().partition("://")
        if not separator or scheme not in {"postgres", "postgresql", "postgresql+asyncpg"}:
            raise ValueError("must begin with postgresql+asyncpg://")
        return SecretStr(f"postgresql+asyncpg://{rest}")

    @field_validator("metrics_token")
    @classmethod
    def _can_be_sent(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and not re.fullmatch(r"[!-~]+", value.get_secret_value()):
            raise ValueError("must be visible ASCII characters, without spaces")
        return value

    @field_validator("redis_url")
    @classmethod
    def _redis_scheme(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None:
            parts = urlsplit(value.get_secret_value())
            if parts.scheme not in _REDIS_SCHEMES:
                raise ValueError("must begin with redis:// or rediss://, or for a cluster with redis+cluster://")
            try:
                _ = parts.port
            except ValueError:
                raise ValueError("has a port that is no number") from None
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

    @field_validator("data_dir", "egress_ca_file")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        try:
            return value and locations.base_folder() / value.expanduser()
        except RuntimeError:
            raise ValueError("begins with a home folder that cannot be found") from None

    @field_validator("public_url")
    @classmethod
    def _an_origin(cls, value: str, info: ValidationInfo) -> str:
        if not value:
            return _own_address(info.data.get("host", ""), info.data.get("port", 0))
        if not _ORIGIN.fullmatch(value):
            raise ValueError("must look like https://images.example.com, without a path: all routes are at the root")
        return value.rstrip("/")

    @property
    def processes(self) -> int:
        """How many processes share the limits, on all machines."""
        return self.limit_processes or self.workers

    def __repr__(self) -> str:
        return "Settings(...)"

    @property
    def signing_secret(self) -> bytes:
        """The secret that login tokens are signed with.

        Raises ConfigurationError where SECRET_KEY is not set: there is no default, which others would know.
        """
        if self.secret_key is None:
            raise ConfigurationError(f"SECRET_KEY is missing. {_ADVICE}")
        return self.secret_key.get_secret_value().encode()

    def with_secret(self) -> Self:
        """These settings with a secret: SECRET_KEY, or in development, where it is not set, the one stored in DATA_DIR.

        Raises ConfigurationError in production without SECRET_KEY, and where the secret in DATA_DIR cannot be read or
        made, or is too weak for a SECRET_KEY.
        """
        if self.secret_key is None and self.environment == "development":
            return self.model_copy(update={"secret_key": SecretStr(_stored_secret(self.data_dir / "secret_key"))})
        _ = self.signing_secret
        return self


def load_settings() -> Settings:
    """The settings of the process environment and of `.env`; the environment wins, with an empty value too.

    Raises ConfigurationError with one line per setting that cannot be used.
    """
    try:
        given = _Given(_env_file=locations.base_folder() / ".env")
        return Settings(**{name: getattr(given, name) for name in given.model_fields_set})
    except ValidationError as error:
        raise ConfigurationError("\n".join(_sentences(error))) from None
    except SettingsError as error:
        raise ConfigurationError(str(error)) from None
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigurationError(f"The settings in .env cannot be read: {reason}.") from None


class _Given(Settings, BaseSettings):
    model_config = SettingsConfigDict(env_file_encoding="utf-8", extra="forbid")


def _own_address(host: str, port: int) -> str:
    with suppress(ValueError):
        if ip_address(host).is_unspecified:
            host = "localhost"
    return f"http://{f'[{host}]' if ':' in host else host}:{port}"


def _sentences(error: ValidationError) -> Mapping[str, None]:
    sentences: dict[str, None] = {}
    for problem in error.errors(include_input=False, include_url=False, include_context=False):
        name = str(problem["loc"][0]).upper() if problem["loc"] else "SETTINGS"
        if problem["type"] == "extra_forbidden":
            sentences[f"{name} is set in .env, but is no setting; `nanobanana settings` lists them all."] = None
        else:
            sentences[f"{name} {problem['msg'].removeprefix('Value error, ')}"] = None
    return sentences


def _weakness(secret: bytes) -> str | None:
    """Why a secret is not to be signed with, as the end of a sentence; None where it is strong enough."""
    try:
        text = secret.decode()
    except UnicodeDecodeError:
        return "is not text in UTF-8"
    if len(secret) < SECRET_BYTES_MIN:
        return f"is shorter than {SECRET_BYTES_MIN} bytes"
    known = text in _KNOWN_SECRETS or any(word in text.lower() for word in _KNOWN_SECRET_WORDS)
    return "is one that others know or can guess" if known or len(set(text)) < SECRET_CHARACTERS_MIN else None


def _stored_secret(path: Path) -> str:
    """The secret in the file, which the first process creates.

    Raises ConfigurationError for a file that cannot be read or made, and for a weak secret, such as an empty one. An
    existing file is never replaced: the operator may have written it.
    """
    try:
        files.make_folder(path.parent)
        secret = files.create_once(path, secrets.token_hex(32).encode())  # hexadecimal digits contain no known word
    except OSError as error:
        reason = f"cannot be read or made ({error.strerror}): mend that"
        raise ConfigurationError(f"The secret in {path} {reason}, or set SECRET_KEY.") from None
    if weakness := _weakness(secret):
        reason = f"{weakness}: delete the file, and the next start makes a new one"
        raise ConfigurationError(f"The secret in {path} {reason}, or set SECRET_KEY.")
    return secret.decode()
