"""Let keys and accounts have limits of their own"""

import sqlalchemy as sa
from alembic import op

revision = "4be1d07a95c3"
down_revision = "8c41f0a7d2be"
branch_labels = None
depends_on = None

_LIMIT = "~ '^[1-9][0-9]{0,6}/(second|minute|hour|day)$'"
_COUNT = "between 1 and 1000000"
_COLUMNS = [
    ("users", "generate_limit", sa.Text, _LIMIT),
    ("users", "generate_limit_per_key", sa.Text, _LIMIT),
    ("users", "generate_concurrency_per_key", sa.Integer, _COUNT),
    ("api_keys", "generate_limit", sa.Text, _LIMIT),
    ("api_keys", "generate_concurrency", sa.Integer, _COUNT),
]


def upgrade() -> None:
    for table, name, kind, allowed in _COLUMNS:
        op.add_column(table, sa.Column(name, kind, nullable=True))
        op.create_check_constraint(op.f(f"{table}_{name}_check"), table, f"{name} {allowed}")


def downgrade() -> None:
    for table, name, _kind, _allowed in reversed(_COLUMNS):
        op.drop_column(table, name)
