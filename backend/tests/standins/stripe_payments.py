"""Payments, refunds and disputes, at a stand-in for Stripe."""

import stripe
from stripe import params
from tests.standins.stripe_forms import Json, StripeFault
from tests.standins.stripe_state import Route, State, page, retrieving


def make_payment(state: State, session: Json, metadata: Json, *, is_settled: bool) -> Json:
    """The payment of a checkout: the money is there, or is on its way."""
    made = state.add(
        stripe.PaymentIntent,
        amount=session["amount_total"],
        amount_received=session["amount_total"] if is_settled else 0,
        currency=session["currency"],
        customer=session["customer"],
        status="succeeded" if is_settled else "processing",
        metadata=metadata,
        payment_method_types=["card"],
        latest_charge=state.new_id("ch"),
    )
    if is_settled:
        state.emit("payment_intent.succeeded", made)
    return made


def refund(state: State, payment_id: str, amount: int | None = None, *, status: str = "succeeded") -> Json:
    """Gives back so many minor units, by default all that was not given back."""
    payment = state.get("payment_intent", payment_id, param="payment_intent")
    before = sum(each["amount"] for each in state.of("refund", payment_intent=payment_id) if each["status"] != "failed")
    left = payment["amount_received"] - before
    if not left:
        raise StripeFault(400, "The charge has already been refunded.", code="charge_already_refunded")
    if amount is not None and not 0 < amount <= left:
        raise StripeFault(400, "The refund is greater than what is left of the charge.", param="amount")
    made = state.add(
        stripe.Refund,
        amount=amount or left,
        currency=payment["currency"],
        payment_intent=payment_id,
        charge=payment["latest_charge"],
        status=status,
        metadata={},
    )
    state.emit("refund.created", made)
    return made


def change_refund(state: State, refund_id: str, status: str) -> Json:
    """A pending refund has ended."""
    found = state.get("refund", refund_id)
    found["status"] = status
    state.emit("refund.failed" if status == "failed" else "refund.updated", found)
    return found


def dispute(state: State, payment_id: str, *, status: str = "needs_response") -> Json:
    """The payer contests a payment: all of it is taken back, but in an inquiry, whose status begins with `warning_`."""
    payment = state.get("payment_intent", payment_id)
    made = state.add(
        stripe.Dispute,
        amount=payment["amount_received"],
        currency=payment["currency"],
        payment_intent=payment_id,
        charge=payment["latest_charge"],
        status=status,
        reason="fraudulent",
        metadata={},
        balance_transactions=[],
        is_charge_refundable=False,
    )
    state.emit("charge.dispute.created", made)
    if not status.startswith("warning_"):
        state.emit("charge.dispute.funds_withdrawn", made)
    return made


def close_dispute(state: State, dispute_id: str, *, is_won: bool) -> Json:
    found = state.get("dispute", dispute_id)
    found["status"] = "won" if is_won else "lost"
    state.emit("charge.dispute.closed", found)
    if is_won:
        state.emit("charge.dispute.funds_reinstated", found)
    return found


def _list_refunds(state: State, given: Json) -> Json:
    wanted = given.get("payment_intent")
    return page((each for each in state.of("refund") if wanted in {None, each["payment_intent"]}), given, "/v1/refunds")


ROUTES = (
    retrieving("/v1/payment_intents", "payment_intent", params.PaymentIntentRetrieveParams),
    Route(
        "POST",
        "/v1/refunds",
        params.RefundCreateParams,
        lambda state, given: refund(state, given["payment_intent"], given.get("amount")),
    ),
    Route("GET", "/v1/refunds", params.RefundListParams, _list_refunds),
    retrieving("/v1/refunds", "refund", params.RefundRetrieveParams),
    retrieving("/v1/disputes", "dispute", params.DisputeRetrieveParams),
)
