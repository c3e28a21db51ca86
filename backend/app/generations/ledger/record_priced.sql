-- Writes the images of requests that have a price and are still to be drawn, and holds their prices, in one transaction.
-- One row for each request, in order: what `record.sql` says; what the account and the key may still spend and when the
-- periods of their caps end; and why the request does not fit: `insufficient_credit`, `account_cap`, `key_cap`, or
-- `again` where it does not fit beside others that were not written either.
with input as materialized (
  select * from unnest(string_to_array(:id, ' '), string_to_array(:request_id, ' '), string_to_array(:key_id, ' '),
    string_to_array(:revision, ' ')::bigint[], :prompt::text[], string_to_array(:size, ' '),
    string_to_array(:format, ' '), string_to_array(:model, ' '), string_to_array(:provider, ' '),
    string_to_array(:quality, ' '), string_to_array(:list_price, ' ')::bigint[], :price::bigint[], :extra::jsonb[],
    :lease::uuid[], :lease_seconds::float8[], :scope::bytea[], :fingerprint::bytea[]) with ordinality as r(id,
    request_id, key_id, revision, prompt, size, format, model, provider, quality, list_price, price, extra, lease,
    lease_seconds, scope, fingerprint, n)
), keys as materialized (
  select k.*,
    k.revoked_at is null and not k.is_suspended and (k.expires_at is null or k.expires_at > clock_timestamp()) as active
  from api_keys k where k.id = any(string_to_array(:key_id, ' ')) order by k.id for no key update
), payers as materialized (
  {payers}
), clock as materialized (
  select now() as at
), {rooms}, candidates as materialized (
  select i.request_id, i.key_id, min(i.n) as n, sum(i.price)::bigint as amount
  from input i join keys k on k.id = i.key_id and k.active and k.revision = i.revision group by 1, 2
), {judged}, admitted as materialized (
  select i.*, k.account_id, k.environment
  from input i join keys k on k.id = i.key_id join judged j on j.request_id = i.request_id and j.fits
  where (select count(*) from payers) > 0
), claimed as (
  insert into claims (scope, fingerprint, generation_id, other_ids, lease_until)
  select scope, fingerprint, request_id, array_agg(id order by n) filter (where id <> request_id),
    now() + make_interval(secs => lease_seconds)
  from admitted where scope is not null group by scope, fingerprint, request_id, lease_seconds order by scope, min(n)
  on conflict do nothing returning generation_id
), written as (
  insert into generations (id, request_id, account_id, environment, key_id, kind, prompt, size, format, model, provider,
    quality, list_price, price, inputs, art, status, lease, lease_until)
  select id, request_id, account_id, environment, key_id, case when extra is null then 'generate' else 'edit' end, prompt,
    size, format, model, provider, coalesce(quality, 'auto'), coalesce(list_price, 0), price, extra -> 'inputs',
    coalesce((extra -> 'art')::int, 1), 'processing', lease, now() + make_interval(secs => lease_seconds)
  from admitted
  where scope is null or request_id in (select generation_id from claimed) order by id
  on conflict do nothing returning id, account_id, key_id, price, created_at
), to_hold as (
  select account_id, key_id, price from written
), {holds}, {used}, {remaining}
select {verdict}
from input i left join keys k on k.id = i.key_id left join judged j on j.request_id = i.request_id
left join remaining r on r.key_id = i.key_id left join written w on w.id = i.id
where i.id = i.request_id order by i.n
