"""The settings of money: whether live keys are charged, and what a new account is given."""

import re
from typing import Literal

from pydantic import BaseModel, Field, field_validator

_AMOUNT = re.compile(r"\d{1,9}(\.\d{1,6})?", re.ASCII)


class BillingSettings(BaseModel):
    """Money. Amounts are decimals in the currency of `MODELS_FILE`."""

    billing: Literal["off", "on"] = Field(
        default="off",
        description=(
            "`on` charges what live keys make from then on, by the list prices of `MODELS_FILE`: an account needs "
            "credit, an allowance or a bill. Test keys are never charged."
        ),
    )
    trial_credit: str = Field(default="0", description="The credit of a new account, such as `5` or `0.50`.")

    @field_validator("trial_credit")
    @classmethod
    def _is_amount(cls, value: str) -> str:
        if not _AMOUNT.fullmatch(value):
            raise ValueError("must be a decimal such as 5 or 0.50, with at most 6 digits after the point")
        return value

    @property
    def charges(self) -> bool:
        """Whether BILLING is on."""
        return self.billing == "on"
