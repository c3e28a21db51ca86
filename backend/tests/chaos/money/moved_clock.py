"""A clock that a test sets: that of a database, of the server on it, and of a stand-in for Stripe."""

import time
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import asyncpg
from tests.standins.stripe import StripeStandIn

_FUNCTIONS = """
create schema moved;
create table moved.clock (ahead interval not null);
insert into moved.clock values ('0');
create function moved.now() returns timestamptz stable language sql as
  'select pg_catalog.now() + ahead from moved.clock';
create function moved.clock_timestamp() returns timestamptz volatile language sql as
  'select pg_catalog.clock_timestamp() + ahead from moved.clock';
do $do$
declare each record;
begin
  perform set_config('search_path', 'moved, public, pg_catalog', true);
  for each in
    select d.adrelid::regclass as name, a.attname from pg_attrdef d
    join pg_attribute a on a.attrelid = d.adrelid and a.attnum = d.adnum
    where pg_get_expr(d.adbin, d.adrelid) = 'pg_catalog.now()'
  loop
    execute format('alter table %s alter column %I set default now()', each.name, each.attname);
  end loop;
  execute format('alter database %I set search_path = moved, public, pg_catalog', current_database());
end
$do$
"""
"""PostgreSQL's functions of the time are found behind these, by connections that are made from then on."""


@dataclass
class MovedClock:
    """Seconds since 1970. It goes on as the real one does, and forward by `move_to`."""

    stripe: StripeStandIn
    ahead: float = 0.0

    def __call__(self) -> float:
        return time.time() + self.ahead

    async def begin(self, database: asyncpg.Connection, at: datetime) -> None:
        """Gives a database this clock, before a server is connected to it."""
        await database.execute(_FUNCTIONS)
        await self.move_to(database, at)

    async def move_to(self, database: asyncpg.Connection, at: datetime) -> None:
        """All clocks go forward to this time. What Stripe bills on the way, it bills before."""
        ahead = at.timestamp() - time.time()
        self.stripe.advance(at.timestamp() - self.stripe.now())
        await database.execute("update moved.clock set ahead = $1", timedelta(seconds=ahead))
        self.ahead = ahead

    @property
    def now(self) -> datetime:
        return datetime.fromtimestamp(self(), UTC)
