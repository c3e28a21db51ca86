"""Where a field stands in a TOML text: for the sentences about mistakes, since the parser keeps no lines."""

import re
import tomllib
from collections.abc import Iterator, Sequence

Path = tuple[str | int, ...]
"""The keys that lead to a field; numbers count the tables of an array, from 0."""

_HEADER = re.compile(r"\s*(\[\[?)(.+?)\]\]?\s*(#.*)?")


def line_of(text: str, path: Path) -> int:
    """The line, from 1, of the field at this path, or else of what it would stand in."""
    lines = dict(_places(text))
    return next((lines[path[:length]] for length in range(len(path), 0, -1) if path[:length] in lines), 1)


def _places(text: str) -> Iterator[tuple[Path, int]]:
    """Each path that a line of its own begins with, the first line last."""
    found: list[tuple[Path, int]] = []
    table: Path = ()
    arrays: dict[tuple[str, ...], int] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if header := _HEADER.fullmatch(line):
            keys = _keys(header[2])
            if header[1] == "[[":
                arrays[keys] = arrays.get(keys, -1) + 1
            table = _with_numbers(keys, arrays)
            found += [(table[:length], number) for length in range(1, len(table) + 1)]
        elif "=" in line:
            path = table + _keys(line.partition("=")[0])
            found += [(path[:length], number) for length in range(len(table) + 1, len(path) + 1)]
    return reversed(found)


def _with_numbers(keys: Sequence[str], arrays: dict[tuple[str, ...], int]) -> Path:
    path: Path = ()
    for length, key in enumerate(keys, 1):
        number = arrays.get(tuple(keys[:length]))
        path += (key,) if number is None else (key, number)
    return path


def _keys(dotted: str) -> tuple[str, ...]:
    """The keys of a dotted name, some of them quoted; nothing for a line that is none."""
    try:
        value = tomllib.loads(f"{dotted} = 0")
    except tomllib.TOMLDecodeError:
        return ()
    keys: list[str] = []
    while isinstance(value, dict) and value:
        [(key, value)] = value.items()
        keys.append(key)
    return tuple(keys)
