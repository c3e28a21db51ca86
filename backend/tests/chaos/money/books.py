"""What accounts hold, are charged and may spend: judged by the tests' own database at each change, and summed up."""

import asyncio
from collections.abc import AsyncIterator, Collection, Sequence
from contextlib import asynccontextmanager, suppress

import asyncpg
from app.core.db import DATABASE_ERRORS
from tests.chaos.cluster import Cluster
from tests.generations.money.sums import wrong_sums

_LOOK_SECONDS = 0.5
_BOOKS = """
create table wrong_books (account_id text, sentence text);
create function judge_balance() returns trigger language plpgsql as $$
declare
  owed bigint := (select coalesce(sum(price), 0) from generations
    where account_id = new.account_id and lease_until is not null);
  paid bigint := (select coalesce(sum(from_credit), 0) from charges where account_id = new.account_id);
  entered bigint := (select coalesce(sum(amount), 0) from credit_entries where account_id = new.account_id);
  spent bigint := (select coalesce(sum(amount), 0) from charges where account_id = new.account_id
    and hour >= date_trunc('month', now() - new.anchor, 'UTC') + new.anchor);
begin
  insert into wrong_books select new.account_id, sentence from (values
    (new.held <> owed, format('held %s, images %s', new.held, owed)),
    (new.charged <> paid, format('charged %s, charges %s', new.charged, paid)),
    (new.credit <> entered, format('credit %s, entries %s', new.credit, entered)),
    (new.held > old.held and not new.is_postpaid
      and entered - paid - owed + greatest(new.allowance - spent, 0) < 0, 'overspent by an admission'),
    (new.held > old.held and spent + owed > new.cap, 'over the account''s cap by an admission')
  ) as v (is_wrong, sentence) where is_wrong;
  return null;
end $$;
create trigger books after update on balances for each row execute function judge_balance();
create function judge_key() returns trigger language plpgsql as $$
declare
  owed bigint := (select coalesce(sum(price), 0) from generations
    where account_id = new.account_id and key_id = new.id and lease_until is not null);
begin
  insert into wrong_books select new.account_id, sentence from (values
    (new.held <> owed, format('held of %s %s, images %s', new.id, new.held, owed)),
    (new.held > old.held and new.cap = old.cap and new.spent + owed > new.cap,
      format('over the cap of %s by an admission', new.id))
  ) as v (is_wrong, sentence) where is_wrong;
  return null;
end $$;
create trigger books after update on api_keys for each row when (new.cap is not null) execute function judge_key();
"""
_WRONG = """
select sentence, count(*) as times from wrong_books where account_id = any($1) group by 1 order by 1 limit 20
"""
_ENTRIES = "select reference, amount from credit_entries where account_id = any($1) and kind <> 'expiry'"
_OVERSPENT = """
select account_id from balances where account_id = any($1) and (spent + held > cap
  or allowance < (select sum(from_allowance) from charges c where c.account_id = balances.account_id))
"""


async def keep_books(database: asyncpg.Connection) -> None:
    """From now on the transaction that changes a balance, or the counters of a key with a cap, writes down what is
    wrong with them. It holds their locks, so that it sees all that was held and charged before it.
    """
    await database.execute(_BOOKS)


@asynccontextmanager
async def watched_sums(own: Cluster, wrong: set[str]) -> AsyncIterator[None]:
    """Compares the sums of all accounts all the time, each time in one snapshot, and adds what is wrong."""
    watch = asyncio.create_task(_watch(own, wrong))
    try:
        yield
    finally:
        watch.cancel()
        with suppress(asyncio.CancelledError):
            await watch


async def _watch(own: Cluster, wrong: set[str]) -> None:
    while True:
        with suppress(*DATABASE_ERRORS, OSError):
            wrong.update(await sums_of(own))
        await asyncio.sleep(_LOOK_SECONDS)


async def sums_of(own: Cluster) -> Sequence[str]:
    """The sums that are wrong now, as sentences."""
    connection = await own.connect()
    try:
        return [
            f"{each['id']}: {each['name']} {each['found']} not {each['expected']}"
            for each in await wrong_sums(connection)
            if each["name"] != "overspent"  # as a dispute may leave it: admissions are judged by the database
        ]
    finally:
        connection.terminate()


async def wrong_books(
    own: Cluster, account_ids: Collection[str], *, unchanged: Collection[str], entered: dict[str, int]
) -> Sequence[str]:
    """What was wrong with these accounts at any change, and their entries that are not `entered`, by reference; and
    those `unchanged` ones that have spent more than their caps and allowances, as sentences.
    """
    connection = await own.connect()
    wrong = [f"{each['sentence']} ({each['times']} times)" for each in await connection.fetch(_WRONG, account_ids)]
    found = {each["reference"]: each["amount"] for each in await connection.fetch(_ENTRIES, account_ids)}
    over = await connection.fetch(_OVERSPENT, unchanged)
    await connection.close()
    wrong += [f"{each['account_id']} is over its cap or allowance" for each in over]
    return [*wrong, *(f"entry {name}: {amount}" for name, amount in found.items() ^ entered.items())]
