"""Models over HTTP. Errors are in OpenAI's format, since its clients try their key here."""

from fastapi import APIRouter

from app.catalogue.model import Catalogue, Model, ModelNotFound
from app.core.errors import RateLimited
from app.features.dependencies import CurrentGenerations
from app.features.keys.dependencies import Caller
from app.features.models.schemas import ModelList, ModelPublic
from app.generations.errors import InvalidApiKey
from app.web.openapi import openai_problems

PATHS = "/v1/models(/.*)?"

router = APIRouter(prefix="/v1", tags=["Models"])


@router.get("/models", responses=openai_problems(InvalidApiKey, RateLimited))
async def list_models(caller: Caller, generations: CurrentGenerations) -> ModelList:
    """List the models that the account's plan has, with their sizes, qualities and prices. Test keys see the same."""
    catalogue = generations.catalogue.catalogue
    return ModelList(data=[_public(catalogue, each) for each in catalogue.models_for(caller.models)])


@router.get("/models/{model_id:path}", responses=openai_problems(InvalidApiKey, RateLimited, ModelNotFound))
async def get_model(caller: Caller, model_id: str, generations: CurrentGenerations) -> ModelPublic:
    """Show one model, by its name or an alias."""
    catalogue = generations.catalogue.catalogue
    return _public(catalogue, catalogue.find(model_id, among=caller.models))


def _public(catalogue: Catalogue, model: Model) -> ModelPublic:
    return ModelPublic.of(model, currency=catalogue.currency, is_default=model.name == catalogue.default)
