"""Let generations wait: when they expire, what else was asked for, and lanes with weights and keys"""

from app.migrations.online import online_steps

revision = "d61f0b9c28e7"
down_revision = "c58a2e7f4d16"
branch_labels = None
depends_on = None

_LANE_KEYS = """
create table if not exists lane_keys (
  key_id text collate "C" not null,
  class text not null,
  account_id text collate "C" not null,
  waiting integer not null default 0,
  running integer not null default 0,
  constraint lane_keys_pkey primary key (key_id, class),
  constraint lane_keys_account_id_fkey foreign key (account_id) references accounts,
  constraint lane_keys_class_check check (class in ('now', 'batch')),
  constraint lane_keys_waiting_check check (waiting >= 0),
  constraint lane_keys_running_check check (running >= 0)
) with (fillfactor = 50)
"""

_ADD_TO_GENERATIONS = """
alter table generations
  add column if not exists expires_at timestamptz,
  add column if not exists options jsonb
"""

_INDEXES = {
    "queued": ("key_id, class, id", "status = 'queued'"),
    "unfinished": ("account_id, id", "lease_until is not null"),
}


def upgrade() -> None:
    with online_steps() as steps:
        steps.execute(_ADD_TO_GENERATIONS)
        for name, (columns, condition) in _INDEXES.items():
            on, suffix = f"({columns}) where {condition}", f"{columns.replace(', ', '_')}_idx"
            steps.create_index_of_generations(f"generations_{name}_idx", on, suffix=suffix)
        steps.execute("alter table lanes add column if not exists weight integer not null default 1")
        if not steps.has_constraint("lanes", "lanes_weight_check"):
            steps.execute("alter table lanes add constraint lanes_weight_check check (weight between 1 and 1000)")
        steps.execute("drop index if exists lanes_waiting_idx")  # no row has ever been in it
        steps.execute("create index lanes_waiting_idx on lanes (class, turn) where waiting > 0")
        steps.execute(_LANE_KEYS)
        steps.execute("create index if not exists lane_keys_waiting_idx on lane_keys (account_id, class)")


def downgrade() -> None:
    with online_steps() as steps:
        steps.execute("drop table if exists lane_keys")
        steps.execute("drop index if exists lanes_waiting_idx")
        steps.execute("create index lanes_waiting_idx on lanes (turn) where waiting > 0")
        steps.execute("alter table lanes drop column if exists weight")
        for name in _INDEXES:
            steps.execute(f"drop index if exists generations_{name}_idx")
        steps.execute("alter table generations drop column if exists expires_at, drop column if exists options")
