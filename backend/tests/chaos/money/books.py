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
begin
  insert into wrong_books select new.account_id, sentence from (values
    (new.held <> owed, format('held %s, images %s', new.held, owed)),
    (new.charged <> paid, format('charged %s, charges %s', new.charged, paid)),
    (new.credit <> entered, format('credit %s, entries %s', new.credit, entered))
  ) as v (is_wrong, sentence) where is_wrong;
  return null;
end $$;
create trigger books after update on balances for each row execute function judge_balance();
create function judge_key() returns trigger language plpgsql as $$
declare
  owed bigint := (select coalesce(sum(price), 0) from generations
    where account_id = new.account_id and key_id = new.id and lease_until is not null);
begin
  if new.held <> owed then
    insert into wrong_books values (new.account_id, format('held of %s %s, images %s', new.id, new.held, owed));
  end if;
  return null;
end $$;
create trigger books after update on api_keys for each row when (new.cap is not null) execute function judge_key();
create function judge_admission() returns trigger language plpgsql as $$
begin
  insert into wrong_books select new.account_id, sentence
  from balances b join api_keys k on k.id = new.key_id
  cross join lateral (select
    (select coalesce(sum(price), 0) from generations g
      where g.account_id = b.account_id and g.lease_until is not null) as owed,
    (select coalesce(sum(price), 0) from generations g
      where g.account_id = b.account_id and g.key_id = k.id and g.lease_until is not null) as owed_by_key,
    (select coalesce(sum(amount), 0) from charges c where c.account_id = b.account_id
      and c.hour >= date_trunc('month', now() - b.anchor, 'UTC') + b.anchor) as spent,
    (select coalesce(sum(from_credit), 0) from charges c where c.account_id = b.account_id) as paid,
    (select coalesce(sum(amount), 0) from credit_entries e where e.account_id = b.account_id) as entered
  ) as s cross join lateral (values
    (not b.is_postpaid and s.entered - s.paid - s.owed + greatest(b.allowance - s.spent, 0) < 0, 'overspent'),
    (s.spent + s.owed > b.cap, 'above the account''s cap'),
    (k.spent + s.owed_by_key > k.cap, 'above the key''s cap')
  ) as v (is_wrong, sentence) where b.account_id = new.account_id and is_wrong;
  return null;
end $$;
create trigger admissions after insert on generations for each row when (new.price > 0)
  execute function judge_admission();
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
    """From now on the transaction that changes a balance, or the counters of a key with a cap, or admits an image,
    writes down what is wrong then. It has waited for the locks of these rows, so that it sees all that was held and
    charged before it.
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
            f"{each['id']}: {each['name']} {int(each['found'])} not {int(each['expected'])}"
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
