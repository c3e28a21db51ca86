-- Cancels all images of an asynchronous request that no provider was asked for yet, and releases what they hold. The ids
-- of those it has cancelled.
with images as materialized (
  select g.id, g.key_id, g.account_id, g.class, g.price from generations g
  where g.id >= left(:request_id, 14) and g.id < left(:request_id, 14) || '~' and g.request_id = :request_id
    and g.expires_at is not null
), keys as materialized (
  select k.* from api_keys k where k.id = any(array(select key_id from images)) order by k.id for no key update
), payers as materialized (
  {payers_of_images}
), lane as materialized (
  select l.account_id, l.class from lanes l
  where (l.account_id, l.class) in (select account_id, class from images) and (select count(*) from keys) > 0
    and (select count(*) from payers) >= 0
  order by l.account_id, l.class for no key update
), held as materialized (
  select g.id, g.status from generations g
  where g.id = any(array(select id from images)) and g.status in ('queued', 'processing') and g.sent_at is null
    and (select count(*) from lane) > 0
  order by g.id for no key update
), cancelled as (
  update generations g set status = 'cancelled', lease_until = null, error = :error from held h
  where g.id = h.id and g.status in ('queued', 'processing') and g.sent_at is null
  returning g.id, g.account_id, g.key_id, g.class, g.price, h.status = 'queued' as waited
), of_key as materialized (
  select account_id, key_id, class, (count(*) filter (where waited))::int as waiting,
    (count(*) filter (where not waited))::int as running
  from cancelled group by 1, 2, 3
), left_lane as (
  update lanes l set waiting = greatest(l.waiting - c.waiting, 0), running = greatest(l.running - c.running, 0)
  from (select account_id, class, sum(waiting)::int as waiting, sum(running)::int as running from of_key group by 1, 2) c
  where l.account_id = c.account_id and l.class = c.class
), left_key as (
  update lane_keys l set waiting = greatest(l.waiting - c.waiting, 0), running = greatest(l.running - c.running, 0)
  from of_key c
  where l.key_id = c.key_id and l.class = c.class
), to_release as (
  select account_id, key_id, price from cancelled
), {releases}
select id from cancelled order by id
