"""The ledger's statements, each a file of this folder and one transaction.

All of them, and all other code, wait for rows in one order, so that there are no deadlocks: users, accounts, api_keys
by id, balances by id, lanes by account and class, claims by scope, generations. Those who wait for several generations
have locked their keys before, so these have no order of their own. Rows of `lane_keys` and `usage` change under the
lock of their lane and of their key: nobody waits for them. A statement that does not wait (`skip locked`) may begin
anywhere.

What is taken off a lane's numbers is written as `greatest(..., 0)`: PostgreSQL checks the constraints of a changed row
on the version that the statement saw at first, before it goes on to the newest one, of which the difference is right.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

_PARAMETER = re.compile(r"(?<!:):([a-z_]+)")
_LOCK = "for no key update"


@dataclass(frozen=True)
class Statement:
    """A statement for asyncpg, whose parameters are `$1`, `$2`, ...; `parameters` has their names, in that order."""

    name: str
    text: str
    parameters: Sequence[str]

    @classmethod
    def load(cls, name: str) -> "Statement":
        """The statement of the file `name`.sql, where parameters are written as `:name`."""
        written = resources.files(__package__).joinpath(f"{name}.sql").read_text("utf-8")
        names = list(dict.fromkeys(_PARAMETER.findall(written)))
        return cls(name, _PARAMETER.sub(lambda match: f"${names.index(match[1]) + 1}", written), names)

    def skipping_locked(self) -> "Statement":
        """The same statement, which passes over keys whose rows are locked instead of waiting for them."""
        return Statement(f"{self.name} skip locked", self.text.replace(_LOCK, f"{_LOCK} skip locked"), self.parameters)

    def arguments(self, values: Mapping[str, Any]) -> Sequence[Any]:
        """The values in the order of the parameters."""
        return [values[name] for name in self.parameters]


RECORD = Statement.load("record")
RECORD_SKIP_LOCKED = RECORD.skipping_locked()
FIND_RECORDED = Statement.load("find_recorded")
SETTLE = Statement.load("settle")
SETTLE_JOBS = Statement.load("settle_jobs")
FIND_SETTLED = Statement.load("find_settled")
TAKE_OVER = Statement.load("take_over")
EXPIRE_CLAIMS = Statement.load("expire_claims")
SWEEP_CLAIMS = Statement.load("sweep_claims")
SWEEP_LAPSED = Statement.load("sweep_lapsed")
RECORD_QUEUED = Statement.load("record_queued")
RECORD_QUEUED_SKIP_LOCKED = RECORD_QUEUED.skipping_locked()
MAKE_LANES = Statement.load("make_lanes")
MARK_SENT = Statement.load("mark_sent")
SWEEP_JOBS = Statement.load("sweep_jobs")
CANCEL_QUEUED = Statement.load("cancel_queued")
DISCARD_PLANS = Statement.load("discard_plans")
QUERIES = {
    each: Statement.load(each)
    for each in (
        "take_jobs",
        "renew_leases",
        "give_back_jobs",
        "cancel_job",
        "requeue_job",
        "sweep_jobs",
        "find_settled",
    )
}
"""Those that `Ledger.query` runs, by name."""
