"""The forms that Stripe's SDK sends, read and checked against the types of the SDK's own parameters."""

import re
from collections.abc import Callable, Mapping
from decimal import Decimal, InvalidOperation
from functools import cache
from types import NoneType, UnionType
from typing import Any, Literal, Union, cast, get_args, get_origin
from urllib.parse import parse_qsl

from stripe import RequestOptions, StripeObject
from typing_extensions import get_type_hints, is_typeddict

Json = dict[str, Any]

_KEY = re.compile(r"([^\[\]]+)((?:\[[^\[\]]*\])*)")


class StripeFault(Exception):
    """An error in Stripe's shape."""

    def __init__(
        self, status: int, message: str, *, code: str = "", param: str = "", kind: str = "invalid_request_error"
    ) -> None:
        super().__init__(message)
        self.status = status
        said = {"type": kind, "code": code, "param": param, "message": message}
        self.body = {"error": {name: value for name, value in said.items() if value}}


def decoded(form: str) -> Json:
    """`a[b][0]=c` as `{"a": {"b": ["c"]}}`."""
    root: Json = {}
    for key, value in parse_qsl(form, keep_blank_values=True, strict_parsing=bool(form)):
        match = _KEY.fullmatch(key)
        if match is None:
            raise StripeFault(400, f"Invalid parameter: {key}", param=key)
        path = [match[1], *re.findall(r"\[([^\]]*)\]", match[2])]
        inner = root
        for name in path[:-1]:
            inner = inner.setdefault(name, {})
        inner[path[-1]] = value
    return {name: _with_lists(value) for name, value in root.items()}


def _with_lists(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    inner = {name: _with_lists(each) for name, each in value.items()}
    is_list = list(inner) == [str(index) for index in range(len(inner))]
    return list(inner.values()) if is_list else inner


def checked(params: Mapping[str, Any], wanted: type, *, path: str = "") -> Json:
    """The parameters with the types that the TypedDict gives them. Raises StripeFault for one that it does not have,
    one that is missing, and one of another type.
    """
    hints = _hints(wanted)
    for name in params:
        if name not in hints:
            param = f"{path}[{name}]" if path else name
            raise StripeFault(400, f"Received unknown parameter: {param}", code="parameter_unknown", param=param)
    for name in cast("Any", wanted).__required_keys__ & hints.keys():
        if name not in params:
            param = f"{path}[{name}]" if path else name
            raise StripeFault(400, f"Missing required param: {param}.", code="parameter_missing", param=param)
    return {name: _typed(value, hints[name], f"{path}[{name}]" if path else name) for name, value in params.items()}


@cache
def _hints(wanted: type) -> Mapping[str, Any]:
    of_options = {
        "StripeContext": object,
        "Mapping": Mapping,
    }  # names of the module that the options are inherited from
    hints = get_type_hints(wanted, localns=of_options)
    return {name: hint for name, hint in hints.items() if name not in RequestOptions.__annotations__}


def _typed(value: Any, hint: Any, path: str) -> Any:
    origin, arguments = get_origin(hint), get_args(hint)
    if origin in {Union, UnionType}:
        return _one_of(value, [each for each in arguments if each is not NoneType], path)
    if is_typeddict(hint) and isinstance(value, dict):
        return checked(value, hint, path=path)
    if origin is list and isinstance(value, list):
        return [_typed(each, arguments[0], f"{path}[{index}]") for index, each in enumerate(value)]
    if origin is dict and isinstance(value, dict):
        return {str(name): _typed(each, arguments[1], f"{path}[{name}]") for name, each in value.items()}
    if origin is Literal and value in arguments:
        return value
    if isinstance(value, str) and (hint in _SCALARS or hint is str):
        return value if hint is str else _scalar(value, hint, path)
    raise StripeFault(400, f"Invalid value for {path}", param=path)


def _one_of(value: Any, hints: list[Any], path: str) -> Any:
    """The first that fits. Where the SDK lists values, it allows any text besides, for those that it does not know
    yet: here these are errors. A list of the empty text alone means that a parameter can be emptied.
    """
    lists = [hint for hint in hints if get_origin(hint) is Literal and get_args(hint) != ("",)]
    failure = StripeFault(400, f"Invalid value for {path}", param=path)
    for hint in hints:
        if (hint is str and lists) or (isinstance(hint, type) and issubclass(hint, StripeObject)):
            continue
        try:
            return _typed(value, hint, path)
        except StripeFault as fault:
            failure = fault
    raise failure


def _scalar(value: str, hint: Any, path: str) -> Any:
    try:
        return _SCALARS[hint](value)
    except (ValueError, KeyError, InvalidOperation):
        raise StripeFault(
            400, f"Invalid {hint.__name__}: {value}", code=f"parameter_invalid_{_NAMES[hint]}", param=path
        ) from None


_SCALARS: Mapping[Any, Callable[[str], Any]] = {
    int: int,
    bool: {"true": True, "false": False}.__getitem__,
    float: float,
    Decimal: Decimal,
}
_NAMES = {int: "integer", bool: "boolean", float: "decimal", Decimal: "decimal"}
