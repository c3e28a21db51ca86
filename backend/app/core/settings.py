"""Every setting of the program, described in its field and validated before anything starts."""

import os
import re
import secrets
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, Self, get_args, get_origin

from pydantic import ConfigDict, Field, SecretStr, ValidationInfo, field_validator, model_validator
from pydantic.fields import FieldInfo

from app.core import files, locations
from app.core.account_settings import AccountSettings
from app.core.billing_settings import BillingSettings
from app.core.cors_settings import CorsSettings
from app.core.database_url import checked_database_url
from app.core.image_settings import ImageSettings
from app.core.input_settings import InputSettings
from app.core.job_settings import JobSettings
from app.core.limit_settings import LimitSettings
from app.core.log_settings import LogSettings, LogStyle
from app.core.secret_strength import weakness_of
from app.core.server_settings import ServerSettings
from app.core.stripe_settings import StripeSettings
from app.core.url_format import split_url

_ADVICE = "Make one with: python3 -c 'import secrets; print(secrets.token_urlsafe(48))'"

_NO_TEXT = re.compile("[\ud800-\udfff]")  # bytes of a variable that are no UTF-8, as Python reads them
_REDIS_SCHEMES = {"redis", "rediss", "redis+cluster", "rediss+cluster", "unix"}

Environment = Literal["development", "production"]


class ConfigurationError(Exception):
    """The settings cannot be used. The text names the setting and the reason, and holds no value but a path."""


def _default_data_dir() -> Path:
    try:
        return locations.default_data_dir()
    except RuntimeError:
        raise ConfigurationError("DATA_DIR is not set, and this user has no home folder for it to be in.") from None


class Settings(
    ServerSettings,
    AccountSettings,
    BillingSettings,
    ImageSettings,
    InputSettings,
    JobSettings,
    LimitSettings,
    StripeSettings,
    CorsSettings,
    LogSettings,
):
    """The settings of one run of the program. Frozen, and passed as an argument, never a global."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, validate_default=True)

    environment: Environment = Field(
        default="development",
        description="`production` refuses to start without a `SECRET_KEY` of its own.",
    )
    secret_key: SecretStr | None = Field(
        default=None,
        description=(
            "Signs login tokens: at least 32 bytes, the same on all machines. Changing it ends all logins, unless the "
            "old one is `SECRET_KEY_PREVIOUS`. In development one is made and kept in `DATA_DIR`. "
            "Make one with: `python3 -c 'import secrets; print(secrets.token_urlsafe(48))'`"
        ),
    )
    secret_key_previous: SecretStr | None = Field(
        default=None,
        description=(
            "A second secret, as strong as `SECRET_KEY`: what it has signed is accepted, and nothing is signed with "
            "it. For the time in which `SECRET_KEY` is replaced."
        ),
    )
    database_url: SecretStr | None = Field(
        default=None,
        description=(
            "The PostgreSQL to use, such as `postgresql+asyncpg://user:password@host/name`. "
            "Without it, `nanobanana serve` starts one of its own."
        ),
    )
    database_direct_url: SecretStr | None = Field(
        default=None,
        description=(
            "The same database without the pooler, where `DATABASE_URL` is one in transaction mode: for recording and "
            "migrations, which need a session of their own. By default `DATABASE_URL`."
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
    drawing_queue_max: int = Field(
        default=64,
        ge=1,
        le=100_000,
        description=(
            "Images of the stub that may wait to be drawn in one process, and images that may wait to be scaled: "
            "places that clients' addresses share. Beyond it, 503."
        ),
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
    ledger_retention_days: int | None = Field(
        default=None,
        ge=35,
        le=36_500,
        description=(
            "How many days recorded generations are kept at least: a month is dropped when all of it is older, "
            "images included, and stays counted in usage. By default for ever."
        ),
    )

    @model_validator(mode="before")
    @classmethod
    def _as_meant(cls, values: dict[str, object]) -> dict[str, object]:
        """White space at the ends of a text is cut; a setting of which nothing remains has its default. A choice may be
        written in capital and small letters.
        """
        cut = {name: value.strip() if isinstance(value, str) else value for name, value in values.items()}
        return {name: _spelled(value, cls.model_fields.get(name)) for name, value in cut.items() if value != ""}

    @field_validator("*", mode="before")
    @classmethod
    def _is_text(cls, value: object, info: ValidationInfo) -> object:
        """A variable may hold any bytes. In a path they mean a file; elsewhere an error would quote them."""
        if isinstance(value, str) and info.field_name != "data_dir" and _NO_TEXT.search(value):
            raise ValueError("is not UTF-8")
        return value

    @field_validator("secret_key", "secret_key_previous")
    @classmethod
    def _secret_is_strong(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and (weakness := weakness_of(value.get_secret_value().encode())):
            raise ValueError(f"{weakness}. {_ADVICE}")
        return value

    @field_validator("secret_key_previous")
    @classmethod
    def _is_another_secret(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if value is not None and "secret_key" in info.data:
            if info.data["secret_key"] is None:
                raise ValueError("is set, but SECRET_KEY is not")
            if value == info.data["secret_key"]:
                raise ValueError("is the same as SECRET_KEY: it is for the one that SECRET_KEY replaces")
        return value

    @field_validator("database_url", "database_direct_url")
    @classmethod
    def _can_be_translated(cls, value: SecretStr | None, info: ValidationInfo) -> SecretStr | None:
        if value is not None and info.field_name == "database_direct_url" and not info.data.get("database_url"):
            raise ValueError("is set, but DATABASE_URL is not")
        return value and SecretStr(checked_database_url(value.get_secret_value()))

    @field_validator("redis_url")
    @classmethod
    def _redis_scheme(cls, value: SecretStr | None) -> SecretStr | None:
        if value is not None and split_url(value.get_secret_value()).scheme not in _REDIS_SCHEMES:
            raise ValueError("must begin with redis:// or rediss://, or for a cluster with redis+cluster://")
        return value

    @field_validator("data_dir", "egress_ca_file", "models_file")
    @classmethod
    def _absolute(cls, value: Path | None) -> Path | None:
        try:
            return value and locations.base_folder() / value.expanduser()
        except RuntimeError:
            raise ValueError("begins with a home folder that cannot be found") from None

    @property
    def processes(self) -> int:
        """How many processes share the limits, on all machines."""
        return self.limit_processes or self.workers

    @property
    def log_style(self) -> LogStyle:
        """How lines are written, LOG_FORMAT=auto resolved."""
        if self.log_format == "auto":
            return "json" if self.environment == "production" else "text"
        return self.log_format

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

    @property
    def accepted_secrets(self) -> Sequence[bytes]:
        """The secrets whose signatures are accepted: `signing_secret`, then SECRET_KEY_PREVIOUS where it is set.

        Raises what `signing_secret` raises.
        """
        previous = self.secret_key_previous
        return [self.signing_secret, *([previous.get_secret_value().encode()] if previous else [])]

    def check_secret(self) -> None:
        """Raises what `with_secret` raises about the secret that there is, and makes none."""
        if self.secret_key or self.environment == "production" or os.path.lexists(self._secret_path):
            self.with_secret()

    @property
    def _secret_path(self) -> Path:
        return self.data_dir / "secret_key"

    def with_secret(self) -> Self:
        """These settings with a secret: SECRET_KEY, or in development, where it is not set, the one stored in DATA_DIR.

        Raises ConfigurationError in production without SECRET_KEY, and where the secret in DATA_DIR cannot be read or
        made, or is too weak for a SECRET_KEY.
        """
        if self.secret_key is None and self.environment == "development":
            return self.model_copy(update={"secret_key": SecretStr(_stored_secret(self._secret_path))})
        _ = self.signing_secret
        return self


def _spelled(value: object, field: FieldInfo | None) -> object:
    """The choice that the value is, whatever its case; the value where it is none."""
    kinds = (field.annotation, *get_args(field.annotation)) if field else ()  # one of them where it may be None too
    choices = [choice for kind in kinds if get_origin(kind) is Literal for choice in get_args(kind)]
    return next((choice for choice in choices if isinstance(value, str) and choice.lower() == value.lower()), value)


def _stored_secret(path: Path) -> str:
    """The secret in the file, which the first process creates.

    Raises ConfigurationError for a folder that cannot be made or written, for a file that cannot be read, and for a
    weak secret, such as an empty one. An existing file is never replaced: the operator may have written it.
    """
    try:
        files.make_folder(path.parent)
        secret = files.create_once(path, secrets.token_hex(32).encode())  # hexadecimal digits contain no known word
    except OSError as error:
        if not os.path.lexists(path):
            raise ConfigurationError(f"DATA_DIR ({path.parent}) cannot be written: {error.strerror}.") from None
        reason = f"cannot be read or made ({error.strerror}): mend that"
        raise ConfigurationError(f"The secret in {path} {reason}, or set SECRET_KEY.") from None
    if weakness := weakness_of(secret):
        reason = f"{weakness}: delete the file, and the next start makes a new one"
        raise ConfigurationError(f"The secret in {path} {reason}, or set SECRET_KEY.")
    return secret.decode()
