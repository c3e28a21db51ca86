-- Ends jobs that were admitted with a price as `settle_priced.sql` ends requests that their callers wait for, and takes
-- them off the numbers of their lanes. One row for each job, in order: whether it was still to be settled.
with input as materialized (
  select * from unnest(:id::text[], :request_id::text[], :key_id::text[], :lease::uuid[], :error::text[], :route::text[],
    :provider::text[], :tries::int[], :cost::bigint[], :provider_request_id::text[], :scope::bytea[], :class::text[])
    with ordinality as r(id, request_id, key_id, lease, error, route, provider, tries, cost, provider_request_id, scope,
    class, n)
), keys as materialized (
  select k.* from api_keys k where k.id = any(:key_id) order by k.id for no key update
), payers as materialized (
  {payers}
), lane as materialized (
  select l.account_id, l.class from lanes l
  where (l.account_id, l.class) in (select k.account_id, i.class from input i join keys k on k.id = i.key_id)
    and (select count(*) from payers) > 0
  order by l.account_id, l.class for no key update
), claimed as materialized (
  select scope from claims where scope = any(:scope) and (select count(*) from payers) > 0
    and (select count(*) from lane) >= 0
  order by scope for update
), {clock}, settled as (
  update generations g set status = case when i.error is null then 'delivered' else 'failed' end, error = i.error,
    lease_until = null, delivered_at = case when i.error is null then c.at end, route = i.route,
    provider = coalesce(i.provider, g.provider), tries = i.tries, cost = i.cost,
    provider_request_id = i.provider_request_id
  from input i cross join clock c
  where g.id = i.id and g.status = 'processing' and g.lease = i.lease and (select count(*) from claimed) >= 0
  returning g.id, g.account_id, g.key_id, g.model, g.list_price, g.price, g.cost, g.delivered_at, i.request_id, i.scope,
    i.class, i.n
), {counted}, {claims}, left_lane as (
  update lanes l set running = greatest(l.running - s.images, 0)
  from (select account_id, class, count(*)::int as images from settled group by 1, 2) s
  where l.account_id = s.account_id and l.class = s.class
), left_key as (
  update lane_keys l set running = greatest(l.running - s.images, 0)
  from (select key_id, class, count(*)::int as images from settled group by 1, 2) s
  where l.key_id = s.key_id and l.class = s.class
), {charges}
select s.id is not null as settled
from input i left join settled s on s.id = i.id where i.id = i.request_id order by i.n
