"""The settings of the process environment, of `.env` and of files with secrets."""

import os
import re
from collections.abc import Mapping

from pydantic import ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from app.core import locations
from app.core.env_file import UnreadableEnvFileError, check_env_file
from app.core.secret_files import SecretFileError, read_secret_files
from app.core.settings import ConfigurationError, Settings

_PYDANTIC_SUBJECT = re.compile(r"^(Value error, |Input |String )")  # the sentence has the setting's name instead


def load_settings() -> Settings:
    """The settings of the process environment and of `.env`; the environment wins, with an empty value too.

    What .env has of OTEL_* is put into the process environment, where OpenTelemetry's SDK reads it. Raises
    ConfigurationError with one line per setting that cannot be used.
    """
    try:
        env_file = locations.base_folder() / ".env"
        check_env_file(env_file)
        given = _Given(_env_file=env_file)
        more = given.model_extra or {}
        settings = Settings(**{name: getattr(given, name) for name in given.model_fields_set - more.keys()})
    except ValidationError as error:
        raise ConfigurationError("\n".join(_sentences(error))) from None
    except SecretFileError as error:
        raise ConfigurationError(f"{error}.") from None
    except (UnreadableEnvFileError, FileNotFoundError) as error:  # or there is no working folder to look for it in
        reason = error.strerror if isinstance(error, OSError) else error
        raise ConfigurationError(f"The settings in .env cannot be read: {reason}.") from None
    for_traces = {name for name in more if name.startswith("otel_")}
    os.environ.update({name.upper(): more[name] for name in for_traces if name.upper() not in os.environ})
    unknown = more.keys() - for_traces
    if unknown and settings.models_file is None:  # else they may be keys that the file of models names
        raise ConfigurationError("\n".join(map(unknown_setting, sorted(unknown))))
    return settings


def unknown_setting(name: str) -> str:
    """The sentence about a name in .env that is no setting."""
    return f"{name.upper()} is set in .env, but is no setting; `nanobanana settings` lists them all."


class _Given(Settings, BaseSettings):
    model_config = SettingsConfigDict(env_file_encoding="utf-8", extra="allow")

    @model_validator(mode="before")
    @classmethod
    def _with_secrets_of_files(cls, values: dict[str, object]) -> dict[str, object]:
        return read_secret_files(cls, values)


def _sentences(error: ValidationError) -> Mapping[str, None]:
    sentences: dict[str, None] = {}
    for problem in error.errors(include_input=False, include_url=False, include_context=False):
        name = str(problem["loc"][0]).upper() if problem["loc"] else "SETTINGS"
        sentences[f"{name} {_PYDANTIC_SUBJECT.sub('', problem['msg'])}"] = None
    return sentences
