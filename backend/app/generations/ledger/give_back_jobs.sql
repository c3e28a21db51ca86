-- Puts images that a worker has taken and not sent back among those that wait, as if it had not taken them.
with keys as materialized (
  select k.id from api_keys k where k.id = any(:key_id) order by k.id for no key update
), lane as materialized (
  select l.account_id, l.class from lanes l
  where (l.account_id, l.class) in (select g.account_id, g.class from generations g where g.id = any(:id))
    and (select count(*) from keys) > 0
  order by l.account_id, l.class for no key update
), free as materialized (
  select g.id from generations g where g.id = any(:id) and (select count(*) from lane) > 0
  order by g.id for no key update
), given_back as (
  update generations g set status = 'queued', attempts = g.attempts - 1, lease = null, lease_until = g.expires_at
  from unnest(:id::text[], :lease::uuid[]) as i(id, lease) join free on free.id = i.id
  where g.id = i.id and g.status = 'processing' and g.lease = i.lease and g.sent_at is null
  returning g.id, g.account_id, g.key_id, g.class
), waiting as (
  update lanes l set waiting = l.waiting + b.images, running = l.running - b.images
  from (select account_id, class, count(*)::int as images from given_back group by 1, 2) b
  where l.account_id = b.account_id and l.class = b.class
), waiting_of_key as (
  update lane_keys l set waiting = l.waiting + b.images, running = l.running - b.images
  from (select key_id, class, count(*)::int as images from given_back group by 1, 2) b
  where l.key_id = b.key_id and l.class = b.class
)
select id from given_back
