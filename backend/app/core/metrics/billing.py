"""Money: what should never be, and what operators are to look at."""

from app.core.currencies import MILLION
from app.core.metrics.families import Families

WAYS_TO_PAY = ("allowance", "credit", "bill")
REFUSALS = ("insufficient_credit", "budget_exceeded")
METER_FAILURES = ("unavailable", "refused", "contradiction")


class BillingMetrics:
    """Credit and charges. What decides stands in the database, exactly; amounts here are in whole units of the
    currency, for charts.
    """

    def __init__(self, families: Families) -> None:
        self.entry_mismatches = families.counter(
            "billing_entry_mismatches",
            "Credit entries that were refused because another account or amount had their reference.",
        )
        self.hours_unreported = families.gauge(
            "billing_hours_unreported",
            "Hours of accounts that are over and to be billed, and that Stripe has not confirmed yet.",
            mode="livemax",
        )
        self.oldest_unreported_seconds = families.gauge(
            "billing_oldest_unreported_seconds",
            "Seconds since the oldest of these hours could be reported; 0 where there is none.",
            mode="livemax",
        )
        self.accounts_without_customer = families.gauge(
            "billing_accounts_without_customer",
            "Accounts with such hours that have no customer at Stripe.",
            mode="livemax",
        )
        self.meter_events = families.counter("billing_meter_events", "Hours that Stripe has confirmed.")
        self.meter_failures = families.counter(
            "billing_meter_failures",
            "Hours that could not be reported yet: Stripe was `unavailable`, has `refused` the event, or has counted "
            "another amount (`contradiction`).",
            "reason",
            values=METER_FAILURES,
        )
        self.refusals = families.counter(
            "billing_refusals",
            "Requests that were refused because of too little credit (`insufficient_credit`) or of a cap "
            "(`budget_exceeded`).",
            "code",
            values=REFUSALS,
        )
        self._charged_today = families.gauge(
            "billing_charged_today",
            "What accounts were charged on this UTC day, by what has paid for it: `allowance`, `credit` or `bill`. It "
            "falls to 0 at midnight, as a counter does that begins anew.",
            "paid_by",
            mode="livemax",
        )
        self.show_charged_today(0, 0, 0)
        self.charged = families.counter("billing_charged", "What was charged for delivered images.", "model")
        self.cost = families.counter(
            "billing_cost", "What the calls for images may have cost at providers, also of those that failed.", "model"
        )

    def count_image(self, model: str, *, charged: int, cost: int) -> None:
        """Counts an image that has ended, with amounts in millionths."""
        self.charged.add(model, number=charged / MILLION)
        self.cost.add(model, number=cost / MILLION)

    def show_charged_today(self, *amounts: int) -> None:
        """Shows what was charged today, in millionths and in the order of WAYS_TO_PAY."""
        for way, amount in zip(WAYS_TO_PAY, amounts, strict=True):
            self._charged_today.set(amount / MILLION, way)
