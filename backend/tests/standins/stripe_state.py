"""What a stand-in for Stripe keeps: objects, events, and a clock of its own."""

import secrets
import time
from collections.abc import Callable, Iterable, Mapping
from copy import deepcopy
from datetime import UTC, datetime
from typing import Any, NamedTuple, cast

from stripe import Event, StripeObject
from tests.standins.stripe_forms import Json, StripeFault

DAY = 24 * 3600
_PREFIXES = {
    "customer": "cus",
    "product": "prod",
    "price": "price",
    "checkout.session": "cs",
    "subscription": "sub",
    "invoice": "in",
    "payment_intent": "pi",
    "refund": "re",
    "dispute": "du",
    "event": "evt",
    "billing.meter": "mtr",
    "webhook_endpoint": "we",
    "billing_portal.session": "bps",
    "billing_portal.configuration": "bpc",
}


class State:
    """The objects of one account at Stripe, in one mode, by id. Each has every field that the SDK's class has."""

    def __init__(self, *, is_live: bool) -> None:
        self.is_live = is_live
        self.url = ""
        self.objects: dict[str, Json] = {}
        self.secrets: dict[str, str] = {}
        """Of the webhook endpoints, by their ids: they are shown once."""
        self.meter_events: list[Json] = []
        """Those that were counted, in the order in which they came."""
        self.ordered: dict[str, Json] = {}
        """What the checkouts were made with, by their ids."""
        self.declined: set[str] = set()
        """Customers whose cards are declined."""
        self.deleted_customers: set[str] = set()
        self.confirming: set[str] = set()
        """Customers whose banks want payments to be confirmed, which they can be on pages alone."""
        self.pending: dict[str, list[tuple[str, int]]] = {}
        """What is billed with the next invoice of a subscription."""
        self.moved_seconds = 0.0
        self.when_emitted: Callable[[Json], None] = lambda _event: None

    def now(self) -> int:
        return int(time.time() + self.moved_seconds)

    def move_to(self, seconds: int) -> None:
        """The clock goes forward to this time, and never back."""
        self.moved_seconds += max(0, seconds - self.now())

    def new_id(self, prefix: str) -> str:
        return f"{prefix}_{secrets.token_hex(12)}"

    def add(self, kind: type[StripeObject], **fields: Any) -> Json:
        """Makes and keeps an object: what is not given is null."""
        name: str = cast("Any", kind).OBJECT_NAME
        made = self.blank(kind, **fields)
        made["id"] = fields.get("id") or self.new_id(_PREFIXES[name])
        self.objects[made["id"]] = made
        return made

    def blank(self, kind: type[StripeObject], **fields: Any) -> Json:
        known = {"id": None} | dict.fromkeys(kind.__annotations__)
        assert not fields.keys() - known.keys(), f"{kind.__name__} has no {fields.keys() - known.keys()}"
        always = {"livemode": self.is_live, "created": self.now(), "object": getattr(kind, "OBJECT_NAME", None)}
        return known | {name: value for name, value in always.items() if name in known} | fields

    def get(self, kind: str, object_id: str, *, param: str = "id") -> Json:
        found = self.objects.get(object_id)
        if found is None or found["object"] != kind:
            raise StripeFault(404, f"No such {kind}: '{object_id}'", code="resource_missing", param=param)
        return found

    def of(self, kind: str, **fields: Any) -> list[Json]:
        """The objects of a kind with these values, the newest first."""
        return [
            each
            for each in reversed(self.objects.values())
            if each["object"] == kind and all(each[name] == value for name, value in fields.items())
        ]

    def emit(self, kind: str, about: Json) -> Json:
        """An event, as the object is now."""
        event = self.add(Event, type=kind, data={"object": deepcopy(about)}, pending_webhooks=1)
        self.when_emitted(event)
        return event


class Route(NamedTuple):
    """`handle` is called with the state, the checked parameters, and what stands for the stars of the path."""

    method: str
    path: str
    params: type
    handle: Callable[..., Json]


def retrieving(path: str, kind: str, params: type) -> Route:
    return Route("GET", f"{path}/*", params, lambda state, _params, object_id: state.get(kind, object_id))


def page(found: Iterable[Json], params: Mapping[str, Any], url: str) -> Json:
    """A page of a list, in Stripe's shape."""
    rows = list(found)
    limit = params.get("limit", 10)
    if not 1 <= limit <= 100:
        raise StripeFault(400, "Invalid limit", code="parameter_invalid_integer", param="limit")
    if after := params.get("starting_after"):
        ids = [each["id"] for each in rows]
        if after not in ids:
            raise StripeFault(400, f"No such object: '{after}'", code="resource_missing", param="starting_after")
        rows = rows[ids.index(after) + 1 :]
    return {"object": "list", "url": url, "has_more": len(rows) > limit, "data": rows[:limit]}


def a_month_after(seconds: int, *, day: int) -> int:
    """The same time of day in the next month, on this day, or on the month's last where it has fewer."""
    at = datetime.fromtimestamp(seconds, UTC)
    year, month = divmod(at.year * 12 + at.month, 12)
    for last in (day, 30, 29, 28):
        try:
            return int(at.replace(year=year, month=month + 1, day=min(day, last)).timestamp())
        except ValueError:
            continue
    raise AssertionError
