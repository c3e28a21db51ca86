-- Ends requests that were admitted and that their callers wait for: each image becomes delivered and counts, or failed with a code and does not. A claim
-- then names the images that were delivered; where none was, it is free again. One row for each request, in order:
-- whether it was still to be settled.
with input as materialized (
  select * from unnest(:id::text[], :request_id::text[], :key_id::text[], :lease::uuid[], :error::text[], :route::text[],
    :provider::text[], :tries::int[], :cost::bigint[], :provider_request_id::text[], :scope::bytea[]) with ordinality
    as r(id, request_id, key_id, lease, error, route, provider, tries, cost, provider_request_id, scope, n)
), keys as materialized (
  -- Whether the key is still active is not asked: the request was admitted, and what it delivers is counted.
  select k.id from api_keys k where k.id = any(:key_id) order by k.id for no key update
), claimed as materialized (
  select scope from claims where scope = any(:scope) and (select count(*) from keys) > 0 order by scope for update
), settled as (
  -- The row decides between this and a sweep or a take-over: one of them finds it processing under this lease.
  update generations g set status = case when i.error is null then 'delivered' else 'failed' end, error = i.error,
    lease_until = null, delivered_at = case when i.error is null then now() end, route = i.route,
    provider = coalesce(i.provider, g.provider), tries = i.tries, cost = i.cost,
    provider_request_id = i.provider_request_id
  from input i
  where g.id = i.id and g.status = 'processing' and g.lease = i.lease and (select count(*) from claimed) >= 0
  returning g.id, g.key_id, g.model, g.list_price, g.cost, g.delivered_at, i.request_id, i.scope, i.n
), {counted_without_price}, {claims}
select s.id is not null as settled
from input i left join settled s on s.id = i.id where i.id = i.request_id order by i.n
