-- Has an asynchronous request wait again that has failed, was lost or cancelled, for an operator: until
-- `expires_seconds` from now, with three further attempts, of 99 at most, and with the claim of its Idempotency-Key for a
-- day anew. No number of an attempt comes twice: images are named after it. The ids of its images; none where it has not
-- ended so, was delivered in part, its key was stopped, or another request has its Idempotency-Key now. Its price is held
-- again; where it does not fit there is one row without an id, which says why as `record_priced.sql` does.
with images as materialized (
  select g.id, g.key_id, g.account_id, g.class, g.status, g.price, g.options -> 'scope' is not null as has_claim,
    decode(g.options ->> 'scope', 'hex') as scope, decode(g.options ->> 'fingerprint', 'hex') as fingerprint
  from generations g
  where g.id >= left(:request_id, 14) and g.id < left(:request_id, 14) || '~' and g.request_id = :request_id
    and g.expires_at is not null and g.deleted_at is null
), keys as materialized (
  select k.* from api_keys k where k.id = any(array(select key_id from images))
    and k.revoked_at is null and not k.is_suspended
  order by k.id for no key update
), payers as materialized (
  {payers_of_images}
), {clock}, {rooms}, judged as materialized (
  select {refusal} as refusal
  from (select key_id, sum(price)::bigint as amount from images where price > 0 group by 1) j
  join rooms r on r.key_id = j.key_id
), lane as materialized (
  select l.account_id, l.class from lanes l
  where (l.account_id, l.class) in (select account_id, class from images) and (select count(*) from keys) > 0
    and not exists (select from judged where refusal is not null)
  order by l.account_id, l.class for no key update
), claimed as (
  insert into claims (scope, fingerprint, generation_id, other_ids)
  select scope, fingerprint, :request_id, array_agg(id order by id) filter (where id <> :request_id)
  from images where has_claim and (select count(*) from lane) > 0
  group by scope, fingerprint having bool_and(status in ('failed', 'lost', 'cancelled'))
  on conflict (scope) do update set created_at = now(), lease_until = null where claims.generation_id = excluded.generation_id
  returning scope
), held as materialized (
  select g.id from generations g
  where g.id = any(array(select id from images)) and g.status in ('failed', 'lost', 'cancelled')
    and g.deleted_at is null and (select count(*) from lane) > 0
    and ((select count(*) from claimed) > 0 or not exists (select from images where has_claim))
  order by g.id for no key update
), queued as (
  update generations g set status = 'queued', attempts = (g.attempts + 2) / 3 * 3, sent_at = null, error = null,
    expires_at = now() + make_interval(secs => :expires_seconds),
    lease_until = now() + make_interval(secs => :expires_seconds)
  from held h where g.id = h.id and g.status in ('failed', 'lost', 'cancelled') and g.attempts < 97
    and (select count(*) from held) = (select count(*) from images)
  returning g.id, g.account_id, g.key_id, g.class, g.price
), waiting as (
  update lanes l set waiting = l.waiting + q.images
  from (select account_id, class, count(*)::int as images from queued group by 1, 2) q
  where l.account_id = q.account_id and l.class = q.class
), waiting_of_key as (
  update lane_keys l set waiting = l.waiting + q.images
  from (select key_id, class, count(*)::int as images from queued group by 1, 2) q
  where l.key_id = q.key_id and l.class = q.class
), to_hold as (
  select account_id, key_id, price from queued where price > 0
), {holds}, held_key as (
  update api_keys k set held = l.held + t.amount from taken t join keys l on l.id = t.key_id and l.cap is not null
  where k.id = t.key_id
)
select id, null as refusal from queued
union all
select null, refusal from judged where refusal is not null
order by id
