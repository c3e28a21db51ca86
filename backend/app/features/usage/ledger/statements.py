"""The ledger's statements. Each is one transaction; why each line stands where it does is told beside it.

Rows are locked in the same order everywhere, and so there are no deadlocks: keys by id, then claims by scope, then
generations by id, then usage and `last_used_at` of keys that are locked already.
"""

_RECORD = """
with input as materialized (
  select * from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
    $9::bytea[], $10::bytea[], $11::float8[]) with ordinality
    as r(id, key_id, prompt, size, format, provider, status, request, scope, fingerprint, lease, n)
), keys as materialized (
  -- The only lock that is waited for. It returns the row as it is after the wait; a revocation takes the same lock.
  select k.id, k.revoked_at is null and not k.is_suspended as active from api_keys k
  where k.id = any($2) order by k.id for no key update {skip}
), admitted as materialized (
  -- Through the count every key is locked before anything is written: the parts below have no order of their own.
  select i.* from input i join keys k on k.id = i.key_id and k.active
  where (select count(*) from keys) > 0
), claimed as (
  -- One for a request, however many pictures it has: all of them are written, or none.
  insert into claims (scope, fingerprint, generation_id, other_ids, lease_until)
  select scope, fingerprint, request, array_agg(id order by n) filter (where id <> request),
    now() + make_interval(secs => lease)
  from admitted where scope is not null group by scope, fingerprint, request, lease order by scope, min(n)
  on conflict do nothing returning generation_id
), written as (
  insert into generations (id, key_id, prompt, size, format, provider, status, delivered_at)
  select id, key_id, prompt, size, format, provider, status, case when status = 'delivered' then now() end from admitted
  where scope is null or request in (select generation_id from claimed) order by id
  on conflict do nothing returning id, key_id, created_at, delivered_at
), counted as (
  -- From the rows that were really written: a batch that is sent again counts nothing twice.
  insert into usage as u (key_id, day, pictures)
  select key_id, (delivered_at at time zone 'UTC')::date, count(*) from written
  where delivered_at is not null group by 1, 2 order by 1, 2
  on conflict (key_id, day) do update set pictures = u.pictures + excluded.pictures
), used as (
  -- At most once a second: a row that changes with every batch is slow to read under an old snapshot.
  update api_keys k set last_used_at = now() from (select distinct key_id from written) w
  where k.id = w.key_id and (k.last_used_at is null or k.last_used_at < now() - interval '1 second')
)
select k.active, w.created_at
from input i left join keys k on k.id = i.key_id left join written w on w.id = i.id
where i.id = i.request order by i.n
"""

RECORD = _RECORD.format(skip="")
"""Writes the pictures of requests, delivered or still to be drawn, and all that follows from them. One row for each
request, in order: whether the key is active (null if there is none), and the time if its pictures were written now."""

RECORD_SKIP = _RECORD.format(skip="skip locked")
"""The same without the rows of keys that somebody else holds for long; of those it says null, null."""

DOUBTS = """
select g.id, g.created_at, g.status, c.other_ids, c.fingerprint, c.created_at < now() - interval '24 hours' as expired,
  c.lease_until < now() as lapsed
from unnest($1::text[], $2::bytea[]) with ordinality as i(id, scope, n)
left join claims c on c.scope = i.scope
left join generations g on g.id = coalesce(c.generation_id, i.id)
order by i.n
"""
"""What is there for each request that was not written: itself, from an earlier send; or the one that has its claim;
or nothing. A statement of its own, since one statement does not see what was committed while it waited."""

SETTLE = """
with input as materialized (
  select * from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bytea[])
    with ordinality as r(id, request, key_id, status, scope, n)
), keys as materialized (
  -- Whether the key is still active is not asked: the request was admitted, and what it delivers is counted.
  select k.id from api_keys k where k.id = any($3) order by k.id for no key update
), settled as (
  -- The row's status decides between this and a take-over: one of them finds it processing.
  update generations g set status = i.status, delivered_at = case when i.status = 'delivered' then now() end
  from input i where g.id = i.id and g.status = 'processing' and (select count(*) from keys) > 0
  returning g.id, g.key_id, g.delivered_at, i.request, i.scope
), counted as (
  insert into usage as u (key_id, day, pictures)
  select key_id, (delivered_at at time zone 'UTC')::date, count(*) from settled
  where delivered_at is not null group by 1, 2 order by 1, 2
  on conflict (key_id, day) do update set pictures = u.pictures + excluded.pictures
), kept as (
  update claims c set lease_until = null from settled s
  where c.scope = s.scope and c.generation_id = s.id and s.id = s.request and s.delivered_at is not null
), freed as (
  delete from claims c using settled s
  where c.scope = s.scope and c.generation_id = s.id and s.id = s.request and s.delivered_at is null
)
select s.id is not null as settled from input i left join settled s on s.id = i.id where i.id = i.request order by i.n
"""
"""Ends requests that were admitted: their pictures become delivered and count, or failed and do not. One row for each
request, in order: whether it was still to be settled."""

SETTLED = (
    "select g.status from unnest($1::text[]) with ordinality as i(id, n) left join generations g using (id) order by n"
)
"""What became of requests that were not to be settled any more."""

TAKE_OVER = """
with lapsed as (
  select scope, generation_id, other_ids from claims where scope = $1 and lease_until < now() for update
), lost as (
  update generations g set status = 'lost' from lapsed l
  where (g.id = l.generation_id or g.id = any(l.other_ids)) and g.status = 'processing' returning g.id
)
delete from claims c using lapsed l where c.scope = l.scope and (
  l.generation_id in (select id from lost)
  or exists (select from generations g where g.id = l.generation_id and g.status in ('lost', 'failed'))
)
"""
"""Frees the claim of a request whose lease is over, and gives its pictures up. A late settle finds them lost."""

EXPIRE = "delete from claims where scope = any($1) and created_at < now() - interval '24 hours'"
"""Frees idempotency keys after their day."""

SWEEP = """
delete from claims where scope in (
  select scope from claims where created_at < now() - interval '24 hours'
  order by created_at limit 1000 for update skip locked
)
"""
"""The same for those that nobody asks for again, some at a time; what another writer has in hand is left to it."""
