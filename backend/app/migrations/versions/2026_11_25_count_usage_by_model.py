"""Count usage by model, and sum up what it cost"""

from app.migrations.online import online_steps

revision = "9d27e1b40a6c"
down_revision = "5b0e7c24d8f1"
branch_labels = None
depends_on = None

_KEYS_AT_ONCE = 300

_ADD_COLUMNS = """
alter table usage
  add column if not exists model text not null default 'nano-banana',
  add column if not exists list_amount bigint not null default 0,
  add column if not exists amount bigint not null default 0,
  add column if not exists cost bigint not null default 0
"""

# The version before counts on conflict of (key_id, day): at every moment one of two unique indexes has these columns.
_COUNT_BY_MODEL = """
alter table usage drop constraint usage_pkey, add constraint usage_pkey primary key using index usage_of_model_idx
"""

_COUNT_BY_DAY = """
alter table usage drop constraint usage_pkey, add constraint usage_pkey primary key using index usage_of_key_and_day_idx
"""

_PRIMARY_KEY = "select pg_get_constraintdef(oid) from pg_constraint where conname = 'usage_pkey'"
_BY_MODEL = "PRIMARY KEY (key_id, day, model)"

# One row of each key and day takes the other models' in, under the key's lock, as the ledger writes it.
_MERGE_MODELS = """
with several as (
  select key_id from usage where key_id > :after group by key_id, day having count(*) > 1
), batch as materialized (
  select id from api_keys where id in (select key_id from several order by key_id limit :at_once)
  order by id for no key update
), removed as (
  delete from usage u using batch b
  where u.key_id = b.id and exists (
    select from usage o where o.key_id = u.key_id and o.day = u.day and o.model < u.model
  ) returning u.key_id, u.day, u.pictures
), sums as (
  select key_id, day, sum(pictures) as pictures from removed group by 1, 2
), merged as (
  update usage u set pictures = u.pictures + s.pictures from sums s
  where u.key_id = s.key_id and u.day = s.day and not exists (
    select from usage o where o.key_id = u.key_id and o.day = u.day and o.model < u.model
  )
)
select max(id) from batch
"""


def upgrade() -> None:
    with online_steps() as steps:
        steps.execute(_ADD_COLUMNS)
        if steps.scalar(_PRIMARY_KEY) != _BY_MODEL:
            steps.create_index("usage_of_key_and_day_idx", "usage (key_id, day)", unique=True)
            steps.create_index("usage_of_model_idx", "usage (key_id, day, model)", unique=True)
            steps.execute(_COUNT_BY_MODEL)


def downgrade() -> None:
    with online_steps() as steps:
        if steps.scalar(_PRIMARY_KEY) == _BY_MODEL:
            steps.execute_in_batches(_MERGE_MODELS, at_once=_KEYS_AT_ONCE)
            steps.create_index("usage_of_key_and_day_idx", "usage (key_id, day)", unique=True)
            steps.execute(_COUNT_BY_DAY)
        steps.execute(
            "alter table usage drop column if exists model, drop column if exists list_amount,"
            " drop column if exists amount, drop column if exists cost"
        )
