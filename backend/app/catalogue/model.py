"""The types of the catalogue: models, their names, and the routes that draw them."""

import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Literal

from pydantic import SecretStr

from app.catalogue.offers import PlanOffer, TopUps
from app.catalogue.prices import FREE, QUALITIES, Prices
from app.core.errors import NotFound
from app.providers import Size
from app.providers.gemini import Frame

ProviderName = Literal["gemini", "openai", "stub"]
AnswerKind = Literal["url", "b64_json"]
CAPABILITIES = ("quality", "transparent", "compression", "stream", "edit", "mask")
"""What a route can do besides drawing an image from a prompt; `references:N` is one more: so many images may go in."""
REFERENCES_MAX = 16
STUB_CAPABILITIES = frozenset({"edit", "mask", f"references:{REFERENCES_MAX}"})

_BUILT_IN_ALIASES = re.compile(
    r"((openai|google)/)?((gpt-image-|chatgpt-image-|imagen-).+|dall-e-[23]|gemini-.*image.*)", re.ASCII | re.IGNORECASE
)
_ALWAYS_BASE64 = ("gpt-image-", "chatgpt-image-")
_REFERENCES = re.compile(r"references:([1-9]\d?)", re.ASCII)


def references_in(capability: str) -> int:
    """The N of `references:N`; 0 for any other text, and for more than REFERENCES_MAX."""
    match = _REFERENCES.fullmatch(capability)
    number = int(match[1]) if match else 0
    return number if number <= REFERENCES_MAX else 0


def is_capability(text: str) -> bool:
    """Whether a route can have a capability of this name."""
    return text in CAPABILITIES or references_in(text) > 0


class ModelNotFound(NotFound):
    """Its sentence lists the models that there are, never the name that was sent."""

    code, parameter = "model_not_found", "model"
    sentence_of_path: str
    """The sentence where the name stands in the path, and cannot be left out."""

    def __init__(self, models: Sequence[str], *, is_of_plan: bool = False, has_default: bool = True) -> None:
        """The models are those of the account's plan, or else all. `has_default` says whether the one that is meant
        without a name is among them.
        """
        where = "in the account's plan" if is_of_plan else "here"
        use = f"use {_in_words(models)}" if models else "it has none that is still offered"
        self.sentence_of_path = f"There is no such model {where}; {use}"
        super().__init__(f"{self.sentence_of_path}{', or leave model out' if models and has_default else ''}")


@dataclass(frozen=True, kw_only=True)
class Route:
    """One way to have a model's images drawn: a provider, an endpoint and a model of it."""

    name: str
    provider: ProviderName
    model: str = ""
    """The name that the provider knows it by."""
    order: int = 1
    """Routes of a lower order are tried first."""
    weight: int = 1
    """How often this route comes first among those of its order."""
    base_url: str = ""
    api_version: str = ""
    key: SecretStr | None = None
    headers: Mapping[str, SecretStr] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    cost: Prices = FREE
    """What the operator pays for an image."""
    sizes: Sequence[Size] = ()
    """What can be asked for; none for the stub, which draws any size in its range."""
    frames: Mapping[Size, Frame] = field(default_factory=dict)
    """What Gemini draws for each size."""
    capabilities: frozenset[str] = frozenset()
    timeout_seconds: float | None = None
    """How long one try may take; None for what is left of the generation's deadline."""
    calls_max: int = 1000
    """Images that this route draws for one process at a time."""
    jobs_max: int | None = None
    """Asynchronous generations that this route draws for all processes at a time; None for any number."""

    @property
    def is_free(self) -> bool:
        """Whether its images are a function of what is recorded, and cost nothing."""
        return self.provider == "stub"

    @cached_property
    def references_max(self) -> int:
        """How many images may go in: 0 without the capability `edit`, and with it alone 1."""
        return max(1, *map(references_in, self.capabilities)) if "edit" in self.capabilities else 0


@dataclass(frozen=True, kw_only=True)
class Model:
    """A model that callers can ask for."""

    name: str
    title: str
    routes: Sequence[Route]
    aliases: Sequence[str] = ()
    answers: AnswerKind = "url"
    """How OpenAI's clients are answered that do not say."""
    prices: Prices = FREE
    input_price: int = 0
    """For each image that goes in, in millionths of the currency."""
    may_pay_twice: bool = False
    """Whether another route may draw what a route that failed may have drawn and charged for."""
    refused_goes_on: bool = False
    """Whether another route is asked to draw what one refuses to draw for its policy."""
    chat: bool = False
    """Whether a chat completion draws that does not say whether it is for text or an image."""

    @cached_property
    def sizes(self) -> Sequence[Size]:
        """The sizes of all routes; none where the stub draws any size in its range."""
        return list(dict.fromkeys(size for route in self.routes for size in route.sizes))

    @cached_property
    def qualities(self) -> Sequence[str]:
        """What a caller may ask for with an effect: the priced ones, or any where a route passes them on."""
        if self.prices.qualities:
            return self.prices.qualities
        return QUALITIES if any("quality" in route.capabilities for route in self.routes) else ()

    @cached_property
    def capabilities(self) -> Sequence[str]:
        """Those that any route has, in a fixed order, the largest number of references last."""
        found = {each for route in self.routes for each in route.capabilities}
        most = max(map(references_in, found), default=0)
        return [*(each for each in CAPABILITIES if each in found), *([f"references:{most}"] if most else [])]

    @property
    def is_free(self) -> bool:
        """Whether the stub draws it: then no other provider does."""
        return self.routes[0].is_free

    def quality_of(self, asked: str) -> str | None:
        """The quality that is recorded and passed on for the asked one: `auto` where it has no effect; None where it
        has no price. Where qualities are priced, `auto` means the first one.
        """
        if self.prices.qualities:
            return self.prices.qualities[0] if asked == "auto" else asked if asked in self.prices.qualities else None
        return asked if self.qualities else "auto"


@dataclass(frozen=True, kw_only=True)
class Catalogue:
    """All models of a deployment, by name."""

    models: Mapping[str, Model]
    default: str
    currency: str | None = None
    has_built_in_aliases: bool = True
    plans: Mapping[str, PlanOffer] = field(default_factory=dict)
    """Those that accounts can have, by name, in the order of the file."""
    top_ups: TopUps | None = None
    """None where no credit can be bought."""

    def find(self, name: str | None, *, among: Collection[str] | None = None) -> Model:
        """The model of this name or alias, or without a name the default one. Names of OpenAI's and Google's image
        models that are nobody's mean the default one too, unless the catalogue is strict. Raises ModelNotFound, also
        for a model that is not `among` the names of those that the account's plan has.
        """
        found = self.models[self.default] if name is None else self._by_name.get(name)
        if found is None and name is not None and self.has_built_in_aliases and _BUILT_IN_ALIASES.fullmatch(name):
            found = self.models[self.default]
        if found is None or (among is not None and found.name not in among):
            names = [each.name for each in self.models_for(among)]
            raise ModelNotFound(names, is_of_plan=among is not None, has_default=self.default in names)
        return found

    def models_for(self, among: Collection[str] | None) -> Sequence[Model]:
        """All models, or those of a plan, the default one first."""
        offered = [each for each in self if among is None or each.name in among]
        return sorted(offered, key=lambda each: each.name != self.default)

    def get(self, name: str | None) -> Model | None:
        """The model that `find` gives; None where it raises ModelNotFound. Such a request is refused only once its
        Idempotency-Key was looked up: it may repeat one from a time when the model was there.
        """
        try:
            return self.find(name)
        except ModelNotFound:
            return None

    def __iter__(self) -> Iterator[Model]:
        return iter(self.models.values())

    @cached_property
    def _by_name(self) -> Mapping[str, Model]:
        return {name: model for model in self for name in (*model.aliases, model.name)}


def answer_kind(model: Model | None, asked_name: str | None) -> AnswerKind:
    """How a client of OpenAI's is answered that does not say: one that asks for a GPT image model reads base64 only.
    The model is None where there is none of that name any more.
    """
    if asked_name is not None and asked_name.startswith(_ALWAYS_BASE64):
        return "b64_json"
    return model.answers if model else "url"


def _in_words(names: Sequence[str]) -> str:
    most = 20
    shown = [*names[:most], *(["another that GET /v1/models lists"] if len(names) > most else [])]
    return shown[0] if len(shown) == 1 else f"{', '.join(shown[:-1])} or {shown[-1]}"
