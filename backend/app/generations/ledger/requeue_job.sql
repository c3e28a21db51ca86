-- Has an asynchronous request wait again that has failed, was lost or cancelled, for an operator: until
-- `expires_seconds` from now, with three further attempts, of 99 at most, and with the claim of its Idempotency-Key for a
-- day anew. No number of an attempt comes twice: images are named after it. The ids of its images; none where it has not
-- ended so, was delivered in part, its key was stopped, or another request has its Idempotency-Key now.
with request as materialized (
  select g.id, g.key_id, g.account_id, g.class, g.status, g.options -> 'scope' is not null as has_claim,
    decode(g.options ->> 'scope', 'hex') as scope, decode(g.options ->> 'fingerprint', 'hex') as fingerprint
  from generations g
  where g.id >= left(:request_id, 14) and g.id < left(:request_id, 14) || '~' and g.request_id = :request_id
    and g.expires_at is not null and g.deleted_at is null
), keys as materialized (
  select k.id from api_keys k where k.id = any(array(select key_id from request))
    and k.revoked_at is null and not k.is_suspended
  order by k.id for no key update
), lane as materialized (
  select l.account_id, l.class from lanes l
  where (l.account_id, l.class) in (select account_id, class from request) and (select count(*) from keys) > 0
  order by l.account_id, l.class for no key update
), claimed as (
  insert into claims (scope, fingerprint, generation_id, other_ids)
  select scope, fingerprint, :request_id, array_agg(id order by id) filter (where id <> :request_id)
  from request where has_claim and (select count(*) from lane) > 0
  group by scope, fingerprint having bool_and(status in ('failed', 'lost', 'cancelled'))
  on conflict (scope) do update set created_at = now(), lease_until = null where claims.generation_id = excluded.generation_id
  returning scope
), held as materialized (
  select g.id from generations g
  where g.id = any(array(select id from request)) and g.status in ('failed', 'lost', 'cancelled')
    and g.deleted_at is null and (select count(*) from lane) > 0
    and ((select count(*) from claimed) > 0 or not exists (select from request where has_claim))
  order by g.id for no key update
), queued as (
  update generations g set status = 'queued', attempts = (g.attempts + 2) / 3 * 3, sent_at = null, error = null,
    expires_at = now() + make_interval(secs => :expires_seconds),
    lease_until = now() + make_interval(secs => :expires_seconds)
  from held h where g.id = h.id and g.status in ('failed', 'lost', 'cancelled') and g.attempts < 97
    and (select count(*) from held) = (select count(*) from request)
  returning g.id, g.account_id, g.key_id, g.class
), waiting as (
  update lanes l set waiting = l.waiting + q.images
  from (select account_id, class, count(*)::int as images from queued group by 1, 2) q
  where l.account_id = q.account_id and l.class = q.class
), waiting_of_key as (
  update lane_keys l set waiting = l.waiting + q.images
  from (select key_id, class, count(*)::int as images from queued group by 1, 2) q
  where l.key_id = q.key_id and l.class = q.class
)
select id from queued order by id
