"""Create the table of uploads"""

from app.migrations.online import online_steps

revision = "c58a2e7f4d16"
down_revision = "b83e5d1f9c04"
branch_labels = None
depends_on = None

_UPLOADS = """
create table if not exists uploads (
  id text collate "C" not null constraint uploads_pkey primary key,
  account_id text collate "C" not null constraint uploads_account_id_fkey references accounts,
  environment text not null,
  format text not null,
  width integer not null,
  height integer not null,
  bytes bigint not null,
  is_stored boolean not null default false,
  created_at timestamptz not null default now(),
  expires_at timestamptz not null,
  constraint uploads_environment_check check (environment in ('live', 'test')),
  constraint uploads_format_check check (format in ('png', 'jpeg', 'webp')),
  constraint uploads_size_check check (width > 0 and height > 0 and bytes > 0)
)
"""


def upgrade() -> None:
    with online_steps() as steps:
        steps.execute(_UPLOADS)
        steps.execute("create index if not exists uploads_of_account_idx on uploads (account_id, environment, id)")
        steps.execute("create index if not exists uploads_expires_at_idx on uploads (expires_at)")


def downgrade() -> None:
    with online_steps() as steps:  # the files stay: `nanobanana images verify --delete-orphans` deletes them
        steps.execute("drop table if exists uploads")
