"""What only the version before needs: it runs on this schema while a deployment is upgraded machine by machine.

A later release drops all of it. The version before writes limits and `is_active` of users, and inserts users, keys and
generations without the columns that it does not know.
"""

from sqlalchemy import Text, true
from sqlalchemy.orm import Mapped, mapped_column

from app.models.base import Base, after_create


class LegacyUserColumns:
    """Columns that are `accounts`' now. Triggers keep the two equal, whichever of them is written."""

    is_active: Mapped[bool] = mapped_column(server_default=true(), sort_order=4)
    generate_limit: Mapped[str | None] = mapped_column(Text, sort_order=6)
    generate_limit_per_key: Mapped[str | None] = mapped_column(Text, sort_order=7)
    generate_concurrency_per_key: Mapped[int | None] = mapped_column(sort_order=8)


_MAKE_ACCOUNT = """
create function make_account_of_user() returns trigger language plpgsql as $$
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
create function change_account_of_user() returns trigger language plpgsql as $$
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
create function change_user_of_account() returns trigger language plpgsql as $$
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

_ACCOUNT_IS_MADE = """
create trigger users_make_account after insert on users
for each row execute function make_account_of_user()
"""

_ACCOUNT_IS_CHANGED = """
create trigger users_change_account
after update of is_active, generate_limit, generate_limit_per_key, generate_concurrency_per_key on users
for each row execute function change_account_of_user()
"""

_USER_IS_CHANGED = """
create trigger accounts_change_user
after update of is_active, generate_limit, generate_limit_per_key, generate_concurrency_per_key on accounts
for each row execute function change_user_of_account()
"""

_FILL_KEY = """
create function fill_account_of_key() returns trigger language plpgsql as $$
begin
  new.account_id := 'acc_' || substr(new.user_id, 5);
  return new;
end
$$
"""

_KEY_IS_FILLED = """
create trigger api_keys_fill_account before insert on api_keys
for each row when (new.account_id is null) execute function fill_account_of_key()
"""

# The lease is longer than any generation of the version before lives: its deadline is ten minutes at most.
_FILL_GENERATION = """
create function fill_generation() returns trigger language plpgsql as $$
begin
  if new.account_id is null or new.environment is null then
    select k.account_id, k.environment into new.account_id, new.environment from api_keys k where k.id = new.key_id;
  end if;
  if new.request_id is null then
    new.request_id := new.id;
  end if;
  if new.status = 'processing' and new.lease_until is null then
    new.lease_until := now() + interval '1 hour';
  end if;
  return new;
end
$$
"""

_GENERATION_IS_FILLED = """
create trigger generations_fill before insert on generations
for each row when (
  new.account_id is null or new.environment is null or new.request_id is null
  or new.status = 'processing' and new.lease_until is null
) execute function fill_generation()
"""

_END_LEASE = """
create function end_lease_of_generation() returns trigger language plpgsql as $$
begin
  new.lease_until := null;
  return new;
end
$$
"""

_LEASE_IS_ENDED = """
create trigger generations_end_lease before update of status on generations
for each row when (new.lease_until is not null and new.status not in ('queued', 'processing'))
execute function end_lease_of_generation()
"""

_KEYS_OF_USER = "create index api_keys_of_user_idx on api_keys (user_id, created_at, id)"

after_create(
    Base.metadata,
    _MAKE_ACCOUNT,
    _CHANGE_ACCOUNT,
    _CHANGE_USER,
    _ACCOUNT_IS_MADE,
    _ACCOUNT_IS_CHANGED,
    _USER_IS_CHANGED,
    _FILL_KEY,
    _KEY_IS_FILLED,
    _FILL_GENERATION,
    _GENERATION_IS_FILLED,
    _END_LEASE,
    _LEASE_IS_ENDED,
    _KEYS_OF_USER,
)
