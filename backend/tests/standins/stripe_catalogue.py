"""Customers, products, prices, webhook endpoints and the configurations of the portal, at a stand-in for Stripe."""

import re
from decimal import Decimal

import stripe
from stripe import billing_portal, params
from stripe.params import billing_portal as portal_params
from tests.standins.stripe_billing import end
from tests.standins.stripe_forms import Json, StripeFault
from tests.standins.stripe_state import Route, State, page, retrieving

SEARCHED_AFTER_SECONDS = 60
"""What is newer is not found by a search: Stripe's index is behind."""


def _create_customer(state: State, given: Json) -> Json:
    about: Json = {"email": None, "metadata": {}, "balance": 0, "delinquent": False} | given
    return state.add(stripe.Customer, **about)


def delete_customer(state: State, customer_id: str) -> None:
    """What the customer has goes on being found by its id, but the customer, and lists by it, are no more."""
    for each in state.of("subscription", customer=customer_id):
        if each["status"] != "canceled":
            end(state, each)
    state.deleted_customers.add(customer_id)
    state.emit("customer.deleted", state.objects.pop(customer_id))


def _retrieve_customer(state: State, _given: Json, customer_id: str) -> Json:
    if customer_id in state.deleted_customers:
        return {"id": customer_id, "object": "customer", "deleted": True}
    return state.get("customer", customer_id)


def _update(state: State, kind: str, object_id: str, given: Json) -> Json:
    """Metadata are added to those that there are; an empty text removes one."""
    found = state.get(kind, object_id)
    metadata = (found["metadata"] or {}) | (given.pop("metadata", None) or {})
    found |= given
    found["metadata"] = {name: value for name, value in metadata.items() if value != ""}
    return found


def _search_customers(state: State, given: Json) -> Json:
    match = re.fullmatch(r"metadata\['(\w+)'\]:'(\w+)'", given["query"])
    if match is None:
        raise StripeFault(400, "We were unable to parse your search query.", param="query")
    indexed = state.now() - SEARCHED_AFTER_SECONDS
    found = [each for each in state.of("customer") if each["metadata"].get(match[1]) == match[2]]
    rows = [each for each in found if each["created"] <= indexed][: given.get("limit", 10)]
    return {
        "object": "search_result",
        "url": "/v1/customers/search",
        "has_more": False,
        "next_page": None,
        "data": rows,
    }


def _create_product(state: State, given: Json) -> Json:
    if given.get("id") in state.objects:
        raise StripeFault(400, "Product already exists.", code="resource_already_exists", param="id")
    about = {"active": True, "metadata": {}, "images": [], "marketing_features": [], "updated": state.now()} | given
    return state.add(stripe.Product, **about)


def _create_price(state: State, given: Json) -> Json:
    state.get("product", given["product"], param="product")
    takes_over = given.pop("transfer_lookup_key", False)
    for other in state.of("price"):
        if given.get("lookup_key") and other["lookup_key"] == given["lookup_key"]:
            if not takes_over:
                message = f"A price (`{other['id']}`) already uses that lookup key."
                raise StripeFault(400, message, param="lookup_key")
            other["lookup_key"] = None
    return make_price(state, given)


def make_price(state: State, given: Json) -> Json:
    """A price. Its amount may have a fraction: then only `unit_amount_decimal` has it."""
    amount = given.pop("unit_amount_decimal", given.get("unit_amount"))
    if amount is None:
        raise StripeFault(400, "Missing required param: unit_amount.", code="parameter_missing", param="unit_amount")
    recurring = given.pop("recurring", None)
    if recurring is not None:
        recurring = {
            "interval_count": 1,
            "usage_type": "licensed",
            "meter": None,
            "trial_period_days": None,
        } | recurring
        if recurring["usage_type"] == "metered":
            state.get("billing.meter", recurring["meter"] or "", param="recurring[meter]")
    about = {"active": True, "billing_scheme": "per_unit", "metadata": {}, "lookup_key": None} | given
    return state.add(
        stripe.Price,
        **about
        | {
            "type": "recurring" if recurring else "one_time",
            "recurring": recurring,
            "unit_amount": int(amount) if amount == int(amount) else None,
            "unit_amount_decimal": format(Decimal(amount), "f"),
        },
    )


def _list_prices(state: State, given: Json) -> Json:
    keys, active = given.get("lookup_keys"), given.get("active")
    found = [
        each
        for each in state.of("price")
        if (keys is None or each["lookup_key"] in keys) and active in {None, each["active"]}
    ]
    return page(found, given, "/v1/prices")


def _create_endpoint(state: State, given: Json) -> Json:
    if not given["url"].startswith("https://") and state.is_live:
        raise StripeFault(400, "Invalid URL: it must be https.", code="url_invalid", param="url")
    made = state.add(stripe.WebhookEndpoint, **{"status": "enabled", "metadata": {}} | given)
    state.secrets[made["id"]] = state.new_id("whsec")
    return made | {"secret": state.secrets[made["id"]]}  # here and never again


def _update_endpoint(state: State, given: Json, endpoint_id: str) -> Json:
    if "disabled" in given:
        given["status"] = "disabled" if given.pop("disabled") else "enabled"
    return _update(state, "webhook_endpoint", endpoint_id, given)


_PORTAL_FEATURES = {
    "customer_update": {"enabled": False, "allowed_updates": []},
    "invoice_history": {"enabled": False},
    "payment_method_update": {"enabled": False, "payment_method_configuration": None},
    "subscription_cancel": {"enabled": False, "mode": "at_period_end", "proration_behavior": "none"},
    "subscription_update": {"enabled": False, "default_allowed_updates": [], "proration_behavior": "none"},
}


def _create_portal(state: State, given: Json) -> Json:
    about = {"active": True, "is_default": False, "metadata": {}, "updated": state.now()} | given
    about["features"] = _features(_PORTAL_FEATURES, given["features"])
    return state.add(billing_portal.Configuration, **about)


def _update_portal(state: State, given: Json, portal_id: str) -> Json:
    found = state.get("billing_portal.configuration", portal_id)
    given["features"] = _features(found["features"], given.get("features", {}))
    return _update(state, "billing_portal.configuration", portal_id, given)


def _features(before: Json, given: Json) -> Json:
    return {name: before[name] | given.get(name, {}) for name in before}


def _list_portals(state: State, given: Json) -> Json:
    found = [each for each in state.of("billing_portal.configuration") if given.get("active") in {None, each["active"]}]
    return page(found, given, "/v1/billing_portal/configurations")


ROUTES = (
    Route("POST", "/v1/customers", params.CustomerCreateParams, _create_customer),
    Route("GET", "/v1/customers/search", params.CustomerSearchParams, _search_customers),
    Route("GET", "/v1/customers/*", params.CustomerRetrieveParams, _retrieve_customer),
    Route(
        "POST",
        "/v1/customers/*",
        params.CustomerUpdateParams,
        lambda *each: _update(each[0], "customer", each[2], each[1]),
    ),
    Route("POST", "/v1/products", params.ProductCreateParams, _create_product),
    retrieving("/v1/products", "product", params.ProductRetrieveParams),
    Route(
        "POST",
        "/v1/products/*",
        params.ProductUpdateParams,
        lambda *each: _update(each[0], "product", each[2], each[1]),
    ),
    Route("POST", "/v1/prices", params.PriceCreateParams, _create_price),
    Route("GET", "/v1/prices", params.PriceListParams, _list_prices),
    retrieving("/v1/prices", "price", params.PriceRetrieveParams),
    Route("POST", "/v1/webhook_endpoints", params.WebhookEndpointCreateParams, _create_endpoint),
    Route(
        "GET",
        "/v1/webhook_endpoints",
        params.WebhookEndpointListParams,
        lambda state, given: page(state.of("webhook_endpoint"), given, "/v1/webhook_endpoints"),
    ),
    Route("POST", "/v1/webhook_endpoints/*", params.WebhookEndpointUpdateParams, _update_endpoint),
    Route("POST", "/v1/billing_portal/configurations", portal_params.ConfigurationCreateParams, _create_portal),
    Route("GET", "/v1/billing_portal/configurations", portal_params.ConfigurationListParams, _list_portals),
    Route("POST", "/v1/billing_portal/configurations/*", portal_params.ConfigurationUpdateParams, _update_portal),
)
