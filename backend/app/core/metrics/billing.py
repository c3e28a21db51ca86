"""Money: what should never be, and what operators are to look at."""

from app.core.metrics.families import Families


class BillingMetrics:
    """Credit and charges. Amounts are no metrics: they stand in the database, exactly."""

    def __init__(self, families: Families) -> None:
        self.entry_mismatches = families.counter(
            "entry_mismatches",
            "Credit entries that were refused because another account or amount had their reference.",
        )
