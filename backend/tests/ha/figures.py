"""What callers met of one fault, as figures."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

from tests.chaos.load import Call
from tests.chaos.verify import Database

_RECORDED = "select id, prompt from generations where key_id = any($1) and status = 'delivered'"


@dataclass(frozen=True)
class Figures:
    """Counts of calls, but `gap_seconds`: the longest time without an acknowledgement, the deadline of the calls that
    were under way included.
    """

    gap_seconds: float
    acknowledged: int
    refused: int
    unknown: int
    unknown_recorded: int
    """Of the unknown, those that were recorded nevertheless."""
    lost: int
    """Acknowledged, and not recorded."""
    refused_recorded: int
    """Refused by a definite error at every try, and recorded."""
    others: int
    """Neither acknowledged, nor 503, nor refused because of a revoked key."""


async def measure(database: Database, journal: Sequence[Call], *, since: float) -> Figures:
    """The figures of the calls in the journal; the gap is that of a fault which began at `since`."""
    connection = await database.connect()
    rows = await connection.fetch(_RECORDED, list({call.key_id for call in journal}))
    await connection.close()
    ids, prompts = {row["id"] for row in rows}, {row["prompt"] for row in rows}
    ok = [call for call in journal if call.outcome == "ok"]
    outcomes: dict[str, set[str]] = {}
    for call in journal:
        outcomes.setdefault(call.prompt, set()).add(call.outcome)
    unknown = {prompt for prompt, each in outcomes.items() if "unknown" in each and "ok" not in each}
    refused = {prompt for prompt, each in outcomes.items() if each == {"fail"}}
    times = [max(call.received, since) for call in sorted(ok, key=lambda call: call.received)]
    return Figures(
        gap_seconds=max(after - before for before, after in pairwise([since, *times])),
        acknowledged=len(ok),
        refused=sum(call.code == "unavailable" for call in journal),
        unknown=len(unknown),
        unknown_recorded=len(unknown & prompts),
        lost=sum(not set(call.ids) <= ids for call in ok),
        refused_recorded=len(refused & prompts),
        others=sum(call.status not in {200, 401, 503} for call in journal),
    )
