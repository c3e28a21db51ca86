"""What test keys rehearse: requests that fail as their prompts say, before or while they are drawn."""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta

from app.catalogue.routing import Plan
from app.core.errors import ApiError
from app.generations.collaborators import Generations
from app.generations.errors import BudgetExceeded, InsufficientCredit
from app.providers.stub.rehearsal import is_rehearsal


def _budget_exceeded(now: datetime) -> ApiError:
    tomorrow = now.replace(hour=0, minute=0, second=0, microsecond=0) + timedelta(days=1)
    return BudgetExceeded(cap="key", ends_at=tomorrow)


REFUSALS: Mapping[str, Callable[[datetime], ApiError]] = {
    "test:credit": lambda _now: InsufficientCredit(),
    "test:budget": _budget_exceeded,
}
"""The prompts of requests that are refused for money, each with what makes its error at a time."""


def rehearsed(generations: Generations, plan: Plan, prompt: str) -> Plan:
    """The plan of a test key's request: another one, whose images fail, where its prompt says so. Raises
    InsufficientCredit and BudgetExceeded for a prompt that rehearses them.
    """
    if prompt in REFUSALS:
        raise REFUSALS[prompt](generations.clock.now())
    return generations.catalogue.rehearsed(plan) if is_rehearsal(prompt) else plan
