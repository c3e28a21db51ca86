"""The limits in HTTP: what a caller's images take, the headers of the answer, and the error where it is refused."""

from collections.abc import Sequence
from functools import lru_cache

from fastapi import Request

from app.core.errors import ConcurrencyLimited, RateLimited
from app.core.limit_settings import LimitMode
from app.features.dependencies import services_of
from app.generations.spec import Caller
from app.ratelimit import Decision, Slot, Take, TakeResult, new_slot_id
from app.ratelimit.headers import rate_limit_headers, retry_after_seconds
from app.ratelimit.policies import Policies
from app.services import Services
from app.web.headers import add_response_headers
from app.web.state import request_state


def set_rate_limit_headers(request: Request, decisions: Sequence[Decision]) -> None:
    """Puts these limits on the answer to the request, whether it becomes a success or an error."""
    add_response_headers(request, rate_limit_headers(decisions))


def raise_if_refused(request: Request, result: TakeResult, *, mode: LimitMode = "enforce") -> None:
    """Counts each limit that refused the call, and raises the refusal unless the mode is to observe.

    Raises RateLimited if a rate limit refused, and ConcurrencyLimited if only a free slot is missing.
    """
    if result.allowed:
        return
    refused = [decision for decision in result.decisions if not decision.allowed]
    names = [decision.name for decision in refused]
    if result.no_free_slot:
        names.append("concurrency")
    for name in names:
        services_of(request).metrics.limits.refusals.add(name, mode)
    if mode == "observe":
        return
    request_state(request.scope)["limit"] = ",".join(names)
    if not refused:
        raise ConcurrencyLimited(retry_after_seconds=1)
    raise RateLimited(retry_after_seconds=retry_after_seconds(refused))


def answer_taken(request: Request, taken: TakeResult, *, mode: LimitMode) -> None:
    """Sets what `takes_of` found of the key's limit in the response's headers, and of the account's where that leaves
    less. Raises what `raise_if_refused` raises.
    """
    of_key, of_account, *of_test_keys = taken.decisions
    for other in of_test_keys:
        of_account = other if other.remaining < of_account.remaining else of_account
    set_rate_limit_headers(request, [of_key, of_account] if of_account.remaining < of_key.remaining else [of_key])
    raise_if_refused(request, taken, mode=mode)


@lru_cache(maxsize=10_000)  # one that was looked up is asked for again and again
def takes_of(policies: Policies, caller: Caller, units: int = 1) -> Sequence[Take]:
    """What images of this caller take: so many units of its key's limit and of its account's."""
    takes = (
        Take("key", caller.key_id, caller.limit or policies.generate_per_key, units),
        Take("account", caller.account_id, caller.account_limit or policies.generate_per_account, units),
    )
    if caller.environment == "live":
        return takes
    return *takes, Take("account-test", caller.account_id, policies.test_generate_per_account, units)


def slot_of(services: Services, caller: Caller, *, number: int = 1) -> Slot:
    """New slots among the key's running generations, one for each image, still to be taken."""
    slots = caller.concurrency or services.policies.generate_concurrency_per_key
    seconds = services.generations.lifetime.slot_seconds
    return Slot(caller.key_id, slots, seconds, new_slot_id(), number)
