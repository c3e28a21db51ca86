"""What is wrong with a `.env` file, before its values are read."""

from io import StringIO
from pathlib import Path

from dotenv.parser import Binding, parse_stream

from app.core import files


class UnreadableEnvFileError(Exception):
    """The reason, as the end of a sentence. It holds no value."""


def check_env_file(path: Path) -> None:
    """Raises UnreadableEnvFileError for a file of which a line would not be read as it is meant, or that is no file.

    A file that is not there is fine.
    """
    try:
        text = files.read(path).decode()
    except FileNotFoundError:
        return
    except OSError as error:
        raise UnreadableEnvFileError(error.strerror) from None
    except UnicodeDecodeError:
        raise UnreadableEnvFileError("it is not UTF-8") from None
    if "\0" in text:
        raise UnreadableEnvFileError("it has a NUL character in it")
    for binding in parse_stream(StringIO(text)):
        if binding.error or (binding.key and binding.value is None):
            raise UnreadableEnvFileError(f"line {_line(binding)} does not look like NAME=value")


def _line(binding: Binding) -> int:
    """The number of its line: the parser's is that of the first empty line above it."""
    above, number = binding.original
    return number + above[: len(above) - len(above.lstrip())].count("\n")
