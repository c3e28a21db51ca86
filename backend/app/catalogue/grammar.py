"""The grammar of a file of models: which tables and fields there are, and what each may hold by itself."""

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator

from app.catalogue.model import CAPABILITIES, REFERENCES_MAX, AnswerKind, ProviderName, is_capability
from app.catalogue.prices import FREE, Prices, read_amount, read_prices
from app.core.image_settings import checked_base_url
from app.core.limit_format import CONCURRENCY_MAX
from app.core.limit_settings import LimitText
from app.core.schemas import matches
from app.providers import Size
from app.providers.gemini import GEMINI_SIZES, Frame, parse_frames
from app.providers.openai import OPENAI_SIZES, parse_sizes

_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._:/-]{0,99}", re.ASCII)
_VARIABLE = re.compile(r"[A-Z][A-Z0-9_]{0,99}", re.ASCII)
_CURRENCY = re.compile(r"[A-Z]{3}", re.ASCII)
_STRIPE_PRICE = re.compile(r"price_[A-Za-z0-9]{1,100}", re.ASCII)
_NO_PLAN = "none"


def _prices(value: Any) -> Prices:
    is_table = isinstance(value, dict) and all(isinstance(each, str) for each in value.values())
    if not (isinstance(value, str) or is_table):
        raise ValueError('must be a decimal in quotes, such as "0.05", or a table of them')
    return read_prices(value)


def _amount(value: Any) -> int:
    if isinstance(value, str):
        return read_amount(value)
    raise ValueError('must be a decimal in quotes, such as "5"')


def _amount_above_zero(value: Any) -> int:
    amount = _amount(value)
    if amount == 0:
        raise ValueError("must be more than 0")
    return amount


def _plan_name(name: str) -> str:
    if name == _NO_PLAN:
        raise ValueError("must have another name: none means no plan")
    return name


_Name = Annotated[str, matches(_NAME, "must be 1 to 100 letters, digits and . _ : / -, a letter or digit first")]
_PlanName = Annotated[_Name, AfterValidator(_plan_name)]
_Variable = Annotated[str, matches(_VARIABLE, "must be the name of a variable, such as GEMINI_API_KEY")]
_Prices = Annotated[Any, AfterValidator(_prices)]
_Amount = Annotated[Any, AfterValidator(_amount)]
_AmountAboveZero = Annotated[Any, AfterValidator(_amount_above_zero)]


class _Table(BaseModel):
    """A table of the file. A field that it does not have is refused."""

    model_config = ConfigDict(extra="forbid", strict=True, hide_input_in_errors=True)


class RouteTable(_Table):
    """`[[models.NAME.routes]]`. Secrets are named by their variables."""

    provider: ProviderName
    name: _Name | None = None
    model: Annotated[str, Field(max_length=200)] = ""
    order: Annotated[int, Field(ge=1, le=100)] = 1
    weight: Annotated[int, Field(ge=1, le=1000)] = 1
    base_url: Annotated[str, AfterValidator(checked_base_url)] | None = None
    api_version: str = "v1beta"
    key: _Variable | None = None
    headers: dict[str, _Variable] = Field(default_factory=dict)
    query: dict[str, str] = Field(default_factory=dict)
    cost: _Prices = FREE
    sizes: Any = None
    capabilities: list[str] = Field(default_factory=list)
    timeout_seconds: Annotated[float, Field(gt=0, le=600, strict=False)] | None = None
    calls_max: Annotated[int, Field(ge=1, le=100_000)] | None = None
    jobs_max: Annotated[int, Field(ge=1, le=100_000)] | None = None

    @model_validator(mode="after")
    def _has_what_its_provider_needs(self) -> "RouteTable":
        if self.provider == "stub":
            for name in ("base_url", "key", "headers", "query", "sizes", "capabilities", "timeout_seconds", "jobs_max"):
                if name in self.model_fields_set:
                    raise ValueError(f"has {name}, but the stub takes none")
            return self
        if not self.model:
            raise ValueError("needs model, the name that the provider knows it by")
        if self.provider == "gemini" and self.key is None:
            raise ValueError("needs key, the name of the variable that holds it")
        if self.provider == "gemini" and (self.headers or self.query):
            raise ValueError("has headers or a query, which Gemini takes none of")
        if not all(map(is_capability, self.capabilities)):
            known = f"{', '.join(CAPABILITIES)} and references:1 to {REFERENCES_MAX}"
            raise ValueError(f"has a capability that there is not; there are {known}")
        return self

    @property
    def frames(self) -> Mapping[Size, Frame]:
        """Of Gemini. Raises ValueError."""
        if self.provider != "gemini":
            return {}
        if self.sizes is None:
            return parse_frames(GEMINI_SIZES)
        if not isinstance(self.sizes, dict) or not self.sizes:
            raise ValueError('must be a table such as { "1536x1024" = "3:2/1K" }')
        return parse_frames(",".join(f"{size}={frame}" for size, frame in self.sizes.items()))

    @property
    def all_sizes(self) -> list[Size]:
        """Raises ValueError."""
        if self.provider == "gemini":
            return list(self.frames)
        if self.provider == "stub":
            return []
        if self.sizes is None:
            return parse_sizes(OPENAI_SIZES)
        if not isinstance(self.sizes, list) or not self.sizes or not all(isinstance(each, str) for each in self.sizes):
            raise ValueError('must be a list such as ["1024x1024", "1536x1024"]')
        return parse_sizes(",".join(self.sizes))


class ModelTable(_Table):
    """`[models.NAME]`."""

    title: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    aliases: list[_Name] = Field(default_factory=list)
    answers: AnswerKind = "url"
    price: _Prices = FREE
    input_price: str = "0"
    may_pay_twice: bool = False
    on_refusal: Literal["fail", "next"] = "fail"
    chat: bool = False
    routes: Annotated[list[RouteTable], Field(min_length=1, max_length=20)]


class PlanTable(_Table):
    """`[plans.NAME]`."""

    title: Annotated[str, Field(min_length=1, max_length=200)] | None = None
    price: _Amount = 0
    allowance: _Amount = 0
    pays: Literal["in_advance", "afterwards"] = "in_advance"
    cap: _Amount | None = None
    limit: LimitText | None = None
    limit_per_key: LimitText | None = None
    concurrency_per_key: Annotated[int, Field(ge=1, le=CONCURRENCY_MAX)] | None = None
    models: Annotated[list[str], Field(min_length=1)] | None = None
    weight: Annotated[int, Field(ge=1, le=1000)] = 1
    stripe_price: Annotated[str, matches(_STRIPE_PRICE, "must be the id of a price, such as price_1Abc")] | None = None


class TopUpsTable(_Table):
    """`[top_ups]`."""

    amounts: Annotated[list[_AmountAboveZero], Field(max_length=20)] = Field(default_factory=list)
    least: _AmountAboveZero | None = None
    most: _AmountAboveZero | None = None

    @model_validator(mode="after")
    def _says_what_can_be_bought(self) -> "TopUpsTable":
        if (self.least is None) != (self.most is None):
            raise ValueError("needs both least and most, or neither")
        if not self.amounts and self.least is None:
            raise ValueError("needs amounts, or least and most")
        return self


class FileTable(_Table):
    """The whole file."""

    default: str | None = None
    currency: Annotated[str, matches(_CURRENCY, "must be three capital letters, such as USD")] | None = None
    strict_names: bool = False
    models: Annotated[dict[_Name, ModelTable], Field(min_length=1, max_length=1000)]
    plans: Annotated[dict[_PlanName, PlanTable], Field(max_length=100)] = Field(default_factory=dict)
    top_ups: TopUpsTable | None = None
