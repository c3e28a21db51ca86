"""The ledger's statements, each a file of this folder and one transaction.

All of them, and all other code, wait for rows in one order, so that there are no deadlocks: users, accounts, api_keys
by id, balances by id, lanes by account and class, claims by scope, generations. Those who wait for several generations
have locked their keys before, so these have no order of their own. Rows of `lane_keys` and `usage` change under the
lock of their lane and of their key: nobody waits for them. A statement that does not wait (`skip locked`) may begin
anywhere.

What is taken off a lane's numbers is written as `greatest(..., 0)`: PostgreSQL checks the constraints of a changed row
on the version that the statement saw at first, before it goes on to the newest one, of which the difference is right.
The rows of keys and balances are changed to what follows from them as they were locked, so they need no such bound.

Money. The price of a generation stands in its row and never changes; 0 is none. What has a price is admitted first, as
`processing` or `queued`, and charged when it is delivered, by the statements with `priced` in their names.

- An image holds its price while `lease_until` is not null, that is while it is queued or processing. `balances.held`
  is the sum of what an account holds, `api_keys.held` that of a key, while the key has a cap. The statement that ends
  this state of a row releases the hold, in the same commit: the row's status decides that it does so once.
- It is admitted where it fits: into `credit - charged - held + greatest(allowance - spent, 0)` of an account that pays
  in advance, and into `cap - spent - held` of the account's cap and of the key's. `spent` is what was delivered since
  `period` began, and reads as 0 once a new period has. Holds count in every period, and a charge belongs to the period
  of its delivery, so that nothing is overspent at the end of one.
- All of this is read from rows that the statement has locked: any other row is as old as the snapshot. The condition of
  an UPDATE is asked of the snapshot first, and of the row as it is now only then: whether a key has a cap is asked of
  the locked row, and never in a WHERE of `api_keys`.
- A settlement charges the delivered images: to the allowance first, then to the credit (`charged`), or to the bill of
  an account that pays afterwards; and adds them to the row of the account and the hour in `charges`. Period, day and
  hour are those of a time that is taken when the balance is locked. For each account that time only goes forward, so a
  transaction that has locked the balance after the end of an hour can close the hour.
- A batch is judged in order, by a running sum. The sum counts what stands before a request also where that turns out to
  be a replay: it may say no too early, and never yes wrongly. A refusal is final only where the request does not fit
  beside what was really written. Else its verdict is `again`; the first request of an account never has that verdict.
- A request that an earlier send may have written is looked for before it is refused: it may itself have taken what was
  left. A revoked key stays revoked, but an account may have credit again a moment later. So that look decides only
  because the earlier send can do nothing more: the new connection has waited for its end (`fence`).
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from typing import Any

_PARAMETER = re.compile(r"(?<!:):([a-z_]+)")
_PART = re.compile(r"\{([a-z_]+)\}")
_LOCK = "for no key update"


@dataclass(frozen=True)
class Statement:
    """A statement for asyncpg, whose parameters are `$1`, `$2`, ...; `parameters` has their names, in that order."""

    name: str
    text: str
    parameters: Sequence[str]

    @classmethod
    def load(cls, name: str) -> "Statement":
        """The statement of the file `name`.sql, where parameters are written as `:name`, and `{name}` stands for what
        several statements share: the file `parts/name.sql`, which may have parts itself.
        """
        written = with_parts(_read(f"{name}.sql"))
        names = list(dict.fromkeys(_PARAMETER.findall(written)))
        return cls(name, _PARAMETER.sub(lambda match: f"${names.index(match[1]) + 1}", written), names)

    def skipping_locked(self) -> "Statement":
        """The same statement, which passes over keys whose rows are locked instead of waiting for them."""
        return Statement(f"{self.name} skip locked", self.text.replace(_LOCK, f"{_LOCK} skip locked"), self.parameters)

    def arguments(self, values: Mapping[str, Any]) -> Sequence[Any]:
        """The values in the order of the parameters."""
        return [values[name] for name in self.parameters]


def _read(path: str) -> str:
    return resources.files(__package__).joinpath(path).read_text("utf-8")


def with_parts(text: str) -> str:
    """The text with the file `parts/name.sql` in the place of each `{name}`, without the file's comments."""

    def part(match: re.Match[str]) -> str:
        lines = _read(f"parts/{match[1]}.sql").splitlines()
        return with_parts("\n".join(line for line in lines if not line.startswith("--")))

    return _PART.sub(part, text)


FENCE = Statement.load("fence")
RECORD = Statement.load("record")
RECORD_SKIP_LOCKED = RECORD.skipping_locked()
RECORD_PRICED = Statement.load("record_priced")
RECORD_PRICED_SKIP_LOCKED = RECORD_PRICED.skipping_locked()
FIND_RECORDED = Statement.load("find_recorded")
SETTLE = Statement.load("settle")
SETTLE_JOBS = Statement.load("settle_jobs")
SETTLE_PRICED = Statement.load("settle_priced")
SETTLE_JOBS_PRICED = Statement.load("settle_jobs_priced")
FIND_SETTLED = Statement.load("find_settled")
TAKE_OVER = Statement.load("take_over")
EXPIRE_CLAIMS = Statement.load("expire_claims")
SWEEP_CLAIMS = Statement.load("sweep_claims")
SWEEP_LAPSED = Statement.load("sweep_lapsed")
RECORD_QUEUED = Statement.load("record_queued")
RECORD_QUEUED_SKIP_LOCKED = RECORD_QUEUED.skipping_locked()
RECORD_QUEUED_PRICED = Statement.load("record_queued_priced")
RECORD_QUEUED_PRICED_SKIP_LOCKED = RECORD_QUEUED_PRICED.skipping_locked()
MAKE_LANES = Statement.load("make_lanes")
MARK_SENT = Statement.load("mark_sent")
SWEEP_JOBS = Statement.load("sweep_jobs")
CANCEL_QUEUED = Statement.load("cancel_queued")
DISCARD_PLANS = Statement.load("discard_plans")
QUERIES = {
    each.name: each
    for each in (
        SWEEP_JOBS,
        FIND_SETTLED,
        *map(Statement.load, ("take_jobs", "renew_leases", "give_back_jobs", "cancel_job", "requeue_job")),
    )
}
"""Those that `Ledger.query` runs, by name."""
