-- Frees the claim of a request whose lease is over, or that has ended without an image, marks its images as lost, and
-- releases what they hold. A worker that settles them later finds them lost. What becomes of an asynchronous one, the
-- sweep alone decides. The keys are read without a lock: an image's key never changes.
with images as materialized (
  select g.id, g.key_id, g.price from claims c join generations g on g.id = any(array_prepend(c.generation_id, c.other_ids))
  where c.scope = :scope
), keys as materialized (
  select k.* from api_keys k where k.id = any(array(select key_id from images)) order by k.id for no key update
), payers as materialized (
  {payers_of_images}
), claimed as materialized (
  select scope, generation_id, lease_until from claims where scope = :scope and (select count(*) from keys) > 0
    and (select count(*) from payers) >= 0
  for update
), lost as (
  update generations g set status = 'lost', lease_until = null from images i cross join claimed c
  where g.id = i.id and g.status = 'processing' and g.expires_at is null and least(g.lease_until, c.lease_until) < now()
  returning g.id, g.account_id, g.key_id, g.price
), ended as materialized (
  -- As it is now: a job may have been requeued while this waited, and answers for the claim again.
  select g.id from generations g join claimed c on c.generation_id = g.id
  where g.status in ('lost', 'failed', 'cancelled') for no key update of g
), to_release as (
  select account_id, key_id, price from lost
), {releases}
delete from claims c using claimed o where c.scope = o.scope and c.generation_id = o.generation_id
  and (o.generation_id in (select id from lost) or o.generation_id in (select id from ended))
