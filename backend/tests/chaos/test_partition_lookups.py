"""PostgreSQL 18 frees what a statement needs to look up a partition once that statement has waited for a row, and ends
all connections when it is used (decision 55). The tables here are no one's: the statement has the form of the ledger's.
"""

import asyncio

from app.core.db import connect_for_writing
from tests.chaos.cluster import Cluster
from tests.harness import until_waited_for

TIMES = 5
IDS = [5, 105, 205]
_TABLES = """
create table locked (id int primary key, times int not null);
insert into locked values (1, 0);
create table parted (id int primary key, times int not null) partition by range (id);
create table parted_1 partition of parted for values from (0) to (100);
create table parted_2 partition of parted for values from (100) to (200);
create table parted_3 partition of parted for values from (200) to (300);
insert into parted select id, 0 from generate_series(0, 299) id;
analyze parted;
set enable_hashjoin = off; set enable_mergejoin = off
"""
# It locks a row, needs memory, and then looks up the partition of each id.
_STATEMENT = """
with key as materialized (
  select id from locked where id = 1 for no key update
), sorted as materialized (
  select count(*) as n from (select repeat('x', 100) || n from generate_series(1, 20000) n order by 1) of_them
  where (select count(*) from key) > 0
), changed as (
  update parted p set times = times + 1 from unnest($1::int[]) i(id)
  where p.id = i.id and (select n from sorted) > 0 returning p.id
)
select id from changed order by id
"""


async def test_a_statement_of_the_ledger_that_has_waited_for_a_key_finds_its_rows_in_every_partition(
    own_cluster: Cluster,
) -> None:
    holder = await own_cluster.connect()
    writer = await connect_for_writing(own_cluster.url.render_as_string(hide_password=False))
    await writer.execute(_TABLES)
    await holder.execute("select from parted")  # both see the tables
    for _ in range(TIMES):
        async with holder.transaction():
            await holder.execute("update locked set times = times + 1")
            changing = asyncio.create_task(writer.fetch(_STATEMENT, IDS))
            await until_waited_for(holder)
        assert [row["id"] for row in await changing] == IDS
    assert await holder.fetchval("select sum(times) from parted") == TIMES * len(IDS)
    for each in (holder, writer):
        await each.close()
