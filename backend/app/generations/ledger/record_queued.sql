-- Writes the images of requests that wait for a worker, and counts them in their lanes, in one transaction. One row for
-- each request, in order: whether its key is active (null: there is none, or its row was skipped), whether the key's
-- revision is the one that admission saw, whether there are the lanes that it needs, whether it fits among what waits,
-- and the time if the images were written now.
with input as materialized (
  select * from unnest(:id::text[], :request_id::text[], :key_id::text[], :revision::bigint[], :prompt::text[],
    :size::text[], :format::text[], :model::text[], :provider::text[], :quality::text[], :list_price::bigint[],
    :extra::jsonb[], :class::text[], :expires_seconds::float8[], :scope::bytea[], :fingerprint::bytea[])
    with ordinality as r(id, request_id, key_id, revision, prompt, size, format, model, provider, quality, list_price,
    extra, class, expires_seconds, scope, fingerprint, n)
), keys as materialized (
  select k.id, k.account_id, k.environment, k.revision,
    k.revoked_at is null and not k.is_suspended and (k.expires_at is null or k.expires_at > clock_timestamp()) as active
  from api_keys k where k.id = any(:key_id) order by k.id for no key update
), lane as materialized (
  select l.account_id, l.class, l.waiting from lanes l
  where l.account_id = any(array(select account_id from keys)) and l.class = any(:class)
  order by l.account_id, l.class for no key update
), judged as materialized (
  -- One row for a request: all its images or none. The sum counts what stands before it in the batch, also where that
  -- turns out to be a replay: at the very bound it may say no too early, and never yes wrongly.
  select q.request_id, l.account_id is not null and w.key_id is not null as has_lane,
    l.waiting + sum(q.images) over (partition by l.account_id, l.class order by q.n) <= :waiting_max::bigint as fits
  from (select request_id, key_id, class, count(*) as images, min(n) as n from input group by 1, 2, 3) q
  join keys k on k.id = q.key_id
  left join lane l on l.account_id = k.account_id and l.class = q.class
  left join lane_keys w on w.key_id = q.key_id and w.class = q.class
), admitted as materialized (
  select i.*, k.account_id, k.environment
  from input i join keys k on k.id = i.key_id and k.active and k.revision = i.revision
  join judged j on j.request_id = i.request_id and j.has_lane and j.fits
  where (select count(*) from keys) > 0 and (select count(*) from lane) > 0
), claimed as (
  insert into claims (scope, fingerprint, generation_id, other_ids)
  select scope, fingerprint, request_id, array_agg(id order by n) filter (where id <> request_id)
  from admitted where scope is not null group by scope, fingerprint, request_id order by scope, min(n)
  on conflict do nothing returning generation_id
), written as (
  insert into generations (id, request_id, account_id, environment, key_id, kind, prompt, size, format, model, provider,
    quality, list_price, inputs, art, options, class, status, lease_until, expires_at)
  select id, request_id, account_id, environment, key_id,
    case when extra -> 'inputs' is null then 'generate' else 'edit' end, prompt, size, format, model, provider,
    coalesce(quality, 'auto'), coalesce(list_price, 0), extra -> 'inputs', coalesce((extra -> 'art')::int, 1), extra -> 'options', class, 'queued',
    now() + make_interval(secs => expires_seconds), now() + make_interval(secs => expires_seconds)
  from admitted
  where scope is null or request_id in (select generation_id from claimed) order by id
  on conflict do nothing returning id, account_id, key_id, class, created_at
), of_key as materialized (
  select account_id, key_id, class, count(*)::int as images from written group by 1, 2, 3
), waiting as (
  update lanes l set waiting = l.waiting + w.images
  from (select account_id, class, sum(images)::int as images from of_key group by 1, 2) w
  where l.account_id = w.account_id and l.class = w.class
), waiting_of_key as (
  update lane_keys l set waiting = l.waiting + w.images from of_key w where l.key_id = w.key_id and l.class = w.class
), used as (
  update api_keys k set last_used_at = now() from (select distinct key_id from written) w
  where k.id = w.key_id and (k.last_used_at is null or k.last_used_at < now() - interval '1 second')
)
select k.active, k.revision = i.revision as current, j.has_lane, j.fits, w.created_at
from input i left join keys k on k.id = i.key_id left join judged j on j.request_id = i.request_id
left join written w on w.id = i.id
where i.id = i.request_id order by i.n
