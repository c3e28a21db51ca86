-- Writes the images of requests, delivered or still to be drawn, and all that follows from them, in one transaction.
-- One row for each request, in order: whether its key is active (null: there is none, or its row was skipped), whether
-- the key's revision is the one that admission saw, and the time if the images were written now.
with input as materialized (
  select * from unnest(string_to_array(:id, ' '), string_to_array(:request_id, ' '), string_to_array(:key_id, ' '),
    string_to_array(:revision, ' ')::bigint[], :prompt::text[], string_to_array(:size, ' '),
    string_to_array(:format, ' '), string_to_array(:model, ' '), string_to_array(:provider, ' '),
    string_to_array(:quality, ' '), string_to_array(:list_price, ' ')::bigint[], :extra::jsonb[], :lease::uuid[],
    :lease_seconds::float8[], :scope::bytea[], :fingerprint::bytea[]) with ordinality as r(id, request_id, key_id,
    revision, prompt, size, format, model, provider, quality, list_price, extra, lease, lease_seconds, scope, fingerprint,
    n)
), keys as materialized (
  -- The only lock that is waited for. It returns the row as it is after the wait; a revocation takes the same lock.
  select k.id, k.account_id, k.environment, k.revision,
    k.revoked_at is null and not k.is_suspended and (k.expires_at is null or k.expires_at > clock_timestamp()) as active
  from api_keys k where k.id = any(string_to_array(:key_id, ' ')) order by k.id for no key update
), admitted as materialized (
  -- Through the count every key is locked before anything is written: the parts below have no order of their own.
  -- Without a lease there is nothing left to draw.
  select i.*, k.account_id, k.environment, case when i.lease is null then 'delivered' else 'processing' end as status
  from input i join keys k on k.id = i.key_id and k.active and k.revision = i.revision
  where (select count(*) from keys) > 0
), claimed as (
  -- One for a request, however many images it has: all of them are written, or none.
  insert into claims (scope, fingerprint, generation_id, other_ids, lease_until)
  select scope, fingerprint, request_id, array_agg(id order by n) filter (where id <> request_id),
    now() + make_interval(secs => lease_seconds)
  from admitted where scope is not null group by scope, fingerprint, request_id, lease_seconds order by scope, min(n)
  on conflict do nothing returning generation_id
), written as (
  insert into generations (id, request_id, account_id, environment, key_id, kind, prompt, size, format, model, provider,
    quality, list_price, inputs, art, status, lease, lease_until, delivered_at)
  select id, request_id, account_id, environment, key_id, case when extra is null then 'generate' else 'edit' end, prompt,
    size, format, model, provider, coalesce(quality, 'auto'), coalesce(list_price, 0), extra -> 'inputs',
    coalesce((extra -> 'art')::int, 1), status, lease, now() + make_interval(secs => lease_seconds),
    case when status = 'delivered' then now() end
  from admitted
  where scope is null or request_id in (select generation_id from claimed) order by id
  on conflict do nothing returning id, key_id, model, list_price, created_at, delivered_at
), counted as (
  -- From the rows that were really written: a batch that is sent again counts nothing twice.
  insert into usage as u (key_id, day, model, pictures, list_amount)
  select key_id, (delivered_at at time zone 'UTC')::date, model, count(*), sum(list_price) from written
  where delivered_at is not null group by 1, 2, 3 order by 1, 2, 3
  on conflict (key_id, day, model) do update
    set pictures = u.pictures + excluded.pictures, list_amount = u.list_amount + excluded.list_amount
), used as (
  -- At most once a second: a row that changes with every batch is slow to read under an old snapshot.
  update api_keys k set last_used_at = now() from (select distinct key_id from written) w
  where k.id = w.key_id and (k.last_used_at is null or k.last_used_at < now() - interval '1 second')
)
select k.active, k.revision = i.revision as current, w.created_at
from input i left join keys k on k.id = i.key_id left join written w on w.id = i.id
where i.id = i.request_id order by i.n
