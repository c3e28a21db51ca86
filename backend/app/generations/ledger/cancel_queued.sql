-- Cancels everything that waits under these keys, whose rows the transaction has locked, and releases what it holds. The
-- ids of what it has cancelled.
with images as materialized (
  select g.key_id, g.price from generations g where g.key_id = any(:key_id) and g.status = 'queued'
), keys as materialized (
  select k.* from api_keys k where k.id = any(:key_id) order by k.id for no key update
), payers as materialized (
  {payers_of_images}
), lane as materialized (
  select l.account_id, l.class from lanes l
  where l.account_id = any(array(select account_id from keys)) and (select count(*) from payers) >= 0
  order by l.account_id, l.class for no key update
), held as materialized (
  select g.id from generations g where g.key_id = any(:key_id) and g.status = 'queued' and (select count(*) from lane) > 0
  order by g.id for no key update
), cancelled as (
  update generations g set status = 'cancelled', lease_until = null, error = :error from held h
  where g.id = h.id and g.status = 'queued' returning g.id, g.account_id, g.key_id, g.class, g.price
), left_lane as (
  update lanes l set waiting = greatest(l.waiting - c.images, 0)
  from (select account_id, class, count(*)::int as images from cancelled group by 1, 2) c
  where l.account_id = c.account_id and l.class = c.class
), left_key as (
  update lane_keys l set waiting = greatest(l.waiting - c.images, 0)
  from (select key_id, class, count(*)::int as images from cancelled group by 1, 2) c
  where l.key_id = c.key_id and l.class = c.class
), to_release as (
  select account_id, key_id, price from cancelled
), {releases}
select id from cancelled
