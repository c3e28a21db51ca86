"""Give every user and every key an account, and keys a revision and an expiry"""

from app.migrations.online import OnlineSteps, online_steps

revision = "5b0e7c24d8f1"
down_revision = "1f6a3d9c0b57"
branch_labels = None
depends_on = None

_USERS_AT_ONCE = 500
_KEYS_AT_ONCE = 300

_MAKE_ACCOUNT = """
create or replace function make_account_of_user() returns trigger language plpgsql as $$
begin
  insert into accounts (id, is_active, created_at, generate_limit, generate_limit_per_key, generate_concurrency_per_key)
  values ('acc_' || substr(new.id, 5), new.is_active, new.created_at, new.generate_limit, new.generate_limit_per_key,
    new.generate_concurrency_per_key)
  on conflict do nothing;
  return null;
end
$$
"""

_CHANGE_ACCOUNT = """
create or replace function change_account_of_user() returns trigger language plpgsql as $$
begin
  update accounts a set is_active = new.is_active, generate_limit = new.generate_limit,
    generate_limit_per_key = new.generate_limit_per_key, generate_concurrency_per_key = new.generate_concurrency_per_key
  where a.id = 'acc_' || substr(new.id, 5)
    and (a.is_active, a.generate_limit, a.generate_limit_per_key, a.generate_concurrency_per_key)
      is distinct from
      (new.is_active, new.generate_limit, new.generate_limit_per_key, new.generate_concurrency_per_key);
  return null;
end
$$
"""

_CHANGE_USER = """
create or replace function change_user_of_account() returns trigger language plpgsql as $$
begin
  update users u set is_active = new.is_active, generate_limit = new.generate_limit,
    generate_limit_per_key = new.generate_limit_per_key, generate_concurrency_per_key = new.generate_concurrency_per_key
  where u.id = 'usr_' || substr(new.id, 5)
    and (u.is_active, u.generate_limit, u.generate_limit_per_key, u.generate_concurrency_per_key)
      is distinct from
      (new.is_active, new.generate_limit, new.generate_limit_per_key, new.generate_concurrency_per_key);
  return null;
end
$$
"""

_USER_TRIGGERS = (
    """
    create or replace trigger users_make_account after insert on users
    for each row execute function make_account_of_user()
    """,
    """
    create or replace trigger users_change_account
    after update of is_active, generate_limit, generate_limit_per_key, generate_concurrency_per_key on users
    for each row execute function change_account_of_user()
    """,
)

_ACCOUNT_TRIGGER = """
create or replace trigger accounts_change_user
after update of is_active, generate_limit, generate_limit_per_key, generate_concurrency_per_key on accounts
for each row execute function change_user_of_account()
"""

# The rows are locked before they are copied: a change that commits meanwhile is copied, and one that comes after finds
# the account there.
_MAKE_ACCOUNTS = """
with batch as materialized (
  select id, is_active, created_at, generate_limit, generate_limit_per_key, generate_concurrency_per_key
  from users where id > :after order by id limit :at_once for no key update
), made as (
  insert into accounts (id, is_active, created_at, generate_limit, generate_limit_per_key, generate_concurrency_per_key)
  select 'acc_' || substr(id, 5), is_active, created_at, generate_limit, generate_limit_per_key,
    generate_concurrency_per_key
  from batch on conflict do nothing
)
select max(id) from batch
"""

_ADD_KEY_COLUMNS = """
alter table api_keys
  add account_id text collate "C" constraint api_keys_account_id_fkey references accounts,
  add revision bigint not null default 0,
  add expires_at timestamptz
"""

_FILL_KEY = """
create or replace function fill_account_of_key() returns trigger language plpgsql as $$
begin
  new.account_id := 'acc_' || substr(new.user_id, 5);
  return new;
end
$$
"""

_RAISE_REVISION = """
create or replace function raise_key_revision() returns trigger language plpgsql as $$
begin
  new.revision := old.revision + 1;
  return new;
end
$$
"""

_KEY_TRIGGERS = (
    """
    create or replace trigger api_keys_fill_account before insert on api_keys
    for each row when (new.account_id is null) execute function fill_account_of_key()
    """,
    """
    create or replace trigger api_keys_raise_revision
    before update of revoked_at, is_suspended, expires_at, generate_limit, generate_concurrency on api_keys
    for each row when (
      (old.revoked_at, old.is_suspended, old.expires_at, old.generate_limit, old.generate_concurrency)
      is distinct from (new.revoked_at, new.is_suspended, new.expires_at, new.generate_limit, new.generate_concurrency)
    ) execute function raise_key_revision()
    """,
)

_FILL_KEYS = """
with batch as materialized (
  select id, user_id from api_keys where id > :after and account_id is null
  order by id limit :at_once for no key update
), filled as (
  update api_keys k set account_id = 'acc_' || substr(b.user_id, 5) from batch b where k.id = b.id
)
select max(id) from batch
"""

# Keys that have ended are ended for the version before too, which knows no expiry.
_REVOKE_EXPIRED_KEYS = """
with batch as materialized (
  select id from api_keys where id > :after and revoked_at is null and expires_at <= now()
  order by id limit :at_once for no key update
), ended as (
  update api_keys k set revoked_at = k.expires_at from batch b where k.id = b.id
)
select max(id) from batch
"""


def upgrade() -> None:
    with online_steps() as steps:
        for function in (_MAKE_ACCOUNT, _CHANGE_ACCOUNT, _CHANGE_USER, _FILL_KEY, _RAISE_REVISION):
            steps.execute(function)
        steps.execute_together(*_USER_TRIGGERS)
        steps.execute(_ACCOUNT_TRIGGER)
        steps.execute_in_batches(_MAKE_ACCOUNTS, at_once=_USERS_AT_ONCE)
        if not steps.has_column("api_keys", "account_id"):
            steps.execute_together(_ADD_KEY_COLUMNS, lock=("accounts", "api_keys"))
        steps.execute_together(*_KEY_TRIGGERS)
        steps.execute_in_batches(_FILL_KEYS, at_once=_KEYS_AT_ONCE)
        _forbid_null(steps)
        steps.create_index("api_keys_of_account_idx", "api_keys (account_id, created_at, id)")


_FILLED = "alter table api_keys add constraint api_keys_filled check (account_id is not null) not valid"


def _forbid_null(steps: OnlineSteps) -> None:
    """By a constraint that is proved while keys are in use: SET NOT NULL does not read the table then."""
    if not steps.has_column("api_keys", "account_id", not_null=True):
        if not steps.has_constraint("api_keys", "api_keys_filled"):
            steps.execute(_FILLED)
        steps.execute_patiently("alter table api_keys validate constraint api_keys_filled")
        steps.execute("alter table api_keys alter account_id set not null")
    steps.execute("alter table api_keys drop constraint if exists api_keys_filled")


def downgrade() -> None:
    with online_steps() as steps:
        if steps.has_column("api_keys", "expires_at"):
            steps.execute_in_batches(_REVOKE_EXPIRED_KEYS, at_once=_KEYS_AT_ONCE)
        steps.execute_together(
            "drop trigger if exists api_keys_fill_account on api_keys",
            "drop trigger if exists api_keys_raise_revision on api_keys",
            "alter table api_keys drop column if exists account_id, drop column if exists revision,"
            " drop column if exists expires_at",
            lock=("accounts", "api_keys"),
        )
        steps.execute("drop trigger if exists users_make_account on users")
        steps.execute("drop trigger if exists users_change_account on users")
        steps.execute("drop trigger if exists accounts_change_user on accounts")
        for function in _FUNCTIONS:
            steps.execute(f"drop function if exists {function}()")


_FUNCTIONS = (
    "make_account_of_user",
    "change_account_of_user",
    "change_user_of_account",
    "fill_account_of_key",
    "raise_key_revision",
)
