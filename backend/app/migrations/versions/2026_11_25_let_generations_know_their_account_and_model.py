"""Let generations know their account, model, price and lease, and be queued"""

from app.migrations.online import OnlineSteps, online_steps

revision = "c4a91f7e2d38"
down_revision = "9d27e1b40a6c"
branch_labels = None
depends_on = None

_AT_ONCE = 2000

_COLUMNS = {
    "request_id": 'text collate "C"',
    "account_id": 'text collate "C"',
    "environment": "text",
    "kind": "text not null default 'generate'",
    "model": "text not null default 'nano-banana'",
    "route": "text",
    "quality": "text not null default 'auto'",
    "inputs": "jsonb",
    "art": "integer not null default 1",
    "class": "text not null default 'now'",
    "lease": "uuid",
    "lease_until": "timestamptz",
    "attempts": "integer not null default 0",
    "sent_at": "timestamptz",
    "error": "text",
    "list_price": "bigint not null default 0",
    "price": "bigint not null default 0",
    "cost": "bigint",
}
_FILLED = ("request_id", "account_id", "environment")

_FILL = """
create or replace function fill_generation() returns trigger language plpgsql as $$
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

_END_LEASE = """
create or replace function end_lease_of_generation() returns trigger language plpgsql as $$
begin
  new.lease_until := null;
  return new;
end
$$
"""

_TRIGGERS = (
    """
    create or replace trigger generations_fill before insert on generations
    for each row when (
      new.account_id is null or new.environment is null or new.request_id is null
      or new.status = 'processing' and new.lease_until is null
    ) execute function fill_generation()
    """,
    """
    create or replace trigger generations_end_lease before update of status on generations
    for each row when (new.lease_until is not null and new.status not in ('queued', 'processing'))
    execute function end_lease_of_generation()
    """,
)

_FILL_ROWS = """
with batch as materialized (
  select id, key_id from generations where id > :after and account_id is null
  order by id limit :at_once for no key update
), filled as (
  update generations g set request_id = g.id, account_id = k.account_id, environment = k.environment
  from batch b join api_keys k on k.id = b.key_id where g.id = b.id
)
select max(id) from batch
"""

# What is being drawn now keeps its claim's lease. Without a claim, the lease is longer than it can take.
_FILL_LEASES = """
with batch as materialized (
  select id from generations
  where id > :after and status <> 'delivered' and deleted_at is null and status = 'processing' and lease_until is null
  order by id limit :at_once for no key update
), claimed as materialized (
  select unnest(array[generation_id] || other_ids) as id, lease_until from claims where lease_until is not null
), filled as (
  update generations g set lease_until = coalesce(c.lease_until, now() + interval '1 hour')
  from batch b left join claimed c on c.id = b.id where g.id = b.id
)
select max(id) from batch
"""

_STATUS = "check (status in ('queued', 'processing', 'delivered', 'failed', 'lost', 'cancelled'))"
_CHECKS = {
    "generations_filled": f"check ({' and '.join(f'{column} is not null' for column in _FILLED)})",
    "generations_status_new": _STATUS,
    "generations_environment_check": "check (environment in ('live', 'test'))",
    "generations_kind_check": "check (kind in ('generate', 'edit'))",
    "generations_class_check": "check (class in ('now', 'batch'))",
    "generations_attempts_check": "check (attempts >= 0)",
    "generations_list_price_check": "check (list_price >= 0)",
    "generations_price_check": "check (price >= 0)",
}

# The version before knows neither status, and draws nothing that is queued.
_FAIL_QUEUED = """
with batch as materialized (
  select id from generations where id > :after and status in ('queued', 'cancelled')
  order by id limit :at_once for no key update
), failed as (
  update generations g set status = 'failed' from batch b where g.id = b.id
)
select max(id) from batch
"""

# It takes over a claim whose lease is over: the idempotency keys of what failed are free again.
_FREE_CLAIMS = """
update claims c set lease_until = now() from generations g
where g.id = c.generation_id and g.status = 'failed' and (c.lease_until is null or c.lease_until > now())
"""

_DROP_FOREIGN_KEY = "alter table generations drop constraint if exists generations_key_id_fkey"
_ADD_FOREIGN_KEY = """
alter table generations add constraint generations_key_id_fkey foreign key (key_id) references api_keys (id) not valid
"""
_OLD_STATUS = "check (status in ('processing', 'delivered', 'failed', 'lost'))"


def upgrade() -> None:
    with online_steps() as steps:
        columns = (f"add column if not exists {name} {kind}" for name, kind in _COLUMNS.items())
        steps.execute(f"alter table generations {', '.join(columns)}")
        steps.execute(_FILL)
        steps.execute(_END_LEASE)
        steps.execute_together(*_TRIGGERS)
        if steps.has_constraint("generations", "generations_key_id_fkey"):
            steps.execute_together(_DROP_FOREIGN_KEY, lock=("api_keys", "generations"))
        if not steps.has_column("generations", "account_id", not_null=True):
            steps.execute_in_batches(_FILL_ROWS, at_once=_AT_ONCE)
            steps.execute_in_batches(_FILL_LEASES, at_once=_AT_ONCE)
            steps.execute_patiently("vacuum (analyze) generations")  # every row has left its old version behind
            _prove(steps)
        steps.create_index("generations_of_account_idx", "generations (account_id, environment, id)")
        steps.create_index("generations_leased_idx", "generations (lease_until) where lease_until is not null")


def _prove(steps: OnlineSteps) -> None:
    """The constraints that a partition must have, proved by one reading while rows are written."""
    missing = [name for name in _CHECKS if not steps.has_constraint("generations", name)]
    if missing:
        added = (f"add constraint {name} {_CHECKS[name]} not valid" for name in missing)
        steps.execute(f"alter table generations {', '.join(added)}")
    proved = (f"validate constraint {name}" for name in _CHECKS)
    steps.execute_patiently(f"alter table generations {', '.join(proved)}")
    not_null = (f"alter {column} set not null" for column in _FILLED)
    steps.execute_together(
        f"alter table generations {', '.join(not_null)}, drop constraint generations_status_check",
        "alter table generations drop constraint generations_filled",
        "alter table generations rename constraint generations_status_new to generations_status_check",
    )


def downgrade() -> None:
    with online_steps() as steps:
        if steps.has_column("generations", "account_id"):
            _restore_status(steps)
            for name in ("generations_of_account_idx", "generations_leased_idx"):
                steps.execute_patiently(f"drop index concurrently if exists {name}")
            dropped = (f"drop column {name}" for name in _COLUMNS)
            steps.execute_together(
                "drop trigger if exists generations_fill on generations",
                "drop trigger if exists generations_end_lease on generations",
                f"alter table generations {', '.join(dropped)}",
            )
        for function in ("fill_generation", "end_lease_of_generation"):
            steps.execute(f"drop function if exists {function}()")
        steps.create_index("generations_of_key_idx", "generations (key_id, id)")  # unless it was dropped by hand
        if not steps.has_constraint("generations", "generations_key_id_fkey"):
            steps.execute_together(_ADD_FOREIGN_KEY, lock=("api_keys", "generations"))
        steps.execute_patiently("alter table generations validate constraint generations_key_id_fkey")


def _restore_status(steps: OnlineSteps) -> None:
    if not steps.has_constraint("generations", "generations_status_old"):
        steps.execute(f"alter table generations add constraint generations_status_old {_OLD_STATUS} not valid")
    steps.execute_in_batches(_FAIL_QUEUED, at_once=_AT_ONCE)
    steps.execute(_FREE_CLAIMS)
    steps.execute_patiently("alter table generations validate constraint generations_status_old")
    steps.execute_together(
        "alter table generations drop constraint if exists generations_status_check",
        "alter table generations rename constraint generations_status_old to generations_status_check",
    )
