"""Secrets that stand in files: beside each secret setting NAME there is NAME_FILE, which names a file that holds it."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import get_args

from pydantic import BaseModel, SecretStr

from app.core import files, locations

_NO_FILE = "names no file that is there: it takes the path of one, and never the secret itself"


class SecretFileError(Exception):
    """The file of a secret cannot be used. The text holds none of its content."""


def secret_names(settings: type[BaseModel]) -> Sequence[str]:
    """The names of the settings that are secrets, in lower case."""
    return [name for name, field in settings.model_fields.items() if SecretStr in get_args(field.annotation)]


def read_secret_files(settings: type[BaseModel], values: dict[str, object]) -> dict[str, object]:
    """The values, in which each secret whose NAME_FILE is set has the content of that file. NAME_FILE is a variable of
    the environment, or else is among the values, as a line of `.env` is.

    Raises SecretFileError, with a sentence, where both are set and where the file cannot be used.
    """
    read = dict(values)
    for name in secret_names(settings):
        variable = f"{name}_file".upper()
        path = os.environ.get(variable, str(read.pop(variable.lower(), None) or "")).strip()
        if not path:
            continue
        if str(read.get(name) or "").strip():
            raise SecretFileError(f"{name.upper()} and {variable} are both set")
        try:
            read[name] = read_secret(path)
        except SecretFileError as error:
            raise SecretFileError(f"{variable} {error}") from None
    return read


def read_secret(path: str) -> str:
    """The one line of the file, without white space at its ends. A relative path is relative to `.env`.

    Raises SecretFileError, with the end of a sentence that begins with the name of the variable. It names the file only
    where there is one: what names none may be the secret itself.
    """
    try:
        file = locations.base_folder() / Path(path).expanduser()
    except RuntimeError:
        raise SecretFileError("cannot be read: its path begins with a home folder that cannot be found") from None
    try:
        text = files.read(file).decode().strip()
    except OSError as error:
        if not os.path.lexists(file):
            raise SecretFileError(_NO_FILE) from None
        raise SecretFileError(f"({file}) cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SecretFileError(f"({file}) cannot be read: it is not UTF-8") from None
    if not text:
        raise SecretFileError("names an empty file")
    if not text.isprintable():
        raise SecretFileError("names a file that holds more than one line, or control characters")
    return text
