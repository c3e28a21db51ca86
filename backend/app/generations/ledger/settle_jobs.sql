-- Ends jobs as `settle.sql` ends requests that their callers wait for, and takes them off the numbers of their lanes.
-- One row for each job, in order: whether it was still to be settled.
with input as materialized (
  select * from unnest(:id::text[], :request_id::text[], :key_id::text[], :lease::uuid[], :error::text[], :route::text[],
    :provider::text[], :tries::int[], :cost::bigint[], :provider_request_id::text[], :scope::bytea[], :class::text[])
    with ordinality as r(id, request_id, key_id, lease, error, route, provider, tries, cost, provider_request_id, scope,
    class, n)
), keys as materialized (
  -- Whether the key is still active is not asked: the request was admitted, and what it delivers is counted.
  select k.id, k.account_id from api_keys k where k.id = any(:key_id) order by k.id for no key update
), lane as materialized (
  select l.account_id, l.class from lanes l
  where (l.account_id, l.class) in (select k.account_id, i.class from input i join keys k on k.id = i.key_id)
  order by l.account_id, l.class for no key update
), claimed as materialized (
  select scope from claims where scope = any(:scope) and (select count(*) from keys) > 0
    and (select count(*) from lane) >= 0
  order by scope for update
), settled as (
  -- The row decides between this and a sweep or a take-over: one of them finds it processing under this lease.
  update generations g set status = case when i.error is null then 'delivered' else 'failed' end, error = i.error,
    lease_until = null, delivered_at = case when i.error is null then now() end, route = i.route,
    provider = coalesce(i.provider, g.provider), tries = i.tries, cost = i.cost,
    provider_request_id = i.provider_request_id
  from input i
  where g.id = i.id and g.status = 'processing' and g.lease = i.lease and (select count(*) from claimed) >= 0
  returning g.id, g.account_id, g.key_id, g.model, g.list_price, g.cost, g.delivered_at, i.request_id, i.scope, i.class,
    i.n
), {counted_without_price}, {claims}, left_lane as (
  update lanes l set running = greatest(l.running - s.images, 0)
  from (select account_id, class, count(*)::int as images from settled group by 1, 2) s
  where l.account_id = s.account_id and l.class = s.class
), left_key as (
  update lane_keys l set running = greatest(l.running - s.images, 0)
  from (select key_id, class, count(*)::int as images from settled group by 1, 2) s
  where l.key_id = s.key_id and l.class = s.class
)
select s.id is not null as settled
from input i left join settled s on s.id = i.id where i.id = i.request_id order by i.n
