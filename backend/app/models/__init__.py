"""The schema, a file for each area. Rows of used keys and of usage are never deleted, generations only by
whole months (LEDGER_RETENTION_DAYS).

A transaction that locks rows of several tables locks them in this order, and never waits in a circle with another:
invitations, users, accounts, keys by id, balances by id, lanes by account and class, claims by scope, generations by
id, uploads by id, usage, charges, credit entries, subscriptions, erasures.
`compatibility` holds what only the version before needs.
"""

from app.models.accounts import TURNS, Account, BrowserSession, Erasure, Lane, LaneKey, User, is_owner_of
from app.models.base import Base
from app.models.billing import (
    Balance,
    CapPeriod,
    Charge,
    CreditEntry,
    EntryKind,
    StripeCustomer,
    StripeEvent,
    Subscription,
    SubscriptionStatus,
)
from app.models.deployment import Deployment, StripeMode
from app.models.generations import (
    ENDED_UNDELIVERED,
    Claim,
    Generation,
    GenerationClass,
    GenerationKind,
    GenerationStatus,
)
from app.models.invitations import Invitation
from app.models.keys import ApiKey
from app.models.uploads import Upload
from app.models.usage import Usage

__all__ = [
    "ENDED_UNDELIVERED",
    "TURNS",
    "Account",
    "ApiKey",
    "Balance",
    "Base",
    "BrowserSession",
    "CapPeriod",
    "Charge",
    "Claim",
    "CreditEntry",
    "Deployment",
    "EntryKind",
    "Erasure",
    "Generation",
    "GenerationClass",
    "GenerationKind",
    "GenerationStatus",
    "Invitation",
    "Lane",
    "LaneKey",
    "StripeCustomer",
    "StripeEvent",
    "StripeMode",
    "Subscription",
    "SubscriptionStatus",
    "Upload",
    "Usage",
    "User",
    "is_owner_of",
]
