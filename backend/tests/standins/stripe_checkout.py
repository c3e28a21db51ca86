"""Checkouts and the customer portal, with pages that a browser can use, at a stand-in for Stripe."""

from html import escape
from urllib.parse import parse_qs

from stripe import billing_portal, checkout
from stripe.params import billing_portal as portal_params
from stripe.params import checkout as params
from tests.standins.stripe_billing import subscribe
from tests.standins.stripe_catalogue import make_price
from tests.standins.stripe_forms import Json, StripeFault
from tests.standins.stripe_payments import make_payment
from tests.standins.stripe_state import DAY, Route, State, page, retrieving
from tests.standins.wire import Reply, Seen

_MODES = {"payment", "subscription"}


def _create(state: State, given: Json) -> Json:
    mode, items = given.get("mode"), given.get("line_items", [])
    if mode not in _MODES or not items or not given.get("success_url"):
        raise StripeFault(400, "A mode, line_items and a success_url are needed.", code="parameter_missing")
    customer = state.get("customer", given.get("customer", ""), param="customer")
    if given.get("tax_id_collection", {}).get("enabled") and given.get("customer_update", {}).get("name") != "auto":
        raise StripeFault(400, "Tax IDs need customer_update[name] to be auto.", param="customer_update[name]")
    prices = [_price(state, each, mode) for each in items]
    if given.get("automatic_tax", {}).get("enabled"):
        if given.get("customer_update", {}).get("address") != "auto":
            raise StripeFault(400, "Automatic tax needs an address.", param="customer_update[address]")
        if not all(price["tax_behavior"] for price in prices):
            raise StripeFault(400, "Automatic tax needs prices with a tax_behavior.", param="automatic_tax")
    total = sum(
        int(price["unit_amount"]) * each.get("quantity", 1)
        for price, each in zip(prices, items, strict=True)
        if price["recurring"] is None or price["recurring"]["usage_type"] == "licensed"
    )
    made = state.add(
        checkout.Session,
        mode=mode,
        status="open",
        payment_status="unpaid",
        customer=customer["id"],
        client_reference_id=given.get("client_reference_id"),
        currency=prices[0]["currency"],
        **dict.fromkeys(("amount_subtotal", "amount_total"), total),
        success_url=given["success_url"],
        cancel_url=given.get("cancel_url"),
        metadata=given.get("metadata", {}),
        expires_at=given.get("expires_at", state.now() + DAY),
        payment_method_types=["card"],
        custom_fields=[],
        shipping_options=[],
        automatic_tax=given.get("automatic_tax", {"enabled": False}),
    )
    made["url"] = f"{state.url}/pay/{made['id']}"
    state.ordered[made["id"]] = given | {
        "line_items": [
            {"price": price["id"]} | ({"quantity": each["quantity"]} if "quantity" in each else {})
            for price, each in zip(prices, items, strict=True)
        ]
    }
    return made


def _price(state: State, item: Json, mode: str) -> Json:
    if "price" in item:
        price = state.get("price", item["price"], param="line_items[0][price]")
    else:
        data = item["price_data"]
        if {"product", "product_data"}.isdisjoint(data):
            raise StripeFault(400, "Missing product.", code="parameter_missing", param="line_items[0][price_data]")
        data.pop("product_data", None)
        price = make_price(state, data | {"active": False})
    if mode == "payment" and price["recurring"] is not None:
        raise StripeFault(400, "Recurring prices need the mode subscription.", param="mode")
    return price


def is_open(state: State, session: Json) -> bool:
    if session["status"] == "open" and session["expires_at"] <= state.now():
        session["status"] = "expired"
        state.emit("checkout.session.expired", session)
    return bool(session["status"] == "open")


def complete(state: State, session_id: str, *, is_settled: bool = True, tax: int = 0) -> Json:
    """The customer has paid, by a card, or in a way whose money comes later; `tax` comes on top, in minor units."""
    session, given = state.get("checkout.session", session_id), state.ordered[session_id]
    if not is_open(state, session):
        raise StripeFault(400, "This Checkout Session is not open.")
    session["amount_total"] += tax
    if session["mode"] == "payment":
        metadata = given.get("payment_intent_data", {}).get("metadata", {})
        session["payment_intent"] = make_payment(state, session, metadata, is_settled=is_settled)["id"]
    else:
        data = given.get("subscription_data", {})
        made = subscribe(state, session["customer"], given["line_items"], data)
        session |= {"subscription": made["id"], "invoice": made["latest_invoice"]}
    session |= {"status": "complete", "payment_status": "paid" if is_settled else "unpaid"}
    state.emit("checkout.session.completed", session)
    return session


def settle(state: State, session_id: str, *, is_paid: bool) -> Json:
    """The money of a completed checkout has come, or will not come."""
    session = state.get("checkout.session", session_id)
    payment = state.get("payment_intent", session["payment_intent"])
    if is_paid:
        payment |= {"status": "succeeded", "amount_received": payment["amount"]}
        session["payment_status"] = "paid"
        state.emit("payment_intent.succeeded", payment)
    else:
        payment["status"] = "requires_payment_method"
    state.emit(f"checkout.session.async_payment_{'succeeded' if is_paid else 'failed'}", session)
    return session


def _create_portal_session(state: State, given: Json) -> Json:
    state.get("customer", given["customer"], param="customer")
    if "configuration" in given:
        state.get("billing_portal.configuration", given["configuration"], param="configuration")
    made = state.add(billing_portal.Session, **given)
    made["url"] = f"{state.url}/portal/{made['id']}"
    return made


def answer_browser(state: State, seen: Seen) -> Reply:
    """The pages: `/pay/<checkout>` and `/portal/<session>`. A form's button says what the customer does."""
    _, place, object_id = [*seen.path.split("/"), "", ""][:3]
    if place == "pay" and object_id in state.objects:
        return _pay_page(state, state.objects[object_id], seen)
    if place == "portal" and object_id in state.objects:
        return _portal_page(state, state.objects[object_id], seen)
    return _html("Not found", "", status=404)


def _pay_page(state: State, session: Json, seen: Seen) -> Reply:
    does = parse_qs(seen.body.decode()).get("does", [""])[0] if seen.method == "POST" else ""
    if does in {"pay", "later"} and is_open(state, session):
        complete(state, session["id"], is_settled=does == "pay")
        return _redirect(session["success_url"].replace("{CHECKOUT_SESSION_ID}", session["id"]))
    if not is_open(state, session):
        return _html("This page has expired", _link(session["cancel_url"] or "/", "Back"))
    amount = f"{session['amount_total']} {session['currency'].upper()}"
    declined = "<p role=alert>Your card was declined.</p>" if does == "decline" else ""
    buttons = "".join(_button(value, text) for value, text in _BUTTONS.items())
    form = f"<p>{amount} in minor units</p>{declined}<form method=post>{buttons}</form>"
    return _html("Checkout", form + _link(session["cancel_url"] or "/", "Cancel"))


_BUTTONS = {"pay": "Pay", "later": "Pay by bank transfer", "decline": "Pay by a card that is declined"}


def _portal_page(state: State, session: Json, seen: Seen) -> Reply:
    going = [each for each in state.of("subscription", customer=session["customer"]) if each["status"] != "canceled"]
    if seen.method == "POST":
        for each in going:
            each |= {"cancel_at_period_end": True, "cancel_at": each["items"]["data"][0]["current_period_end"]}
            state.emit("customer.subscription.updated", each)
    button = f"<form method=post>{_button('cancel', 'Cancel plan')}</form>" if going else "<p>No plan</p>"
    return _html("Billing", button + _link(session["return_url"] or "/", "Back"))


def _button(value: str, text: str) -> str:
    return f"<button name=does value={value}>{escape(text)}</button>"


def _link(url: str, text: str) -> str:
    return f'<a href="{escape(url)}">{escape(text)}</a>'


def _html(title: str, body: str, *, status: int = 200) -> Reply:
    page_of = f"<!doctype html><html lang=en><title>{title}</title><main><h1>{title}</h1>{body}</main></html>"
    return Reply(page_of.encode(), status, {"Content-Type": "text/html; charset=utf-8"})


def _redirect(url: str) -> Reply:
    return Reply(b"", 303, {"Location": url})


ROUTES = (
    Route("POST", "/v1/checkout/sessions", params.SessionCreateParams, _create),
    Route(
        "GET",
        "/v1/checkout/sessions",
        params.SessionListParams,
        lambda state, given: page(state.of("checkout.session"), given, "/v1/checkout/sessions"),
    ),
    retrieving("/v1/checkout/sessions", "checkout.session", params.SessionRetrieveParams),
    Route("POST", "/v1/billing_portal/sessions", portal_params.SessionCreateParams, _create_portal_session),
)
