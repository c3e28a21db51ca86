"""What a plan gives an account and what it takes back, and that no change of it overspends or loses anything."""

import asyncio
from collections.abc import Callable, Coroutine, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any

import asyncpg
import pytest
from app.billing import subscriptions
from app.billing.periods import period_of_account
from app.billing.subscriptions import allowance_beside_holds, anchor_day_of
from app.billing.tasks import tasks_of
from app.catalogue.offers import PlanOffer
from app.core.db import SessionMaker, connect_for_writing
from app.core.metrics.billing import BillingMetrics
from app.core.metrics.families import Families
from app.core.security import new_id
from hypothesis import given
from hypothesis import strategies as st
from tests.harness import until_waited_for

SMALL = PlanOffer(name="small", title="Small", allowance=10, cap=100, limit="5/minute", models=["banana"], weight=2)
LARGE = PlanOffer(
    name="large",
    title="Large",
    allowance=50,
    cap=900,
    limit="7/minute",
    limit_per_key="3/minute",
    concurrency_per_key=9,
    models=["banana", "apple"],
    weight=5,
)
AFTERWARDS = replace(LARGE, name="afterwards", is_postpaid=True)
NOTHING = {
    "allowance": 0,
    "cap": None,
    "is_postpaid": False,
    "generate_limit": None,
    "generate_limit_per_key": None,
    "generate_concurrency_per_key": None,
    "models": None,
    "weights": [1, 1],
}
Apply = Callable[..., Coroutine[Any, Any, int]]


def what_it_gives(plan: PlanOffer) -> Mapping[str, Any]:
    return {
        "allowance": plan.allowance,
        "cap": plan.cap,
        "is_postpaid": plan.is_postpaid,
        "generate_limit": plan.limit,
        "generate_limit_per_key": plan.limit_per_key,
        "generate_concurrency_per_key": plan.concurrency_per_key,
        "models": plan.models,
        "weights": [plan.weight, plan.weight],
    }


@pytest.fixture
def apply(sessions: SessionMaker, account_id: str) -> Apply:
    """`await apply(plan, status="stopped")`, for the account, in a transaction of its own."""

    async def apply(plan: PlanOffer | None, *, anchor_day: int = 1, status: Any = "active", **more: Any) -> int:
        async with sessions.begin() as session:
            return await subscriptions.apply(
                session, account_id=account_id, plan=plan, anchor_day=anchor_day, status=status, **more
            )

    return apply


async def has(database: asyncpg.Connection, account_id: str) -> Mapping[str, Any]:
    """What the account has now, of all that a plan gives."""
    return await row_of(
        database,
        """
        select b.allowance, b.cap, b.is_postpaid, a.generate_limit, a.generate_limit_per_key,
          a.generate_concurrency_per_key, a.models,
          array(select weight from lanes l where l.account_id = a.id order by class) as weights
        from accounts a join balances b on b.account_id = a.id where a.id = $1
        """,
        account_id,
    )


async def row_of(database: asyncpg.Connection, statement: str, account_id: str) -> Mapping[str, Any]:
    row = await database.fetchrow(statement, account_id)
    assert row is not None
    return dict(row)


async def test_a_plan_is_given_changed_stopped_resumed_and_ended_as_a_whole(
    database: asyncpg.Connection, account_id: str, apply: Apply
) -> None:
    await apply(SMALL)
    assert await has(database, account_id) == what_it_gives(SMALL)
    await apply(AFTERWARDS, anchor_day=28)
    assert await has(database, account_id) == what_it_gives(AFTERWARDS)
    await apply(None, anchor_day=28, status="past_due")
    assert await has(database, account_id) == what_it_gives(AFTERWARDS)
    await apply(None, anchor_day=28, status="stopped")
    assert await has(database, account_id) == NOTHING
    await apply(None, anchor_day=28)  # the catalogue need not have it any more
    assert await has(database, account_id) == what_it_gives(AFTERWARDS)
    await apply(None, status="cancelled")
    assert await has(database, account_id) == NOTHING
    row = await row_of(database, "select * from subscriptions where account_id = $1", account_id)
    assert (row["plan"], row["status"], row["is_pending"]) == ("afterwards", "cancelled", False)


async def test_what_others_have_set_stays_where_the_plan_does_not_change_it(
    database: asyncpg.Connection, account_id: str, apply: Apply
) -> None:
    await apply(SMALL)
    await database.execute("update balances set cap = 20 where account_id = $1", account_id)
    of_operator = "update accounts set generate_limit = '8/day', generate_limit_per_key = '6/day' where id = $1"
    await database.execute(of_operator, account_id)
    await apply(replace(SMALL, allowance=30))
    changed = {"allowance": 30, "cap": 20, "generate_limit": "8/day", "generate_limit_per_key": "6/day"}
    assert await has(database, account_id) == {**what_it_gives(SMALL), **changed}
    await apply(None, status="cancelled")
    assert await has(database, account_id) == {**NOTHING, "cap": 20, "generate_limit_per_key": "6/day"}


@pytest.mark.parametrize(
    ("cap", "before", "after", "expected"),
    [
        (20, SMALL, LARGE, 20),
        (100, SMALL, LARGE, 900),
        (800, LARGE, SMALL, 100),
        (20, LARGE, SMALL, 20),
        (None, replace(SMALL, cap=None), SMALL, 100),
        (1000, SMALL, replace(SMALL, allowance=30), 1000),
        (None, SMALL, replace(SMALL, allowance=30), None),
        (1000, SMALL, LARGE, 900),
        (100, SMALL, replace(SMALL, cap=None), None),
    ],
)
async def test_a_cap_is_never_above_that_of_a_new_plan_unless_an_operator_has_set_it_since(
    *,
    database: asyncpg.Connection,
    account_id: str,
    apply: Apply,
    cap: int | None,
    before: PlanOffer,
    after: PlanOffer,
    expected: int | None,
) -> None:
    await apply(before)
    await database.execute("update balances set cap = $2 where account_id = $1", account_id, cap)
    await apply(after)
    assert (await has(database, account_id))["cap"] == expected


async def test_limits_and_models_hold_from_the_next_commit_on(
    database: asyncpg.Connection, account_id: str, apply: Apply
) -> None:
    user_id = f"usr_{account_id[4:]}"
    await database.execute("insert into users (id, email, password_hash) values ($1, $1, '')", user_id)
    add = (
        "insert into api_keys (id, user_id, account_id, name, environment, prefix, key_hash)"
        " values ($1, $2, $3, '', 'live', '', sha256($1::text::bytea))"
    )
    await database.execute(add, new_id("key"), user_id, account_id)
    revisions = []
    for plan in (SMALL, SMALL, replace(SMALL, allowance=0), LARGE, None):
        await apply(plan, status="active" if plan else "cancelled")
        revisions.append(await database.fetchval("select revision from api_keys where account_id = $1", account_id))
    assert revisions == [1, 1, 1, 2, 3]


async def test_the_times_of_a_subscription_are_those_of_its_life(
    database: asyncpg.Connection, account_id: str, apply: Apply
) -> None:
    async def times() -> Mapping[str, Any]:
        row = await row_of(database, "select * from subscriptions where account_id = $1", account_id)
        return {name: row[name] for name in ("started_at", "past_due_since", "stripe_id")}

    await apply(SMALL, stripe_id="sub_1")
    began = await times()
    assert began["past_due_since"] is None
    await apply(SMALL, status="past_due", stripe_id="sub_1")
    missing = await times()
    assert (missing["started_at"], missing["past_due_since"] is None) == (began["started_at"], False)
    await apply(LARGE, status="past_due", stripe_id="sub_1")
    changed = await times()
    assert changed["past_due_since"] == missing["past_due_since"]  # no plan is a way to more days of grace
    assert changed["started_at"] > began["started_at"]
    await apply(LARGE, stripe_id="sub_1")
    assert (await times())["past_due_since"] is None


@pytest.mark.parametrize("status", ["active", "cancelled"])
async def test_without_a_plan_there_is_none_to_go_on_with_and_none_to_end(
    database: asyncpg.Connection, account_id: str, apply: Apply, status: str
) -> None:
    if status == "active":
        with pytest.raises(LookupError):
            await apply(None)
    else:
        assert await apply(None, status=status) == 0
    assert await database.fetchval("select count(*) from subscriptions where account_id = $1", account_id) == 0


CHANGES = {
    # credit, charged, held and spent under a plan that includes 10: the allowance once it is ended, and nothing later
    "nothing is held": (0, 0, 0, 4, 0),
    "credit covers what is held": (5, 0, 5, 4, 0),
    "the allowance covers it": (0, 0, 5, 4, 9),
    "both cover it": (3, 0, 5, 4, 6),
    "all is held": (0, 0, 6, 4, 10),
    "a dispute has taken the credit": (-100, 0, 6, 4, 10),
    "what is held was admitted before a dispute": (-100, 0, 50, 4, 10),
    "more was spent than is included": (20, 10, 5, 15, 0),
}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
async def test_of_an_allowance_stays_what_is_held_until_that_has_ended(
    database: asyncpg.Connection, sessions: SessionMaker, account_id: str, apply: Apply, change: Sequence[int]
) -> None:
    async def allowance() -> tuple[int, bool]:
        await subscriptions.finish_pending(sessions)
        found = "select b.allowance, s.is_pending from balances b join subscriptions s using (account_id)"
        row = await row_of(database, f"{found} where account_id = $1", account_id)
        return row["allowance"], row["is_pending"]

    *balance, kept = change
    await apply(SMALL)
    row = "update balances set credit = $2, charged = $3, held = $4, spent = $5, period = now() where account_id = $1"
    await database.execute(row, account_id, *balance)
    assert await apply(None, status="cancelled") == kept
    assert await allowance() == (kept, kept > 0)
    await database.execute("update balances set held = 0 where account_id = $1", account_id)
    assert await allowance() == (0, False)


async def test_a_plan_that_changes_while_images_are_admitted_leaves_room_for_them(
    database: asyncpg.Connection, account_id: str, apply: Apply
) -> None:
    """The ledger locks the balance, holds a price and commits: a change that came meanwhile sees the hold."""
    await apply(SMALL)
    async with database.transaction():
        await database.execute("update balances set held = held + 10 where account_id = $1", account_id)
        change = asyncio.create_task(apply(None, status="cancelled"))
        await until_waited_for(database)
    assert await change == 10
    room = "select credit - charged - held + allowance - spent from balances where account_id = $1"
    assert await database.fetchval(room, account_id) == 0


async def test_of_changes_at_once_one_is_the_last_as_a_whole(
    database: asyncpg.Connection, account_id: str, apply: Apply
) -> None:
    plans = [SMALL, LARGE, AFTERWARDS, None]
    await apply(SMALL)
    for _ in range(3):
        await asyncio.gather(*(apply(each, status="active" if each else "stopped") for each in plans * 2))
        row = await row_of(database, "select plan, status from subscriptions where account_id = $1", account_id)
        [last] = [each for each in plans if each and each.name == row["plan"]]
        is_stopped = row["status"] == "stopped"
        assert await has(database, account_id) == (NOTHING if is_stopped else what_it_gives(last))


async def test_another_anchor_or_mode_counts_what_was_delivered_since_its_period_began(
    database: asyncpg.Connection, account_id: str, apply: Apply
) -> None:
    now = await database.fetchval("select now()")
    begins = {day: period_of_account(now, anchor=timedelta(days=day - 1)).start for day in range(1, 29)}
    days = sorted(begins, key=lambda day: begins[day])[-20:]
    for number, day in enumerate(days):
        charge = "insert into charges (account_id, hour, amount, from_allowance, from_credit, billed)"
        await database.execute(f"{charge} values ($1, $2, $3, $3, 0, 0)", account_id, begins[day], 2**number)
    for number, day in enumerate(days):
        await apply(SMALL, anchor_day=day)
        row = await row_of(database, "select spent, period, anchor from balances where account_id = $1", account_id)
        delivered = sum(2**later for later in range(number, len(days)))
        assert row == {"spent": delivered, "period": begins[day], "anchor": timedelta(days=day - 1)}
    await database.execute("update balances set spent = 1 where account_id = $1", account_id)
    await apply(LARGE, anchor_day=days[-1])
    assert await database.fetchval("select spent from balances where account_id = $1", account_id) == 1
    await apply(AFTERWARDS, anchor_day=days[-1])
    assert await database.fetchval("select spent from balances where account_id = $1", account_id) == 2**19


@given(
    allowance=st.integers(0, 100),
    spent=st.integers(0, 100),
    left=st.integers(0, 100),
    credit=st.integers(0, 100),
    held=st.integers(0, 100),
)
def test_room_for_holds_stays_and_is_room_for_nothing_else(
    allowance: int, spent: int, left: int, credit: int, held: int
) -> None:
    given_now = allowance_beside_holds(allowance, spent=spent, left=left, free_credit=credit, held=held)
    room = credit - held + max(given_now - spent, 0)
    assert given_now >= allowance
    if credit - held + left >= 0:
        assert room >= 0
    if given_now > allowance:
        assert room <= 0
        assert given_now - spent <= left
    if held == 0:
        assert given_now == allowance


@given(at=st.datetimes(timezones=st.just(UTC)))
def test_a_plan_has_its_first_period_from_the_day_on_which_it_begins_or_the_28th(at: datetime) -> None:
    start = period_of_account(at, anchor=timedelta(days=anchor_day_of(at) - 1)).start
    assert start.date() == (at if at.day <= 28 else at.replace(day=28)).date()


def test_what_is_kept_of_an_allowance_is_looked_for_every_second(sessions: SessionMaker) -> None:
    """What is kept at a period's end could be spent once more until it is taken back."""
    tasks = tasks_of(sessions, partial(connect_for_writing, "of no use"), None, BillingMetrics(Families()))
    assert {each.name: each.seconds for each in tasks}["finish_plans"] == 1
