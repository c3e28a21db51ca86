"""The statements by which the release before the catalogue records and settles: frozen, as those of `statements`. Its
processes run on this schema during an upgrade. `REVISION` is the schema that they were written for.
"""

REVISION = "e08b5d63f2a4"

RECORD = """
with input as materialized (
  select * from unnest(string_to_array($1, ' '), string_to_array($2, ' '), string_to_array($3, ' '),
    string_to_array($4, ' ')::bigint[], $5::text[], string_to_array($6, ' '),
    string_to_array($7, ' '), string_to_array($8, ' '), string_to_array($9, ' '), $10::uuid[],
    $11::float8[], $12::bytea[], $13::bytea[]) with ordinality
    as r(id, request_id, key_id, revision, prompt, size, format, model, provider, lease, lease_seconds, scope,
      fingerprint, n)
), keys as materialized (
  select k.id, k.account_id, k.environment, k.revision,
    k.revoked_at is null and not k.is_suspended and (k.expires_at is null or k.expires_at > clock_timestamp()) as active
  from api_keys k where k.id = any(string_to_array($3, ' ')) order by k.id for no key update
), admitted as materialized (
  select i.*, k.account_id, k.environment, case when i.lease is null then 'delivered' else 'processing' end as status
  from input i join keys k on k.id = i.key_id and k.active and k.revision = i.revision
  where (select count(*) from keys) > 0
), claimed as (
  insert into claims (scope, fingerprint, generation_id, other_ids, lease_until)
  select scope, fingerprint, request_id, array_agg(id order by n) filter (where id <> request_id),
    now() + make_interval(secs => lease_seconds)
  from admitted where scope is not null group by scope, fingerprint, request_id, lease_seconds order by scope, min(n)
  on conflict do nothing returning generation_id
), written as (
  insert into generations (id, request_id, account_id, environment, key_id, prompt, size, format, model, provider,
    status, lease, lease_until, delivered_at)
  select id, request_id, account_id, environment, key_id, prompt, size, format, model, provider, status,
    lease, now() + make_interval(secs => lease_seconds), case when status = 'delivered' then now() end
  from admitted
  where scope is null or request_id in (select generation_id from claimed) order by id
  on conflict do nothing returning id, key_id, model, created_at, delivered_at
), counted as (
  insert into usage as u (key_id, day, model, pictures)
  select key_id, (delivered_at at time zone 'UTC')::date, model, count(*) from written
  where delivered_at is not null group by 1, 2, 3 order by 1, 2, 3
  on conflict (key_id, day, model) do update set pictures = u.pictures + excluded.pictures
), used as (
  update api_keys k set last_used_at = now() from (select distinct key_id from written) w
  where k.id = w.key_id and (k.last_used_at is null or k.last_used_at < now() - interval '1 second')
)
select k.active, k.revision = i.revision as current, w.created_at
from input i left join keys k on k.id = i.key_id left join written w on w.id = i.id
where i.id = i.request_id order by i.n
"""

SETTLE = """
with input as materialized (
  select * from unnest($1::text[], $2::text[], $3::text[], $4::uuid[], $5::text[], $6::bytea[])
    with ordinality as r(id, request_id, key_id, lease, error, scope, n)
), keys as materialized (
  select k.id from api_keys k where k.id = any($3) order by k.id for no key update
), claimed as materialized (
  select scope from claims where scope = any($6) and (select count(*) from keys) > 0 order by scope for update
), settled as (
  update generations g set status = case when i.error is null then 'delivered' else 'failed' end, error = i.error,
    lease_until = null, delivered_at = case when i.error is null then now() end
  from input i
  where g.id = i.id and g.status = 'processing' and g.lease = i.lease and (select count(*) from claimed) >= 0
  returning g.id, g.key_id, g.model, g.delivered_at, i.request_id, i.scope, i.n
), counted as (
  insert into usage as u (key_id, day, model, pictures)
  select key_id, (delivered_at at time zone 'UTC')::date, model, count(*) from settled
  where delivered_at is not null group by 1, 2, 3 order by 1, 2, 3
  on conflict (key_id, day, model) do update set pictures = u.pictures + excluded.pictures
), ended as materialized (
  select request_id, scope, array_agg(id order by n) filter (where delivered_at is not null) as delivered_ids
  from settled where scope is not null group by 1, 2
), kept as (
  update claims c set lease_until = null, generation_id = e.delivered_ids[1],
    other_ids = nullif(e.delivered_ids[2:], '{}')
  from ended e where c.scope = e.scope and c.generation_id = e.request_id and e.delivered_ids is not null
), freed as (
  delete from claims c using ended e
  where c.scope = e.scope and c.generation_id = e.request_id and e.delivered_ids is null
)
select s.id is not null as settled
from input i left join settled s on s.id = i.id where i.id = i.request_id order by i.n
"""
