"""The statements of the version before, as its processes send them: frozen, since they run on this schema during an
upgrade. `REVISION` is the schema that they were written for.
"""

REVISION = "e3f6b80d417c"

RECORD = """
with input as materialized (
  select * from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[], $8::text[],
    $9::bytea[], $10::bytea[], $11::float8[]) with ordinality
    as r(id, key_id, prompt, size, format, provider, status, request, scope, fingerprint, lease, n)
), keys as materialized (
  select k.id, k.revoked_at is null and not k.is_suspended as active from api_keys k
  where k.id = any($2) order by k.id for no key update
), admitted as materialized (
  select i.* from input i join keys k on k.id = i.key_id and k.active
  where (select count(*) from keys) > 0
), claimed as (
  insert into claims (scope, fingerprint, generation_id, other_ids, lease_until)
  select scope, fingerprint, request, array_agg(id order by n) filter (where id <> request),
    now() + make_interval(secs => lease)
  from admitted where scope is not null group by scope, fingerprint, request, lease order by scope, min(n)
  on conflict do nothing returning generation_id
), written as (
  insert into generations (id, key_id, prompt, size, format, provider, status, delivered_at)
  select id, key_id, prompt, size, format, provider, status, case when status = 'delivered' then now() end from admitted
  where scope is null or request in (select generation_id from claimed) order by id
  on conflict do nothing returning id, key_id, created_at, delivered_at
), counted as (
  insert into usage as u (key_id, day, pictures)
  select key_id, (delivered_at at time zone 'UTC')::date, count(*) from written
  where delivered_at is not null group by 1, 2 order by 1, 2
  on conflict (key_id, day) do update set pictures = u.pictures + excluded.pictures
), used as (
  update api_keys k set last_used_at = now() from (select distinct key_id from written) w
  where k.id = w.key_id and (k.last_used_at is null or k.last_used_at < now() - interval '1 second')
)
select k.active, w.created_at
from input i left join keys k on k.id = i.key_id left join written w on w.id = i.id
where i.id = i.request order by i.n
"""

DOUBTS = """
select g.id, g.created_at, g.status, c.other_ids, c.fingerprint, c.created_at < now() - interval '24 hours' as expired,
  c.lease_until < now() as lapsed
from unnest($1::text[], $2::bytea[]) with ordinality as i(id, scope, n)
left join claims c on c.scope = i.scope
left join generations g on g.id = coalesce(c.generation_id, i.id)
order by i.n
"""

SETTLE = """
with input as materialized (
  select * from unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bytea[])
    with ordinality as r(id, request, key_id, status, scope, n)
), keys as materialized (
  select k.id from api_keys k where k.id = any($3) order by k.id for no key update
), settled as (
  update generations g set status = i.status, delivered_at = case when i.status = 'delivered' then now() end
  from input i where g.id = i.id and g.status = 'processing' and (select count(*) from keys) > 0
  returning g.id, g.key_id, g.delivered_at, i.request, i.scope
), counted as (
  insert into usage as u (key_id, day, pictures)
  select key_id, (delivered_at at time zone 'UTC')::date, count(*) from settled
  where delivered_at is not null group by 1, 2 order by 1, 2
  on conflict (key_id, day) do update set pictures = u.pictures + excluded.pictures
), kept as (
  update claims c set lease_until = null from settled s
  where c.scope = s.scope and c.generation_id = s.id and s.id = s.request and s.delivered_at is not null
), freed as (
  delete from claims c using settled s
  where c.scope = s.scope and c.generation_id = s.id and s.id = s.request and s.delivered_at is null
)
select s.id is not null as settled from input i left join settled s on s.id = i.id where i.id = i.request order by i.n
"""

TAKE_OVER = """
with lapsed as (
  select scope, generation_id, other_ids from claims where scope = $1 and lease_until < now() for update
), lost as (
  update generations g set status = 'lost' from lapsed l
  where (g.id = l.generation_id or g.id = any(l.other_ids)) and g.status = 'processing' returning g.id
)
delete from claims c using lapsed l where c.scope = l.scope and (
  l.generation_id in (select id from lost)
  or exists (select from generations g where g.id = l.generation_id and g.status in ('lost', 'failed'))
)
"""

REGISTER = """
INSERT INTO users (id, email, password_hash) VALUES ($1::VARCHAR COLLATE "C", $2::VARCHAR, $3::VARCHAR)
ON CONFLICT (email) DO NOTHING
RETURNING users.id, users.email, users.password_hash, users.is_active, users.created_at, users.generate_limit,
  users.generate_limit_per_key, users.generate_concurrency_per_key, users.token_generation
"""

CREATE_KEY = """
INSERT INTO api_keys
  (id, user_id, name, environment, prefix, key_hash, last_used_at, revoked_at, generate_limit, generate_concurrency)
VALUES ($1::VARCHAR COLLATE "C", $2::VARCHAR COLLATE "C", $3::VARCHAR, $4::VARCHAR, $5::VARCHAR, $6::BYTEA,
  $7::TIMESTAMP WITH TIME ZONE, $8::TIMESTAMP WITH TIME ZONE, $9::VARCHAR, $10::INTEGER)
RETURNING api_keys.created_at, api_keys.is_suspended
"""

SET_ACTIVE = 'UPDATE users SET is_active=$1::BOOLEAN WHERE users.id = $2::VARCHAR COLLATE "C"'
SUSPEND = 'UPDATE api_keys SET is_suspended=$1::BOOLEAN WHERE api_keys.id = $2::VARCHAR COLLATE "C"'
REVOKE = 'UPDATE api_keys SET revoked_at=$1::TIMESTAMP WITH TIME ZONE WHERE api_keys.id = $2::VARCHAR COLLATE "C"'
LIMIT_ACCOUNT = "UPDATE users SET generate_limit=$1::VARCHAR WHERE users.email = $2::VARCHAR RETURNING users.id"
LIMIT_KEY = """
UPDATE api_keys SET generate_limit=$1::VARCHAR WHERE api_keys.id = $2::VARCHAR COLLATE "C" RETURNING api_keys.id
"""

LOG_IN = """
SELECT users.id, users.email, users.password_hash, users.is_active, users.created_at, users.generate_limit,
  users.generate_limit_per_key, users.generate_concurrency_per_key, users.token_generation
FROM users WHERE users.email = $1::VARCHAR
"""

FIND_CALLER = """
SELECT api_keys.id, api_keys.user_id, api_keys.environment,
  coalesce(api_keys.generate_limit, users.generate_limit_per_key) AS coalesce_1, users.generate_limit,
  coalesce(api_keys.generate_concurrency, users.generate_concurrency_per_key) AS coalesce_2
FROM api_keys JOIN users ON users.id = api_keys.user_id
WHERE api_keys.key_hash = $1::BYTEA AND api_keys.revoked_at IS NULL AND api_keys.is_suspended IS false
"""

LIST = """
SELECT anon_1.id, anon_1.key_id, anon_1.prompt, anon_1.size, anon_1.provider, anon_1.status, anon_1.created_at,
  anon_1.delivered_at, anon_1.format, anon_1.deleted_at, api_keys.id AS id_1, api_keys.name, api_keys.environment
FROM api_keys JOIN LATERAL (
  SELECT generations.id AS id, generations.key_id AS key_id, generations.prompt AS prompt, generations.size AS size,
    generations.provider AS provider, generations.status AS status, generations.created_at AS created_at,
    generations.delivered_at AS delivered_at, generations.format AS format, generations.deleted_at AS deleted_at
  FROM generations
  WHERE generations.key_id = api_keys.id AND generations.status = $1::VARCHAR AND generations.deleted_at IS NULL
  ORDER BY generations.id DESC LIMIT $2::INTEGER
) AS anon_1 ON true
WHERE api_keys.user_id = $3::VARCHAR COLLATE "C" AND api_keys.environment = $4::VARCHAR
ORDER BY anon_1.id DESC LIMIT $5::INTEGER
"""

FIND_ONE = """
SELECT generations.id, generations.key_id, generations.prompt, generations.size, generations.provider,
  generations.status, generations.created_at, generations.delivered_at, generations.format, generations.deleted_at,
  api_keys.id AS id_1, api_keys.name, api_keys.environment
FROM generations JOIN api_keys ON api_keys.id = generations.key_id
WHERE api_keys.user_id = $1::VARCHAR COLLATE "C" AND api_keys.environment = $2::VARCHAR
  AND generations.id = $3::VARCHAR COLLATE "C" AND generations.status = $4::VARCHAR AND generations.deleted_at IS NULL
"""

USAGE = """
SELECT usage.day, usage.key_id, api_keys.environment, usage.pictures, api_keys.name
FROM usage JOIN api_keys ON api_keys.id = usage.key_id
WHERE api_keys.user_id = $1::VARCHAR COLLATE "C" AND usage.day BETWEEN $2::DATE AND $3::DATE
ORDER BY usage.day DESC, usage.key_id DESC LIMIT $4::INTEGER
"""

GIVE_UP = """
UPDATE generations SET status=$1::VARCHAR
WHERE generations.status = $2::VARCHAR AND generations.deleted_at IS NULL
  AND generations.created_at < now() - $3::INTERVAL
RETURNING generations.id
"""

FORGET = "UPDATE generations SET deleted_at=now() WHERE generations.id IN ($1::VARCHAR)"

RECONCILE = """
with recorded as (
  select key_id, count(*) as pictures from generations
  where id >= $1 and id < $2 and status = 'delivered' and (delivered_at at time zone 'UTC')::date = $3
  group by key_id
), counted as (
  select key_id, pictures from usage where day = $3
)
select key_id, coalesce(c.pictures, 0), coalesce(r.pictures, 0)
from counted c full join recorded r using (key_id)
where c.pictures is distinct from r.pictures order by key_id
"""
