"""Create invitations and erasures, mark operators, and let keys outlive their deleted user"""

from app.migrations.online import OnlineSteps, online_steps

revision = "a41f0c8d2e67"
down_revision = "7c1e94d0a5b3"
branch_labels = None
depends_on = None

_KEYS_AT_ONCE = 500

_INVITATIONS = """
create table if not exists invitations (
  id text collate "C" not null constraint invitations_pkey primary key,
  token_hash bytea not null constraint invitations_token_hash_key unique,
  email text,
  uses_max integer not null,
  uses integer not null default 0,
  created_at timestamptz not null default now(),
  expires_at timestamptz not null,
  revoked_at timestamptz,
  constraint invitations_token_hash_check check (octet_length(token_hash) = 32),
  constraint invitations_email_check check (email = lower(email)),
  constraint invitations_uses_max_check check (uses_max >= 1),
  constraint invitations_uses_check check (uses between 0 and uses_max)
)
"""

_ERASURES = """
create table if not exists erasures (
  account_id text collate "C" not null constraint erasures_pkey primary key
    constraint erasures_account_id_fkey references accounts,
  lease_until timestamptz not null
)
"""

# A key of a deleted account gets a user again, who cannot log in: no password matches the hash, and no email is his.
_GIVE_KEYS_A_USER = """
with batch as materialized (
  select id, substr(account_id, 5) as suffix from api_keys where id > :after and user_id is null
  order by id limit :at_once for no key update
), made as (
  insert into users (id, email, password_hash, is_active)
  select distinct 'usr_' || suffix, suffix || '@deleted.invalid', '', false from batch on conflict do nothing
), filled as (
  update api_keys k set user_id = 'usr_' || b.suffix from batch b where k.id = b.id
)
select max(id) from batch
"""

_HAS_USER = "alter table api_keys add constraint api_keys_has_user check (user_id is not null) not valid"


def upgrade() -> None:
    with online_steps() as steps:
        steps.execute("alter table users add column if not exists is_operator boolean not null default false")
        steps.execute(_INVITATIONS)
        steps.execute(_ERASURES)
        steps.execute("alter table api_keys alter user_id drop not null")


def downgrade() -> None:
    with online_steps() as steps:
        steps.execute_in_batches(_GIVE_KEYS_A_USER, at_once=_KEYS_AT_ONCE)
        _forbid_null(steps)
        steps.execute("drop table if exists erasures")
        steps.execute("drop table if exists invitations")
        steps.execute("alter table users drop column if exists is_operator")


def _forbid_null(steps: OnlineSteps) -> None:
    """By a constraint that is proved while keys are in use: SET NOT NULL does not read the table then."""
    if not steps.has_constraint("api_keys", "api_keys_has_user"):
        steps.execute(_HAS_USER)
    steps.execute_patiently("alter table api_keys validate constraint api_keys_has_user")
    steps.execute("alter table api_keys alter user_id set not null")
    steps.execute("alter table api_keys drop constraint if exists api_keys_has_user")
