-- Decides about asynchronous images whose time is over: what waited too long is cancelled; of those whose worker has
-- gone silent, what may have been paid is lost, what has had all its attempts has failed, what is under a key that was
-- revoked meanwhile, or whose account was disabled, is cancelled, and the rest waits again. What has ended holds nothing any
-- more. All images of a request have the same `lease_until`, so a request is never swept in part. The ids, what they
-- became, and the codes of those that ended.
with cutoff as materialized (
  select max(lease_until) as at from (
    select lease_until from generations where lease_until < now() order by lease_until limit 500
  ) oldest
), images as materialized (
  select g.id, g.key_id, g.account_id, g.class, g.price from generations g join cutoff on g.lease_until <= cutoff.at
  where g.expires_at is not null
), keys as materialized (
  select k.*, case when k.revoked_at is not null then 'key_revoked' when k.is_suspended then 'account_disabled' end
    as stopped
  from api_keys k where k.id = any(array(select key_id from images)) order by k.id for no key update
), payers as materialized (
  {payers_of_images}
), lane as materialized (
  select l.account_id, l.class from lanes l
  where (l.account_id, l.class) in (select account_id, class from images) and (select count(*) from keys) > 0
    and (select count(*) from payers) >= 0
  order by l.account_id, l.class for no key update
), due as materialized (
  select g.id, g.status, k.stopped, case
    when g.status = 'queued' then 'cancelled'
    when g.sent_at is not null and not coalesce((g.options -> 'may_pay_twice')::bool, false) then 'lost'
    when g.attempts % :attempts_max = 0 then 'failed'
    when g.expires_at <= now() or k.stopped is not null then 'cancelled'
    else 'queued' end as becomes
  from generations g join keys k on k.id = g.key_id
  where g.id = any(array(select id from images)) and g.status in ('queued', 'processing') and g.lease_until < now()
    and (select count(*) from lane) > 0
  order by g.id for no key update of g
), ended as (
  update generations g set status = d.becomes,
    lease_until = case when d.becomes = 'queued' then g.expires_at end,
    sent_at = case when d.becomes <> 'queued' then g.sent_at end,
    error = case d.becomes when 'cancelled' then coalesce(d.stopped, 'expired') when 'failed' then 'attempts_exhausted'
      when 'lost' then 'lost' end
  from due d where g.id = d.id and g.status = d.status and g.lease_until < now()
  returning g.id, g.account_id, g.key_id, g.class, g.price, d.status as was, d.becomes, g.error
), of_key as materialized (
  select account_id, key_id, class,
    (count(*) filter (where becomes = 'queued') - count(*) filter (where was = 'queued'))::int as waiting,
    (count(*) filter (where was = 'processing'))::int as ran
  from ended group by 1, 2, 3
), left_lane as (
  update lanes l set waiting = greatest(l.waiting + e.waiting, 0), running = greatest(l.running - e.ran, 0)
  from (select account_id, class, sum(waiting)::int as waiting, sum(ran)::int as ran from of_key group by 1, 2) e
  where l.account_id = e.account_id and l.class = e.class
), left_key as (
  update lane_keys l set waiting = greatest(l.waiting + e.waiting, 0), running = greatest(l.running - e.ran, 0)
  from of_key e
  where l.key_id = e.key_id and l.class = e.class
), to_release as (
  select account_id, key_id, price from ended where becomes <> 'queued'
), {releases}
select id, becomes, error from ended
