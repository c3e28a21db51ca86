"""Subscriptions and their invoices, at a stand-in for Stripe."""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import ROUND_HALF_UP, Decimal

import stripe
from stripe import params
from tests.standins.stripe_forms import Json, StripeFault
from tests.standins.stripe_meters import counted_between
from tests.standins.stripe_state import Route, State, a_month_after, page, retrieving

Line = tuple[str, int]
"""What is billed, and how much, in minor units."""

_GOES_ON = {"active", "past_due", "unpaid"}


def subscribe(state: State, customer_id: str, items: Sequence[Json], given: Json) -> Json:
    """A new subscription, whose first period is paid. It ends at `billing_cycle_anchor`, and costs its part of a month,
    if there is one; else it is a month.
    """
    now = state.now()
    anchor = given.get("billing_cycle_anchor", now)
    if anchor < now:
        raise StripeFault(400, "The anchor is in the past.", param="subscription_data[billing_cycle_anchor]")
    end = anchor if anchor > now else a_month_after(now, day=datetime.fromtimestamp(now, UTC).day)
    made = state.add(
        stripe.Subscription,
        status="active",
        customer=customer_id,
        metadata=given.get("metadata", {}),
        billing_cycle_anchor=anchor,
        start_date=now,
        cancel_at_period_end=False,
        currency=state.get("price", items[0]["price"])["currency"],
        collection_method="charge_automatically",
        discounts=[],
        billing_mode={"type": "flexible"},
    )
    rows = [_item(state, made["id"], each, (now, end)) for each in items]
    made["items"] = {"object": "list", "has_more": False, "url": "/v1/subscription_items", "data": rows}
    share = Decimal(1) if anchor == now else _share(now, end, anchor)
    lines = [(each["id"], _rounded(_monthly(each) * share)) for each in rows if not _is_metered(each)]
    bill(state, made, lines, reason="subscription_create", period=(now, end))
    state.emit("customer.subscription.created", made)
    return made


def bill(state: State, subscription: Json, lines: Sequence[Line], *, reason: str, period: tuple[int, int]) -> Json:
    """An invoice, which is paid at once unless the customer's card is declined. A credit is worth nothing here."""
    total = max(0, sum(amount for _, amount in lines))
    made = state.add(
        stripe.Invoice,
        customer=subscription["customer"],
        currency=subscription["currency"],
        status="open",
        billing_reason=reason,
        **dict.fromkeys(("total", "subtotal", "amount_due", "amount_remaining"), total),
        amount_paid=0,
        attempted=True,
        attempt_count=0,
        period_start=period[0],
        period_end=period[1],
        parent={
            "type": "subscription_details",
            "quote_details": None,
            "subscription_details": {"subscription": subscription["id"], "metadata": subscription["metadata"]},
        },
        metadata={},
        lines={
            "object": "list",
            "has_more": False,
            "url": "/v1/invoices/lines",
            "data": [{"object": "line_item", "description": about, "amount": amount} for about, amount in lines],
        },
    )
    made["number"] = f"A-{len(state.of('invoice')):04}"
    made["hosted_invoice_url"] = f"{state.url}/invoices/{made['id']}"
    made["invoice_pdf"] = f"{state.url}/invoices/{made['id']}/pdf"
    subscription["latest_invoice"] = made["id"]
    attempt(state, made)
    return made


def attempt(state: State, invoice: Json) -> None:
    """Asks the customer's card for an open invoice."""
    invoice["attempt_count"] += 1
    subscription = state.get("subscription", invoice["parent"]["subscription_details"]["subscription"])
    is_declined = invoice["customer"] in state.declined and invoice["total"] > 0
    status = "past_due" if is_declined else "active"
    if not is_declined:
        invoice |= {"status": "paid", "amount_paid": invoice["total"], "amount_remaining": 0}
    state.emit("invoice.payment_failed" if is_declined else "invoice.paid", invoice)
    if subscription["status"] in _GOES_ON and subscription["status"] != status:
        subscription["status"] = status
        state.emit("customer.subscription.updated", subscription)


def give_up(state: State, subscription_id: str) -> None:
    """The last attempt has failed: the subscription ends, and what is open is not collected."""
    for invoice in state.of("invoice", status="open"):
        if invoice["parent"]["subscription_details"]["subscription"] == subscription_id:
            invoice["status"] = "uncollectible"
    end(state, state.get("subscription", subscription_id))


def end(state: State, subscription: Json) -> Json:
    subscription |= {"status": "canceled", "ended_at": state.now(), "canceled_at": state.now()}
    state.emit("customer.subscription.deleted", subscription)
    return subscription


def advance(state: State, until: int) -> None:
    """The clock goes forward, and every period that ends on the way is billed, at its end."""
    while True:
        going = [each for each in state.of("subscription") if each["status"] in _GOES_ON]
        ending = sorted((_period(each)[1], each["id"]) for each in going)
        if not ending or ending[0][0] > until:
            state.move_to(until)
            return
        state.move_to(ending[0][0])
        _end_period(state, state.objects[ending[0][1]])


def _end_period(state: State, subscription: Json) -> None:
    begin, over = _period(subscription)
    rows, is_last = subscription["items"]["data"], subscription["cancel_at_period_end"]
    lines = [(each["id"], _usage(state, subscription, each, (begin, over))) for each in rows if _is_metered(each)]
    lines += state.pending.pop(subscription["id"], [])
    if is_last:
        if any(amount for _, amount in lines):
            bill(state, subscription, lines, reason="subscription_cycle", period=(begin, over))
        end(state, subscription)
        return
    lines += [(each["id"], _rounded(_monthly(each))) for each in rows if not _is_metered(each)]
    following = a_month_after(over, day=datetime.fromtimestamp(subscription["billing_cycle_anchor"], UTC).day)
    for each in rows:
        each |= {"current_period_start": over, "current_period_end": following}
    state.emit("customer.subscription.updated", subscription)
    bill(state, subscription, lines, reason="subscription_cycle", period=(begin, over))


def _update(state: State, given: Json, subscription_id: str) -> Json:
    """Exchanged items are credited and billed for the rest of the period, with the next invoice, unless that is to be
    left out; with a new anchor the new items are billed now.
    """
    found = state.get("subscription", subscription_id)
    if found["status"] not in _GOES_ON:
        raise StripeFault(400, "A canceled subscription can only update its metadata.", param="id")
    is_anchored = given.pop("billing_cycle_anchor", {}).get("type") == "now"
    is_declined = is_anchored and found["customer"] in state.declined
    fails = given.pop("payment_behavior", "") == "error_if_incomplete"
    if fails and is_anchored and found["customer"] in state.confirming:
        code = "subscription_payment_intent_requires_action"
        raise StripeFault(402, "This payment requires additional user action.", code=code, kind="card_error")
    if fails and is_declined:
        raise StripeFault(402, "Your card was declined.", code="card_declined", kind="card_error")
    rows, period = list(found["items"]["data"]), _period(found)
    lines = [line for change in given.pop("items", []) for line in _change_item(state, found, rows, period, change)]
    if not rows:
        raise StripeFault(400, "A subscription must have at least one item.", param="items")
    found["items"]["data"] = rows
    if given.pop("proration_behavior", "") == "none":
        lines = []
    state.pending.setdefault(subscription_id, []).extend(lines)
    if is_anchored:
        _begin_period(state, found)
    found["metadata"] |= given.pop("metadata", {})
    if given.get("cancel_at_period_end") is not None:
        found["cancel_at"] = _period(found)[1] if given["cancel_at_period_end"] else None
    found |= given
    state.emit("customer.subscription.updated", found)
    return found


def _begin_period(state: State, subscription: Json) -> None:
    now, rows = state.now(), subscription["items"]["data"]
    subscription["billing_cycle_anchor"] = now
    until = a_month_after(now, day=datetime.fromtimestamp(now, UTC).day)
    for each in rows:
        each |= {"current_period_start": now, "current_period_end": until}
    lines = [(each["id"], _rounded(_monthly(each))) for each in rows if not _is_metered(each)]
    lines += state.pending.pop(subscription["id"], [])
    bill(state, subscription, lines, reason="subscription_update", period=(now, until))


def _change_item(
    state: State, subscription: Json, rows: list[Json], period: tuple[int, int], change: Json
) -> list[Line]:
    share = _share(state.now(), period[1], period[1])
    lines: list[Line] = []
    if "id" in change:
        old = next((each for each in rows if each["id"] == change["id"]), None)
        if old is None:
            raise StripeFault(
                404, f"No such subscription_item: '{change['id']}'", code="resource_missing", param="items"
            )
        rows.remove(old)
        owed = _usage(state, subscription, old, period) if _is_metered(old) else -_rounded(_monthly(old) * share)
        lines.append((old["id"], owed))
    if not change.get("deleted"):
        if any(each["price"]["id"] == change["price"] for each in rows):
            raise StripeFault(400, "The subscription has an item with this price already.", param="items")
        rows.append(_item(state, subscription["id"], change, period))
        if not _is_metered(rows[-1]):
            lines.append((rows[-1]["id"], _rounded(_monthly(rows[-1]) * share)))
    return lines


def _item(state: State, subscription_id: str, given: Json, period: tuple[int, int]) -> Json:
    price = state.get("price", given["price"], param="price")
    if price["recurring"] is None:
        raise StripeFault(400, "The price is not recurring.", param="price")
    is_metered = price["recurring"]["usage_type"] == "metered"
    if is_metered and "quantity" in given:
        raise StripeFault(400, "Quantity should not be specified where usage_type is metered.", param="quantity")
    return state.blank(
        stripe.SubscriptionItem,
        id=state.new_id("si"),
        subscription=subscription_id,
        price=price,
        quantity=None if is_metered else given.get("quantity", 1),
        current_period_start=period[0],
        current_period_end=period[1],
        metadata={},
    )


def _period(subscription: Json) -> tuple[int, int]:
    first = subscription["items"]["data"][0]
    return first["current_period_start"], first["current_period_end"]


def _is_metered(item: Json) -> bool:
    return bool(item["price"]["recurring"]["usage_type"] == "metered")


def _monthly(item: Json) -> Decimal:
    return Decimal(item["price"]["unit_amount_decimal"]) * int(item["quantity"])


def _usage(state: State, subscription: Json, item: Json, period: tuple[int, int]) -> int:
    meter = state.get("billing.meter", item["price"]["recurring"]["meter"])
    counted = counted_between(state, meter, subscription["customer"], *period)
    return _rounded(counted * Decimal(item["price"]["unit_amount_decimal"]))


def _share(begin: int, over: int, anchor: int) -> Decimal:
    """The part of the month that ends at the anchor."""
    end = datetime.fromtimestamp(anchor, UTC)
    last_of_month = end.replace(day=1) - timedelta(days=1)
    month = end - last_of_month.replace(day=min(end.day, last_of_month.day))
    return min(Decimal(1), Decimal(over - begin) / int(month.total_seconds()))


def _rounded(amount: Decimal) -> int:
    return int(amount.to_integral_value(ROUND_HALF_UP))


def _cancel(state: State, given: Json, subscription_id: str) -> Json:
    found = state.get("subscription", subscription_id)
    period, rows = _period(found), found["items"]["data"]
    lines = [(each["id"], _usage(state, found, each, period)) for each in rows if _is_metered(each)]
    ended = end(state, found)
    if given.get("invoice_now") and any(amount for _, amount in lines):
        bill(state, found, lines, reason="subscription_cycle", period=period)
    return ended


def _list(state: State, given: Json, kind: str, path: str) -> Json:
    if "customer" in given:
        state.get("customer", given["customer"], param="customer")
    fields = {name: given[name] for name in ("customer", "status") if given.get(name) not in {None, "all"}}
    return page(state.of(kind, **fields), given, path)


ROUTES = (
    Route(
        "GET",
        "/v1/subscriptions",
        params.SubscriptionListParams,
        lambda state, given: _list(state, given, "subscription", "/v1/subscriptions"),
    ),
    retrieving("/v1/subscriptions", "subscription", params.SubscriptionRetrieveParams),
    Route("POST", "/v1/subscriptions/*", params.SubscriptionUpdateParams, _update),
    Route(
        "DELETE",
        "/v1/subscriptions/*",
        params.SubscriptionCancelParams,
        _cancel,
    ),
    Route(
        "GET",
        "/v1/invoices",
        params.InvoiceListParams,
        lambda state, given: _list(state, given, "invoice", "/v1/invoices"),
    ),
    retrieving("/v1/invoices", "invoice", params.InvoiceRetrieveParams),
)
