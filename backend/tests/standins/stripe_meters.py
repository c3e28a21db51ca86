"""Meters, their events and their sums, at a stand-in for Stripe."""

import re

from stripe import billing
from stripe.params import billing as params
from tests.standins.stripe_forms import Json, StripeFault
from tests.standins.stripe_state import DAY, Route, State, page

_MINUTE, _HOUR = 60, 3600


def _create_meter(state: State, given: Json) -> Json:
    if state.of("billing.meter", event_name=given["event_name"], status="active"):
        raise StripeFault(400, "There is an active meter with this event name already.", param="event_name")
    return state.add(billing.Meter, **{"status": "active", "updated": state.now()} | given)


def _list_meters(state: State, given: Json) -> Json:
    found = [each for each in state.of("billing.meter") if given.get("status") in {None, each["status"]}]
    return page(found, given, "/v1/billing/meters")


def _create_event(state: State, given: Json) -> Json:
    now, identifier = state.now(), given.get("identifier") or state.new_id("me")
    at, payload = given.get("timestamp", now), given["payload"]
    if not state.of("billing.meter", event_name=given["event_name"], status="active"):
        raise StripeFault(404, "No active meter found for this event name.", code="no_meter", param="event_name")
    if not now - 35 * DAY <= at:
        raise StripeFault(400, "The timestamp is too old.", code="timestamp_too_far_in_past", param="timestamp")
    if at > now + 5 * _MINUTE:
        raise StripeFault(400, "The timestamp is in the future.", code="timestamp_in_future", param="timestamp")
    if len(identifier) > 100 or not re.fullmatch(r"-?\d+", payload.get("value", ""), re.ASCII):
        raise StripeFault(400, "The event has no whole number as its value.", code="meter_event_invalid_value")
    state.get("customer", payload.get("stripe_customer_id", ""), param="payload[stripe_customer_id]")
    if any(each["identifier"] == identifier and each["created"] > now - DAY for each in state.meter_events):
        raise StripeFault(400, f"An event already exists with identifier {identifier}.")
    about = {"event_name": given["event_name"], "identifier": identifier, "payload": payload, "timestamp": at}
    state.meter_events.append(state.blank(billing.MeterEvent, **about))
    return state.meter_events[-1]


def counted_between(state: State, meter: Json, customer_id: str, begin: int, end: int) -> int:
    return sum(
        int(each["payload"]["value"])
        for each in state.meter_events
        if each["event_name"] == meter["event_name"]
        and each["payload"]["stripe_customer_id"] == customer_id
        and begin <= each["timestamp"] < end
    )


def _list_summaries(state: State, given: Json, meter_id: str) -> Json:
    """One for the whole time, or one for each hour or day in which something was counted."""
    meter, begin, end = state.get("billing.meter", meter_id), given["start_time"], given["end_time"]
    state.get("customer", given["customer"], param="customer")
    step = {"hour": _HOUR, "day": DAY}.get(given.get("value_grouping_window", ""), end - begin)
    aligned = _MINUTE if step == end - begin else step
    if begin % aligned or end % aligned or begin >= end:
        raise StripeFault(400, "The times must be aligned, and the end after the start.", param="start_time")
    rows = []
    for start in range(begin, end, step):
        total = counted_between(state, meter, given["customer"], start, start + step)
        if total:
            about = {"aggregated_value": float(total), "start_time": start, "end_time": start + step, "meter": meter_id}
            rows.append(state.blank(billing.MeterEventSummary, id=f"mtrusg_{start}", **about))
    return page(reversed(rows), given, f"/v1/billing/meters/{meter_id}/event_summaries")


ROUTES = (
    Route("POST", "/v1/billing/meters", params.MeterCreateParams, _create_meter),
    Route("GET", "/v1/billing/meters", params.MeterListParams, _list_meters),
    Route("GET", "/v1/billing/meters/*/event_summaries", params.MeterEventSummaryListParams, _list_summaries),
    Route("POST", "/v1/billing/meter_events", params.MeterEventCreateParams, _create_event),
)
