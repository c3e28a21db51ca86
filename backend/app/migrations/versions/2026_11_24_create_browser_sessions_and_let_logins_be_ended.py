"""Create sessions of browsers, and let all logins of an account be ended"""

import sqlalchemy as sa
from alembic import op

revision = "e3f6b80d417c"
down_revision = "a7c95e2f6b18"
branch_labels = None
depends_on = None

_time = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.add_column("users", sa.Column("token_generation", sa.BigInteger, server_default=sa.text("0"), nullable=False))
    op.create_table(
        "browser_sessions",
        sa.Column("token_hash", sa.LargeBinary, nullable=False),
        sa.Column("user_id", sa.Text(collation="C"), nullable=False),
        sa.Column("created_at", _time, server_default=sa.func.now(), nullable=False),
        sa.Column("expires_at", _time, nullable=False),
        sa.PrimaryKeyConstraint("token_hash", name="browser_sessions_pkey"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="browser_sessions_user_id_fkey"),
        sa.CheckConstraint("octet_length(token_hash) = 32", name=op.f("browser_sessions_token_hash_check")),
    )
    op.create_index("browser_sessions_user_id_idx", "browser_sessions", ["user_id"])


def downgrade() -> None:
    op.drop_table("browser_sessions")
    op.drop_column("users", "token_generation")
