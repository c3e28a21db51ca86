"""Each account has the share of its weight in what workers take, however much waits and however few are taken."""

from collections import Counter
from functools import partial
from itertools import cycle

import asyncpg
from app.core.db import connect_for_writing
from app.generations.ledger import Ledger
from app.generations.ledger.writer import Writer
from sqlalchemy.engine import make_url
from tests.generations.jobs.lanes import take, wrong_lanes

ACCOUNTS, WEIGHT, JOBS_EACH, JOBS_OF_FIRST = 40, 4, 25, 1000
_WAITING = """
    insert into accounts (id) select 'acc_' || n from generate_series(1, 40) n;
    insert into api_keys (id, account_id, name, environment, prefix, key_hash)
      select 'key_' || n, 'acc_' || n, 'a key', 'live', 'nb_live_12345678', sha256(n::text::bytea)
      from generate_series(1, 40) n;
    insert into generations (id, request_id, account_id, environment, key_id, prompt, size, provider, status,
      lease_until, expires_at)
      select id, id, 'acc_' || n, 'live', 'key_' || n, '', '64x64', 'gemini', 'queued', tomorrow, tomorrow
      from generate_series(1, 40) n, generate_series(1, case n when 1 then 1000 else 25 end) job,
        lateral (select 'gen_' || lpad((job * 100 + n)::text, 10, '0'), now() + interval '1 day') i (id, tomorrow);
    insert into lanes (account_id, class, waiting, weight)
      select account_id, 'now', count(*), case account_id when 'acc_1' then 4 else 1 end from generations group by 1;
    insert into lane_keys (key_id, class, account_id, waiting)
      select key_id, 'now', account_id, count(*) from generations group by 1, 3;
"""


async def test_each_account_has_its_share_while_others_wait_and_one_alone_fills_all_hands(
    new_database_url: str,
) -> None:
    url = make_url(new_database_url).set(drivername="postgresql").render_as_string(hide_password=False)
    database = await asyncpg.connect(url)
    await database.execute(_WAITING)
    ledger = Ledger(Writer(partial(connect_for_writing, new_database_url)), queue_max=1000, deadline_seconds=60)
    ledger.open()
    taken: Counter[str] = Counter()
    hands = cycle([1, 2, 3, 7, 32])  # what a worker has free
    while taken.total() < JOBS_EACH * (ACCOUNTS - 1 + WEIGHT) - ACCOUNTS:
        wanted = next(hands)
        jobs = await take(ledger, jobs_max=wanted, account_most=10_000, key_most=10_000)
        assert len(jobs) == wanted
        taken.update(job.account_id for job in jobs)
        rounds = taken.total() / (ACCOUNTS - 1 + WEIGHT)
        assert abs(taken["acc_1"] - WEIGHT * rounds) <= WEIGHT + 1
        assert all(abs(taken[f"acc_{n}"] - rounds) <= 2 for n in range(2, ACCOUNTS + 1))
    of_others = JOBS_EACH * (ACCOUNTS - 1)
    while jobs := await take(ledger, jobs_max=32, account_most=10_000, key_most=10_000):
        is_alone = taken.total() - taken["acc_1"] == of_others
        taken.update(job.account_id for job in jobs)
        assert not is_alone or len(jobs) == 32 or taken["acc_1"] == JOBS_OF_FIRST
    assert taken == {"acc_1": JOBS_OF_FIRST, **{f"acc_{n}": JOBS_EACH for n in range(2, ACCOUNTS + 1)}}
    assert await wrong_lanes(database) == []
    await ledger.close()
    await database.close()
