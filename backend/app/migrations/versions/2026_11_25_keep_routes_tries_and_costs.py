"""Keep each generation's tries and the provider's request id, and let a key use several models on a day"""

from app.migrations.online import online_steps

revision = "7c1e94d0a5b3"
down_revision = "e08b5d63f2a4"
branch_labels = None
depends_on = None

_ADD_COLUMNS = """
alter table generations
  add column if not exists tries integer,
  add column if not exists provider_request_id text
"""

# What an earlier version counted on conflict of; the version before this one counts by model too.
_ONE_MODEL_A_DAY = "usage_of_key_and_day_idx"

_HAS_SEVERAL_MODELS = "select exists (select from usage group by key_id, day having count(*) > 1)"


def upgrade() -> None:
    with online_steps() as steps:
        steps.execute(_ADD_COLUMNS)
        steps.execute_patiently(f"drop index concurrently if exists {_ONE_MODEL_A_DAY}")


def downgrade() -> None:
    with online_steps() as steps:
        # The version before needs the index for nothing. It is made where it can be, as that schema has it.
        if not steps.scalar(_HAS_SEVERAL_MODELS):
            steps.create_index(_ONE_MODEL_A_DAY, "usage (key_id, day)", unique=True)
        steps.execute("alter table generations drop column if exists tries, drop column if exists provider_request_id")
