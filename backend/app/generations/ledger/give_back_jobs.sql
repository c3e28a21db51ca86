-- Puts images that a worker has taken and not sent back among those that wait, as if it had not taken them; under a key
-- that was revoked meanwhile, or whose account was disabled, they are cancelled and hold nothing any more. The ids of all of
-- them.
with images as materialized (
  select g.key_id, g.account_id, g.class, g.price from generations g where g.id = any(:id)
), keys as materialized (
  select k.*, case when k.revoked_at is not null then 'key_revoked' when k.is_suspended then 'account_disabled' end
    as stopped
  from api_keys k where k.id = any(:key_id) order by k.id for no key update
), payers as materialized (
  {payers_of_images}
), lane as materialized (
  select l.account_id, l.class from lanes l
  where (l.account_id, l.class) in (select account_id, class from images) and (select count(*) from keys) > 0
    and (select count(*) from payers) >= 0
  order by l.account_id, l.class for no key update
), free as materialized (
  select g.id from generations g where g.id = any(:id) and (select count(*) from lane) > 0
  order by g.id for no key update
), given_back as (
  update generations g set status = case when k.stopped is null then 'queued' else 'cancelled' end, error = k.stopped,
    attempts = g.attempts - 1, lease_until = case when k.stopped is null then g.expires_at end
  from unnest(:id::text[], :lease::uuid[]) as i(id, lease) join free on free.id = i.id cross join keys k
  where g.id = i.id and k.id = g.key_id and g.status = 'processing' and g.lease = i.lease and g.sent_at is null
  returning g.id, g.account_id, g.key_id, g.class, g.price, k.stopped is null as waits
), of_key as materialized (
  select account_id, key_id, class, (count(*) filter (where waits))::int as waiting, count(*)::int as ran
  from given_back group by 1, 2, 3
), waiting as (
  update lanes l set waiting = l.waiting + b.waiting, running = greatest(l.running - b.ran, 0)
  from (select account_id, class, sum(waiting)::int as waiting, sum(ran)::int as ran from of_key group by 1, 2) b
  where l.account_id = b.account_id and l.class = b.class
), waiting_of_key as (
  update lane_keys l set waiting = l.waiting + b.waiting, running = greatest(l.running - b.ran, 0) from of_key b
  where l.key_id = b.key_id and l.class = b.class
), to_release as (
  select account_id, key_id, price from given_back where not waits
), {releases}
select id from given_back
