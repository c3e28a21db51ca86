-- Marks synchronous images as lost whose lease is over, with an Idempotency-Key or without, and releases what they hold.
-- All images of a request have the same `lease_until`, so a request is never swept in part. Its claim is left to the
-- take-over. The count of them, and the time.
with cutoff as materialized (
  select max(lease_until) as at from (
    select lease_until from generations where lease_until < now() order by lease_until limit 500
  ) oldest
), images as materialized (
  select g.id, g.key_id, g.price from generations g join cutoff on g.lease_until <= cutoff.at
  where g.expires_at is null
), keys as materialized (
  select k.* from api_keys k where k.id = any(array(select key_id from images)) order by k.id for no key update
), payers as materialized (
  {payers_of_images}
), lost as (
  update generations g set status = 'lost', lease_until = null from images i
  where g.id = i.id and g.status = 'processing' and g.lease_until < now() and (select count(*) from keys) > 0
    and (select count(*) from payers) >= 0
  returning g.id, g.account_id, g.key_id, g.price
), to_release as (
  select account_id, key_id, price from lost
), {releases}
select count(*), clock_timestamp() as now from lost
