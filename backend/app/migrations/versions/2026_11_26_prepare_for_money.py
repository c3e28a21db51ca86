"""Prepare for money: balances for all accounts, charges, credit entries, caps of keys, subscriptions"""

from app.migrations.online import online_steps

revision = "e91c47d2b806"
down_revision = "d61f0b9c28e7"
branch_labels = None
depends_on = None

_TABLES = {
    "charges": """
create table if not exists charges (
  account_id text collate "C" not null,
  hour timestamptz not null,
  amount bigint not null,
  from_allowance bigint not null,
  from_credit bigint not null,
  billed bigint not null,
  closed_at timestamptz,
  tried_at timestamptz,
  reported_at timestamptz,
  constraint charges_pkey primary key (account_id, hour),
  constraint charges_account_id_fkey foreign key (account_id) references accounts,
  constraint charges_amount_check check (amount = from_allowance + from_credit + billed)
)
""",
    "credit_entries": """
create table if not exists credit_entries (
  id text collate "C" not null,
  account_id text collate "C" not null,
  kind text not null,
  amount bigint not null,
  reference text not null,
  expires_at timestamptz,
  charged_before bigint not null,
  created_at timestamptz not null default now(),
  constraint credit_entries_pkey primary key (id),
  constraint credit_entries_account_id_fkey foreign key (account_id) references accounts,
  constraint credit_entries_reference_key unique (reference),
  constraint credit_entries_kind_check check (kind in ('top_up', 'grant', 'refund', 'adjustment', 'expiry')),
  constraint credit_entries_amount_check check (amount <> 0)
)
""",
    "subscriptions": """
create table if not exists subscriptions (
  account_id text collate "C" not null,
  plan text not null,
  status text not null,
  anchor_day integer not null,
  started_at timestamptz not null default now(),
  past_due_since timestamptz,
  ends_at timestamptz,
  stripe_id text,
  terms jsonb not null,
  is_pending boolean not null default false,
  constraint subscriptions_pkey primary key (account_id),
  constraint subscriptions_account_id_fkey foreign key (account_id) references accounts,
  constraint subscriptions_stripe_id_key unique (stripe_id),
  constraint subscriptions_status_check check (status in ('active', 'past_due', 'stopped', 'cancelled')),
  constraint subscriptions_anchor_day_check check (anchor_day between 1 and 28)
)
""",
    "stripe_customers": """
create table if not exists stripe_customers (
  account_id text collate "C" not null,
  customer_id text not null,
  created_at timestamptz not null default now(),
  constraint stripe_customers_pkey primary key (account_id),
  constraint stripe_customers_account_id_fkey foreign key (account_id) references accounts,
  constraint stripe_customers_customer_id_key unique (customer_id)
)
""",
    "stripe_events": """
create table if not exists stripe_events (
  id text not null,
  type text not null,
  received_at timestamptz not null default now(),
  handled_at timestamptz,
  constraint stripe_events_pkey primary key (id)
)
""",
}

_INDEXES = {
    "charges_of_hour_idx": "charges (hour)",
    "charges_unreported_idx": "charges (hour) where billed > 0 and reported_at is null",
    "credit_entries_of_account_idx": "credit_entries (account_id, created_at, id)",
    "credit_entries_expiring_idx": "credit_entries (expires_at) where expires_at is not null",
    "subscriptions_pending_idx": "subscriptions (account_id) where is_pending",
    "stripe_events_received_at_idx": "stripe_events (received_at)",
}

_UNDELIVERED = "generations_undelivered_of_account_idx"
_UNDELIVERED_ROWS = "(account_id, environment, id) where status <> 'delivered' and lease_until is null"
# As PostgreSQL names it in the months that are made later: there is another index of these columns.
_UNDELIVERED_SUFFIX = "account_id_environment_id_idx1"

_ADD_TO_KEYS = """
alter table api_keys
  add column if not exists cap bigint,
  add column if not exists cap_period text,
  add column if not exists period timestamptz not null default '-infinity',
  add column if not exists spent bigint not null default 0,
  add column if not exists held bigint not null default 0
"""

_KEY_CHECKS = {"cap": "cap >= 0", "cap_period": "cap_period in ('day', 'month')", "held": "held >= 0"}

_ADD_STRIPE_MODE = """
alter table deployment add column if not exists stripe_mode text
  constraint deployment_stripe_mode_check check (stripe_mode in ('test', 'live'))
"""

_OPEN_BALANCE = """
create or replace function open_balance() returns trigger language plpgsql as $$
begin
  insert into balances (account_id) values (new.id) on conflict do nothing;
  return null;
end
$$
"""

_OPEN_BALANCES = """
insert into balances (account_id)
select a.id from accounts a where not exists (select from balances b where b.account_id = a.id)
order by a.id limit 10000 on conflict do nothing
"""


def upgrade() -> None:
    with online_steps() as steps:
        for statement in (*_TABLES.values(), _ADD_TO_KEYS, _ADD_STRIPE_MODE):
            steps.execute(statement)
        for name, rows in _INDEXES.items():
            steps.execute(f"create index if not exists {name} on {rows}")
        steps.create_index_of_generations(_UNDELIVERED, _UNDELIVERED_ROWS, suffix=_UNDELIVERED_SUFFIX)
        for name, condition in _KEY_CHECKS.items():
            constraint = f"api_keys_{name}_check"
            if not steps.has_constraint("api_keys", constraint):
                steps.execute(f"alter table api_keys add constraint {constraint} check ({condition}) not valid")
            steps.execute(f"alter table api_keys validate constraint {constraint}")
        steps.execute("alter table accounts add column if not exists models text[]")
        steps.execute(_OPEN_BALANCE)
        steps.execute("drop trigger if exists accounts_open_balance on accounts")
        steps.execute(
            "create trigger accounts_open_balance after insert on accounts for each row execute function open_balance()"
        )
        while steps.execute(_OPEN_BALANCES).rowcount:
            pass


def downgrade() -> None:
    with online_steps() as steps:
        steps.execute(f"drop index if exists {_UNDELIVERED}")
        steps.execute("drop trigger if exists accounts_open_balance on accounts")
        steps.execute("drop function if exists open_balance()")
        steps.execute("alter table accounts drop column if exists models")
        steps.execute("alter table deployment drop column if exists stripe_mode")
        for name in _KEY_CHECKS:
            steps.execute(f"alter table api_keys drop constraint if exists api_keys_{name}_check")
        steps.execute(
            "alter table api_keys drop column if exists cap, drop column if exists cap_period,"
            " drop column if exists period, drop column if exists spent, drop column if exists held"
        )
        for name in reversed(_TABLES):
            steps.execute(f"drop table if exists {name}")
