"""The file of models: what is wrong with it, line by line, and the catalogue that it describes."""

import tomllib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from operator import itemgetter
from typing import Any

from pydantic import SecretStr, ValidationError

from app.catalogue.grammar import FileTable, ModelTable, RouteTable
from app.catalogue.model import STUB_CAPABILITIES, Catalogue, Model, Route
from app.catalogue.offers_file import Mistakes, mistakes_of_offers, plans_of, top_ups_of
from app.catalogue.places import Path, line_of
from app.catalogue.prices import Prices, read_amount, size_class
from app.core.image_settings import DEFAULT_BASE_URLS
from app.providers import Size
from app.providers.stub import SIDE_MAX, SIDE_MIN

_SIZES_OF_STUB = Size(SIDE_MIN, SIDE_MIN), Size(SIDE_MAX, SIDE_MAX)
_TYPE_IN_WORDS = {
    "string_type": "must be a text in quotes",
    "int_type": "must be a whole number",
    "bool_type": "must be true or false",
    "dict_type": "must be a table",
    "list_type": "must be a list",
    "missing": "is missing",
    "extra_forbidden": "is not a known field",
    "model_type": "must be a table",
    "too_short": "must not be empty",
}

FindSecret = Callable[[str], SecretStr]
"""The secret of this name. Raises LookupError, with the end of a sentence, where there is none."""


class FileMistakes(Exception):
    """What is wrong with a file of models: a sentence for each mistake, with its line and its field."""

    def __init__(self, sentences: list[str]) -> None:
        super().__init__("\n".join(sentences))
        self.sentences = sentences


def read_catalogue(text: str, *, find_secret: FindSecret, calls_max: int) -> Catalogue:
    """The catalogue that the text describes; a route draws `calls_max` images at a time where it says nothing else.

    Raises FileMistakes.
    """
    try:
        written = FileTable.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise FileMistakes([f"it is no TOML: {error}"]) from None
    except ValidationError as error:
        problems = error.errors(include_url=False, include_context=False)
        raise _mistakes_in(text, [(_path(each["loc"]), _reason(each)) for each in problems]) from None
    catalogue = _Reading(written, find_secret, calls_max)
    mistakes = list(catalogue.mistakes())
    if mistakes:
        raise _mistakes_in(text, mistakes)
    return catalogue.made()


@dataclass
class _Reading:
    """A file whose fields are well formed: what is wrong among them, and the catalogue."""

    file: FileTable
    find_secret: FindSecret
    calls_max: int

    def mistakes(self) -> Mistakes:
        yield from self._mistakes_of_names()
        for name, model in self.file.models.items():
            found = list(self._mistakes_of_routes(name, model))
            yield from found or self._mistakes_of_prices(name, model)
        yield from mistakes_of_offers(self.file)

    def made(self) -> Catalogue:
        models = {name: self._model(name, model) for name, model in self.file.models.items()}
        default = self.file.default or next(iter(models))
        return Catalogue(
            models=models,
            default=default,
            currency=self.file.currency,
            has_built_in_aliases=not self.file.strict_names,
            plans=plans_of(self.file),
            top_ups=top_ups_of(self.file),
        )

    def _mistakes_of_names(self) -> Mistakes:
        models = self.file.models
        if self.file.default is None and len(models) > 1:
            yield ("default",), "is missing: it names the model of those who ask for none"
        elif self.file.default is not None and self.file.default not in models:
            yield ("default",), f"names no model; there are {', '.join(models)}"
        owners: dict[str, str] = {name: name for name in models}
        for name, model in models.items():
            for alias in model.aliases:
                owner = owners.setdefault(alias, name)
                if owner != name or alias in models:
                    yield ("models", name, "aliases"), f"holds {alias}, which is a name of {owner} already"

    def _mistakes_of_routes(self, name: str, model: ModelTable) -> Mistakes:
        names: set[str] = set()
        if len({route.provider == "stub" for route in model.routes}) > 1:
            yield ("models", name, "routes"), "mixes the stub with providers: what it draws is no stand-in for theirs"
        for number, route in enumerate(model.routes):
            path = "models", name, "routes", number
            route_name = route.name or f"{name}/{number + 1}"
            if route_name in names:
                yield (*path, "name"), "is the name of an earlier route too"
            names.add(route_name)
            try:
                _ = route.all_sizes
            except ValueError as error:
                yield (*path, "sizes"), str(error)
            for field, variable in (("key", route.key), *(("headers", each) for each in route.headers.values())):
                if variable is not None:
                    try:
                        self.find_secret(variable)
                    except LookupError as error:
                        yield (*path, field), f"names {variable}, {error.args[0]}"

    def _mistakes_of_prices(self, name: str, model: ModelTable) -> Mistakes:
        path = "models", name
        try:
            read_amount(model.input_price)
        except ValueError as error:
            yield (*path, "input_price"), str(error)
            return
        made = self._model(name, model)
        is_free = all(each.is_free for each in (made.prices, *(route.cost for route in made.routes)))
        if self.file.currency is None and not (is_free and made.input_price == 0):
            yield ("currency",), "is missing, and there are prices"
        if made.prices.qualities and not any("quality" in route.capabilities for route in made.routes):
            yield (*path, "price"), "is by quality, but no route has the capability quality"
        if made.input_price and "edit" not in made.capabilities:
            yield (*path, "input_price"), "is there, but no route has the capability edit"
        missing = _missing(made.prices, made.sizes, made.prices.qualities or ["auto"])
        if missing:
            yield (*path, "price"), f"has no amount for {missing}, which can be asked for"
        for number, route in enumerate(made.routes):
            if route.cost.qualities and not made.prices.qualities:
                yield (*path, "routes", number, "cost"), "is by quality, so the model's price must be too"
            elif missing := _missing(route.cost, route.sizes, made.prices.qualities or ["auto"]):
                yield (*path, "routes", number, "cost"), f"has no amount for {missing}, which can be asked for"

    def _model(self, name: str, model: ModelTable) -> Model:
        return Model(
            name=name,
            title=model.title or name,
            routes=[self._route(name, number, each) for number, each in enumerate(model.routes, 1)],
            aliases=model.aliases,
            answers=model.answers,
            prices=model.price,
            input_price=read_amount(model.input_price),
            may_pay_twice=model.may_pay_twice,
            refused_goes_on=model.on_refusal == "next",
            chat=model.chat,
        )

    def _route(self, model: str, number: int, route: RouteTable) -> Route:
        return Route(
            name=route.name or f"{model}/{number}",
            provider=route.provider,
            model=route.model,
            order=route.order,
            weight=route.weight,
            base_url=route.base_url or DEFAULT_BASE_URLS.get(route.provider, ""),
            api_version=route.api_version,
            key=None if route.key is None else self.find_secret(route.key),
            headers={header: self.find_secret(variable) for header, variable in route.headers.items()},
            query=route.query,
            cost=route.cost,
            sizes=route.all_sizes,
            frames=route.frames,
            capabilities=STUB_CAPABILITIES if route.provider == "stub" else frozenset(route.capabilities),
            timeout_seconds=route.timeout_seconds,
            calls_max=route.calls_max or self.calls_max,
            jobs_max=route.jobs_max,
        )


def _missing(prices: Prices, sizes: Sequence[Size], qualities: Sequence[str]) -> str | None:
    """The first size class and quality without an amount, such as `4K/high`, of all that can be asked for."""
    by_class = {size_class(size): size for size in sizes or _SIZES_OF_STUB}
    for name in sorted(by_class):
        for quality in qualities:
            if prices.of(by_class[name], quality) is None:
                return name if quality == "auto" else f"{name}/{quality}"
    return None


def _path(location: tuple[int | str, ...]) -> Path:
    """Where a validation error is, without pydantic's words for kinds of values."""
    return tuple(each for each in location if each != "[key]")


def _reason(problem: Any) -> str:
    if problem["type"] == "extra_forbidden" and isinstance(problem["input"], dict) and len(problem["loc"]) > 1:
        return "is not a known field; a name with a dot is written in quotes"
    said = _TYPE_IN_WORDS.get(problem["type"])
    return said or str(problem["msg"]).removeprefix("Value error, ").replace("Input should", "must", 1)


def _mistakes_in(text: str, mistakes: Sequence[tuple[Path, str]]) -> FileMistakes:
    """Those at these paths, in the order of their lines."""
    lines = sorted(((line_of(text, path), path, reason) for path, reason in mistakes), key=itemgetter(0))
    return FileMistakes([f"line {line}: {_field(path)} {reason}" for line, path, reason in lines])


def _field(path: Path) -> str:
    return ".".join(str(each + 1 if isinstance(each, int) else each) for each in path) or "the file"
