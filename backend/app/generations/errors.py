"""What can go wrong in the life of a generation, besides what providers and stores raise."""

from collections.abc import Mapping
from datetime import datetime
from typing import Any, Literal

from app.core.errors import ApiError, Conflict, Invalid, NotFound, RateLimited, Unauthorized, Unavailable
from app.core.schemas import format_time


class InvalidApiKey(Unauthorized):
    code, detail = "invalid_api_key", "Invalid API key"


class GenerationNotFound(NotFound):
    code, detail = "generation_not_found", "There is no such generation"


class ImageNotFound(NotFound):
    code, detail = "image_not_found", "There is no such image"


class ImageDeleted(ApiError):
    status, title, code = 410, "Gone", "image_deleted"
    detail = "The image of this Idempotency-Key was deleted"


class IdempotencyKeyReused(ApiError):
    status, title, code = Invalid.status, Invalid.title, "idempotency_key_reused"
    detail = "This Idempotency-Key came with another request before"


class IdempotencyKeyInUse(Conflict):
    code = "idempotency_key_in_use"
    detail = "The first request with this Idempotency-Key is still running"
    is_worth_repeating = True

    @property
    def headers(self) -> Mapping[str, str]:
        return {"Retry-After": "1"}


class QueueFull(RateLimited):
    code, detail = "queue_full", "The account has as many generations waiting as it may have"

    def __init__(self) -> None:
        super().__init__(retry_after_seconds=10)


class InsufficientCredit(ApiError):
    status, title, code = 402, "Payment Required", "insufficient_credit"
    detail = "The account has too little credit for this; nothing was drawn"


class BudgetExceeded(ApiError):
    """A cap, which the account has set for itself or for a key, leaves too little for the request."""

    status, title, code = 429, "Too Many Requests", "budget_exceeded"
    detail = "A cap leaves too little for this; nothing was drawn"

    def __init__(self, *, cap: Literal["account", "key"], ends_at: datetime | None) -> None:
        """`ends_at` is when the cap's period ends; None for a cap of a key's whole life."""
        until = f"until {format_time(ends_at)}" if ends_at else "for the key's whole life"
        super().__init__(f"The cap of the {cap} leaves too little for this {until}; nothing was drawn")
        self.cap = cap
        self.ends_at = ends_at

    @property
    def members(self) -> Mapping[str, Any]:
        return {"cap": self.cap, "ends_at": self.ends_at and format_time(self.ends_at)}


class NotCancellable(Conflict):
    code = "not_cancellable"
    detail = "It cannot be cancelled any more: it has ended, or a provider is drawing it"


class GenerationNotEnded(Conflict):
    code = "generation_not_ended"
    detail = "The generation has not ended: cancel it, or wait for its end"


class AcceptedBefore(IdempotencyKeyInUse):
    """The first request with the Idempotency-Key is an asynchronous one that has not ended."""

    def __init__(self, generation_id: str) -> None:
        super().__init__()
        self.generation_id = generation_id


class GenerationExpired(ApiError):
    status, title, code = 504, "Gateway Timeout", "expired"
    detail = "No worker was free for it before it expired"


class AttemptsExhausted(ApiError):
    status, title, code = 500, "Internal Server Error", "attempts_exhausted"
    detail = "Every worker that has taken it has ended before it was drawn"


class GenerationLost(ApiError):
    status, title, code = 502, "Bad Gateway", "lost"
    detail = "Its worker has ended while a provider was drawing it; it may have been paid, and is not drawn again"


class GenerationCancelled(Conflict):
    code, detail = "cancelled", "It was cancelled by its caller"


class KeyRevoked(Conflict):
    code, detail = "key_revoked", "Its API key was revoked while it waited"


class AccountDisabled(Conflict):
    code, detail = "account_disabled", "Its account was disabled while it waited"


class InputGone(ApiError):
    status, title, code = Invalid.status, Invalid.title, "input_gone"
    detail = "An image that was to go in was deleted, or had expired, before the generation was drawn"


class ModelChanged(ApiError):
    status, title, code = Invalid.status, Invalid.title, "model_changed"
    detail = "The model has changed since the generation was accepted, and cannot draw it any more"


class OutcomeUnknown(Unavailable):
    code = "outcome_unknown"
    detail = "It cannot be told whether this was recorded; retry with the same Idempotency-Key"


class LeaseLostError(Exception):
    """The request's lease was over: its images were given up, and what the worker drew is not delivered."""


class CallerChangedError(Exception):
    """What the caller's key may do has changed since the caller was admitted: admission is to be asked anew."""
