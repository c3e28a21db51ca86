"""The ledger's statements. Each is one transaction; why each line stands where it does is told beside it.

Rows are locked in the same order everywhere, and so there are no deadlocks: keys by id, then claims by scope, then
generations by id, then usage and `last_used_at` of keys that are locked already.
"""

_RECORD = """
with input as materialized (
  select * from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bytea[], $7::bytea[])
    with ordinality as r(id, key_id, prompt, size, provider, scope, fingerprint, n)
), keys as materialized (
  -- The only lock that is waited for. It returns the row as it is after the wait; a revocation takes the same lock.
  select k.id, k.revoked_at is null and not k.is_suspended as active from api_keys k
  where k.id = any($2) order by k.id for no key update {skip}
), admitted as materialized (
  -- Through the count every key is locked before anything is written: the parts below have no order of their own.
  select i.* from input i join keys k on k.id = i.key_id and k.active
  where (select count(*) from keys) > 0
), claimed as (
  insert into claims (scope, fingerprint, generation_id)
  select scope, fingerprint, id from admitted where scope is not null order by scope
  on conflict do nothing returning generation_id
), written as (
  insert into generations (id, key_id, prompt, size, provider, status, delivered_at)
  select id, key_id, prompt, size, provider, 'delivered', now() from admitted
  where scope is null or id in (select generation_id from claimed) order by id
  on conflict do nothing returning id, key_id, created_at, delivered_at
), counted as (
  -- From the rows that were really written: a batch that is sent again counts nothing twice.
  insert into usage as u (key_id, day, pictures)
  select key_id, (delivered_at at time zone 'UTC')::date, count(*) from written group by 1, 2 order by 1, 2
  on conflict (key_id, day) do update set pictures = u.pictures + excluded.pictures
), used as (
  -- At most once a second: a row that changes with every batch is slow to read under an old snapshot.
  update api_keys k set last_used_at = now() from (select distinct key_id from written) w
  where k.id = w.key_id and (k.last_used_at is null or k.last_used_at < now() - interval '1 second')
)
select k.active, w.created_at
from input i left join keys k on k.id = i.key_id left join written w on w.id = i.id order by i.n
"""

RECORD = _RECORD.format(skip="")
"""Writes delivered generations and all that follows from them. One row each, in order: whether the key is active (null
if there is none), and the time if the generation was written now."""

RECORD_SKIP = _RECORD.format(skip="skip locked")
"""The same without the rows of keys that somebody else holds for long; of those it says null, null."""

DOUBTS = """
select g.id, g.created_at, g.status, c.fingerprint, c.created_at < now() - interval '24 hours' as expired
from unnest($1::text[], $2::bytea[]) with ordinality as i(id, scope, n)
left join claims c on c.scope = i.scope
left join generations g on g.id = coalesce(c.generation_id, i.id)
order by i.n
"""
"""What is there for each generation that was not written: itself, from an earlier send; or the one that has its claim;
or nothing. A statement of its own, since one statement does not see what was committed while it waited."""

EXPIRE = "delete from claims where scope = any($1) and created_at < now() - interval '24 hours'"
"""Frees idempotency keys after their day."""

SWEEP = """
delete from claims where scope in (
  select scope from claims where created_at < now() - interval '24 hours'
  order by created_at limit 1000 for update skip locked
)
"""
"""The same for those that nobody asks for again, some at a time; what another writer has in hand is left to it."""
