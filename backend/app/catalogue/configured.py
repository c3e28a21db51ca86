"""The catalogue of the settings: what MODELS_FILE describes, or one model that the provider of the settings draws."""

import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TypeVar, cast

from dotenv import dotenv_values
from pydantic import SecretStr

from app.catalogue.file import FileMistakes, read_catalogue
from app.catalogue.model import (
    CAPABILITIES,
    REFERENCES_MAX,
    STUB_CAPABILITIES,
    Catalogue,
    Model,
    Route,
    is_capability,
)
from app.core import files, locations
from app.core.image_settings import DEFAULT_BASE_URLS
from app.core.secret_files import SecretFileError, read_secret, secret_names
from app.core.settings import ConfigurationError, Settings
from app.core.settings_loading import unknown_setting
from app.providers.gemini import GEMINI_SIZES, parse_frames
from app.providers.openai import OPENAI_SIZES, parse_sizes

DEFAULT_MODEL = "nano-banana"

Parsed = TypeVar("Parsed")


def catalogue_of(settings: Settings) -> Catalogue:
    """Raises ConfigurationError for a file that cannot be read, with a line for each mistake in it, for settings of a
    provider that are missing or cannot be read, and for BILLING=on without a price.
    """
    catalogue = _of_one_model(settings) if settings.models_file is None else _of_file(settings, settings.models_file)
    if settings.charges and catalogue.currency is None:
        raise ConfigurationError("BILLING is on, but no model has a price: write prices and a currency to MODELS_FILE.")
    return catalogue


def _of_file(settings: Settings, path: Path) -> Catalogue:
    secrets = _NamedSecrets(settings)
    try:
        text = files.read(path).decode()
    except (OSError, UnicodeDecodeError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not UTF-8"
        raise ConfigurationError(f"MODELS_FILE ({path}) cannot be read: {reason}.") from None
    try:
        catalogue = read_catalogue(text, find_secret=secrets.find, calls_max=settings.provider_calls_max)
    except FileMistakes as mistakes:
        raise ConfigurationError("\n".join(f"MODELS_FILE, {each}." for each in mistakes.sentences)) from None
    if unknown := secrets.never_asked_for():
        raise ConfigurationError("\n".join(map(unknown_setting, unknown)))
    return catalogue


def _of_one_model(settings: Settings) -> Catalogue:
    choose = {"gemini": _gemini_route, "openai": _openai_route, "stub": _stub_route}[settings.image_provider]
    aliases = [] if settings.model == DEFAULT_MODEL else [settings.model]
    model = Model(name=DEFAULT_MODEL, title="Nano Banana", routes=[choose(settings)], aliases=aliases)
    return Catalogue(
        models={model.name: model}, default=model.name, has_built_in_aliases=not settings.strict_model_names
    )


def _stub_route(_settings: Settings) -> Route:
    return Route(name=DEFAULT_MODEL, provider="stub", capabilities=STUB_CAPABILITIES)


def _gemini_route(settings: Settings) -> Route:
    if settings.gemini_api_key is None:
        raise ConfigurationError("IMAGE_PROVIDER is gemini, but GEMINI_API_KEY is missing.")
    frames = _parsed("GEMINI_SIZES", parse_frames, settings.gemini_sizes or GEMINI_SIZES)
    return Route(
        name=DEFAULT_MODEL,
        provider="gemini",
        model=settings.gemini_model,
        base_url=settings.gemini_base_url,
        api_version=settings.gemini_api_version,
        key=settings.gemini_api_key,
        sizes=list(frames),
        frames=frames,
        capabilities=_parsed("GEMINI_CAPABILITIES", _parse_capabilities, settings.gemini_capabilities),
        calls_max=settings.provider_calls_max,
    )


def _openai_route(settings: Settings) -> Route:
    return Route(
        name=DEFAULT_MODEL,
        provider="openai",
        model=settings.openai_model,
        base_url=settings.openai_base_url,
        key=settings.openai_api_key,
        sizes=_parsed("OPENAI_SIZES", parse_sizes, settings.openai_sizes or OPENAI_SIZES),
        capabilities=_parsed("OPENAI_CAPABILITIES", _parse_capabilities, _capabilities(settings)),
        calls_max=settings.provider_calls_max,
    )


_OF_OPENAI = "quality, transparent, compression, stream, edit, mask, references:16"


def _capabilities(settings: Settings) -> str:
    if settings.openai_capabilities is not None:
        return settings.openai_capabilities
    return _OF_OPENAI if settings.openai_base_url == DEFAULT_BASE_URLS["openai"] else ""


def _parse_capabilities(text: str) -> frozenset[str]:
    named = [each.strip() for each in text.split(",") if each.strip()]
    if not all(map(is_capability, named)):
        raise ValueError(f"there are {', '.join(CAPABILITIES)} and references:1 to {REFERENCES_MAX}")
    return frozenset(named)


def _parsed(name: str, parse: Callable[[str], Parsed], text: str) -> Parsed:
    try:
        return parse(text)
    except ValueError as error:
        raise ConfigurationError(f"{name} cannot be read: {error}.") from None


class _NamedSecrets:
    """The secrets that a file of models names: a setting, or a variable of the environment or of .env, or the content
    of the file that NAME_FILE names.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        env_file = locations.base_folder() / ".env"
        self._written: Mapping[str, str | None] = dotenv_values(env_file) if env_file.is_file() else {}
        self._asked: set[str] = set()

    def find(self, name: str) -> SecretStr:
        """Raises LookupError, with the end of a sentence."""
        setting = getattr(self._settings, name.lower(), None) if name.lower() in secret_names(Settings) else None
        if setting is not None:
            return cast(SecretStr, setting)
        self._asked |= {name, f"{name}_FILE"}
        value, path = self._value(name), self._value(f"{name}_FILE")
        if value and path:
            raise LookupError(f"but {name} and {name}_FILE are both set")
        if path:
            try:
                return SecretStr(read_secret(path))
            except SecretFileError as error:
                raise LookupError(f"but {name}_FILE {error}") from None
        if not value:
            raise LookupError("which is not set")
        return SecretStr(value)

    def never_asked_for(self) -> list[str]:
        """The names in .env that are neither a setting nor named by the file."""
        settings = {*Settings.model_fields, *(f"{name}_file" for name in secret_names(Settings))}
        return sorted({name for name in self._written if name.lower() not in settings and name not in self._asked})

    def _value(self, name: str) -> str:
        return os.environ.get(name, self._written.get(name) or "").strip()
