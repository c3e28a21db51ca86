"""What can go wrong where images are made of a request, for the documents of the API."""

from app.catalogue.model import ModelNotFound
from app.core.errors import ConcurrencyLimited, RateLimited
from app.generations.errors import (
    BudgetExceeded,
    IdempotencyKeyInUse,
    IdempotencyKeyReused,
    ImageDeleted,
    InsufficientCredit,
    InvalidApiKey,
    OutcomeUnknown,
)
from app.providers import PROVIDER_PROBLEMS
from app.web.openapi import BODY_PROBLEMS

GENERATION_PROBLEMS = (
    InvalidApiKey,
    InsufficientCredit,
    RateLimited,
    ConcurrencyLimited,
    BudgetExceeded,
    IdempotencyKeyReused,
    IdempotencyKeyInUse,
    ImageDeleted,
    OutcomeUnknown,
    ModelNotFound,
    *PROVIDER_PROBLEMS,
    *BODY_PROBLEMS,
)
"""The errors of every route that makes images of a request's body."""
