"""Erase the prompt and the inputs of every generation whose image is deleted"""

from app.migrations.online import online_steps

revision = "b83e5d1f9c04"
down_revision = "a41f0c8d2e67"
branch_labels = None
depends_on = None

_AT_ONCE = 2000

_ERASE = """
create or replace function erase_generation() returns trigger language plpgsql as $$
begin
  new.prompt := '';
  new.inputs := null;
  return new;
end
$$
"""

_IS_ERASED = """
create or replace trigger generations_erase before update of deleted_at on generations
for each row when (new.deleted_at is not null) execute function erase_generation()
"""

# What was deleted before this migration.
_ERASE_ROWS = """
with batch as materialized (
  select id from generations where id > :after and deleted_at is not null and (prompt <> '' or inputs is not null)
  order by id limit :at_once for no key update
), erased as (
  update generations g set prompt = '', inputs = null from batch b where g.id = b.id
)
select max(id) from batch
"""


def upgrade() -> None:
    with online_steps() as steps:
        steps.execute(_ERASE)
        steps.execute_together(_IS_ERASED, lock=("generations",))
        steps.execute_in_batches(_ERASE_ROWS, at_once=_AT_ONCE)


def downgrade() -> None:
    with online_steps() as steps:
        steps.execute_together("drop trigger if exists generations_erase on generations", lock=("generations",))
        steps.execute("drop function if exists erase_generation()")
