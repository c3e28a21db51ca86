"""Partition generations by month, all rows so far in the first partition"""

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

from app.migrations.online import OnlineSteps, online_steps

revision = "e08b5d63f2a4"
down_revision = "c4a91f7e2d38"
branch_labels = None
depends_on = None

_ALPHABET = "0123456789abcdefghjkmnpqrstvwxyz"
_TIME_CHARACTERS = 10
_PREFIX = "gen_"
_MONTHS_AHEAD = 2
# A migration that ends halfway leaves the constraint on new ids behind: there is a week to run it again.
_MARGIN = timedelta(days=7)

_COLUMNS = (
    ("id", 'text collate "C"'),
    ("request_id", 'text collate "C"'),
    ("account_id", 'text collate "C"'),
    ("environment", "text"),
    ("key_id", 'text collate "C"'),
    ("kind", "text default 'generate'"),
    ("model", "text default 'nano-banana'"),
    ("route", "text null"),
    ("provider", "text"),
    ("prompt", "text"),
    ("size", "text"),
    ("quality", "text default 'auto'"),
    ("format", "text default 'png'"),
    ("inputs", "jsonb null"),
    ("art", "integer default 1"),
    ("status", "text"),
    ("class", "text default 'now'"),
    ("lease", "uuid null"),
    ("lease_until", "timestamptz null"),
    ("attempts", "integer default 0"),
    ("sent_at", "timestamptz null"),
    ("created_at", "timestamptz default now()"),
    ("delivered_at", "timestamptz null"),
    ("deleted_at", "timestamptz null"),
    ("error", "text null"),
    ("list_price", "bigint default 0"),
    ("price", "bigint default 0"),
    ("cost", "bigint null"),
)

_CHECKS = {
    "environment": "environment in ('live', 'test')",
    "kind": "kind in ('generate', 'edit')",
    "format": "format in ('png', 'jpeg', 'webp')",
    "class": "class in ('now', 'batch')",
    "status": "status in ('queued', 'processing', 'delivered', 'failed', 'lost', 'cancelled')",
    "delivered_at": "(status = 'delivered') = (delivered_at is not null)",
    "attempts": "attempts >= 0",
    "list_price": "list_price >= 0",
    "price": "price >= 0",
}

_INDEXES = {
    "generations_of_account_idx": "(account_id, environment, id)",
    "generations_undelivered_idx": "(id) where status <> 'delivered' and deleted_at is null",
    "generations_kept_idx": "(id) where provider <> 'stub' and deleted_at is null",
    "generations_leased_idx": "(lease_until) where lease_until is not null",
}
# By this one the version before lists. New partitions have none.
_ALL_INDEXES = ("generations_pkey", "generations_of_key_idx", *_INDEXES)

_TRIGGERS = (
    """
    create trigger generations_fill before insert on generations
    for each row when (
      new.account_id is null or new.environment is null or new.request_id is null
      or new.status = 'processing' and new.lease_until is null
    ) execute function fill_generation()
    """,
    """
    create trigger generations_end_lease before update of status on generations
    for each row when (new.lease_until is not null and new.status not in ('queued', 'processing'))
    execute function end_lease_of_generation()
    """,
)
_DROP_TRIGGERS = (
    "drop trigger if exists generations_fill on generations",
    "drop trigger if exists generations_end_lease on generations",
)

_IS_PARTITIONED = "select relkind = 'p' from pg_class where oid = 'generations'::regclass"
_BOUND = """
select pg_get_constraintdef(oid) from pg_constraint
where conrelid = 'generations'::regclass and conname = 'generations_bound'
"""
_FIRST_PARTITION = """
select c.relname from pg_inherits i join pg_class c on c.oid = i.inhrelid
where i.inhparent = 'generations'::regclass and pg_get_expr(c.relpartbound, c.oid) like 'FOR VALUES FROM (MINVALUE)%'
"""

_COPY = "insert into {first} ({columns}) select {columns} from generations"


def upgrade() -> None:
    with online_steps() as steps:
        if not steps.scalar(_IS_PARTITIONED):
            now = steps.scalar("select now()")
            bound = _choose_bound(now, steps.scalar("select max(id) from generations"))
            _prove_bound(steps, bound)
            steps.execute_together(*_partition(bound, now), lock=("generations",))
        steps.execute_patiently("analyze generations")


def _choose_bound(now: datetime, last_id: str | None) -> datetime:
    """The begin of the first month that is more than the margin away, and behind every id there is."""
    bound = _next_month(now + _MARGIN)
    while last_id is not None and _id_from(bound) <= last_id:
        bound = _next_month(bound)
    return bound


def _prove_bound(steps: OnlineSteps, bound: datetime) -> None:
    """The constraint by which the table can be attached as it is, without being read then."""
    check = f"check (id < '{_id_from(bound)}')"
    there = steps.scalar(_BOUND)
    if there is not None and _id_from(bound) not in there:
        # An earlier run chose another month.
        steps.execute("alter table generations drop constraint generations_bound")
        there = None
    if there is None:
        steps.execute(f"alter table generations add constraint generations_bound {check} not valid")
    steps.execute_patiently("alter table generations validate constraint generations_bound")


def _partition(bound: datetime, now: datetime) -> Sequence[str]:
    """The table becomes the first partition of a new one of the same name. Nothing is read or copied."""
    first = f"generations_before_{bound:%Y_%m}"
    columns = [f"{name} {kind}" if kind.endswith(" null") else _not_null(name, kind) for name, kind in _COLUMNS]
    checks = [f"constraint generations_{name}_check check ({condition})" for name, condition in _CHECKS.items()]
    body = ", ".join([*columns, "constraint generations_pkey primary key (id)", *checks])
    return [
        *_DROP_TRIGGERS,
        f"alter table generations rename to {first}",
        *(f"alter index if exists {name} rename to {_of_partition(name, first)}" for name in _ALL_INDEXES),
        f"create table generations ({body}) partition by range (id)",
        *(f"create index {name} on generations {on}" for name, on in _INDEXES.items()),
        f"alter table generations attach partition {first} for values from (minvalue) to ('{_id_from(bound)}')",
        f"alter table {first} drop constraint generations_bound",
        "create table generations_default partition of generations default",
        *(_month(begin) for begin in _months(bound, now)),
        *_TRIGGERS,
    ]


def _not_null(name: str, kind: str) -> str:
    # Named as PostgreSQL would name it, were there not the first partition's constraint of that name.
    return f"{name} {kind} constraint generations_{name}_not_null not null"


def _months(bound: datetime, now: datetime) -> Sequence[datetime]:
    """The begins of this month and of the next ones, as far as the first partition does not hold them."""
    begins = [now.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)]
    for _ in range(_MONTHS_AHEAD):
        begins.append(_next_month(begins[-1]))
    return [begin for begin in begins if begin >= bound]


def _month(begin: datetime) -> str:
    bounds = f"from ('{_id_from(begin)}') to ('{_id_from(_next_month(begin))}')"
    return f"create table generations_{begin:%Y_%m} partition of generations for values {bounds}"


def _next_month(at: datetime) -> datetime:
    """The begin of the month after this time, in UTC."""
    begin = at.astimezone(UTC).replace(day=1, hour=0, minute=0, second=0, microsecond=0)
    return (begin + timedelta(days=32)).replace(day=1)


def _id_from(begin: datetime) -> str:
    """What sorts before every id that is made at this time or later, and behind every earlier one."""
    milliseconds = int(begin.timestamp() * 1000)
    shifts = range(5 * (_TIME_CHARACTERS - 1), -1, -5)
    return _PREFIX + "".join(_ALPHABET[milliseconds >> shift & 31] for shift in shifts)


def _of_partition(index: str, partition: str) -> str:
    return index.replace("generations", partition, 1)


def downgrade() -> None:
    with online_steps() as steps:
        if steps.scalar(_IS_PARTITIONED):
            first = steps.scalar(_FIRST_PARTITION)
            if first is None:
                raise RuntimeError("The first partition of generations is gone: there is no way back without it.")
            steps.execute_together(*_unite(first), lock=("generations",))
        steps.execute_patiently("analyze generations")


def _unite(first: str) -> Sequence[str]:
    """The first partition becomes the table again. The rows of all others are copied into it first."""
    names = ", ".join(name for name, _ in _COLUMNS)
    return [
        f"alter table generations detach partition {first}",
        _COPY.format(first=first, columns=names),
        "drop table generations",
        f"alter table {first} rename to generations",
        *(f"alter index if exists {_of_partition(name, first)} rename to {name}" for name in _ALL_INDEXES),
        *_TRIGGERS,
    ]
