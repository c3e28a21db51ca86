"""The wire types of models."""

from collections.abc import Mapping, Sequence
from typing import Literal, Self

from pydantic import Field

from app.catalogue.model import Model
from app.catalogue.prices import format_amount
from app.core.schemas import Answer
from app.providers.stub import SIDE_MAX, SIDE_MIN

CREATED = 1_764_000_000
"""When every model is said to have been made, in seconds since 1970: OpenAI's clients want a number."""


class ModelPublic(Answer):
    """A model: what OpenAI's clients read of it, and what it can draw and costs."""

    id: str = Field(description="What `model` takes.", examples=["nano-banana"])
    object: Literal["model"] = "model"
    created: int = Field(default=CREATED, examples=[CREATED])
    owned_by: Literal["nanobanana"] = "nanobanana"
    title: str = Field(examples=["Nano Banana"])
    aliases: Sequence[str] = Field(description="What `model` takes too.", examples=[["gpt-image-1"]])
    sizes: Sequence[str] = Field(
        description=f"Where there are none, each side may have {SIDE_MIN} to {SIDE_MAX} pixels.",
        examples=[["1024x1024", "1536x1024"]],
    )
    qualities: Sequence[str] = Field(
        description="What `quality` takes; where there are none it is without an effect.", examples=[["low", "high"]]
    )
    capabilities: Sequence[str] = Field(
        description="What it can do besides drawing from a prompt.", examples=[["quality", "stream"]]
    )
    price: str | Mapping[str, str] = Field(
        description="Of an image: one, or by size class, quality or both.", examples=["0.05", {"1K/low": "0.02"}]
    )
    input_price: str = Field(description="Of each image that goes in.", examples=["0.002"])
    currency: str | None = Field(description="Of the prices; null where no model has one.", examples=["USD"])
    is_default: bool = Field(description="Whether it draws for callers who name no model.")

    @classmethod
    def of(cls, model: Model, *, currency: str | None, is_default: bool) -> Self:
        """The model as callers see it: nothing of its routes and costs."""
        return cls(
            id=model.name,
            title=model.title,
            aliases=model.aliases,
            sizes=[str(size) for size in model.sizes],
            qualities=model.qualities,
            capabilities=model.capabilities,
            price=model.prices.written,
            input_price=format_amount(model.input_price),
            currency=currency,
            is_default=is_default,
        )


class ModelList(Answer):
    """All models, or those of the account's plan, the default one first."""

    object: Literal["list"] = "list"
    data: Sequence[ModelPublic]
