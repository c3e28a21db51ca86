"""Create claims of idempotency keys, and index the generations of a key"""

import sqlalchemy as sa
from alembic import op

revision = "8c41f0a7d2be"
down_revision = "d5baf69cc961"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "claims",
        sa.Column("scope", sa.LargeBinary, nullable=False),
        sa.Column("fingerprint", sa.LargeBinary, nullable=False),
        sa.Column("generation_id", sa.Text(collation="C"), nullable=False),
        sa.Column("created_at", sa.DateTime(timezone=True), server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("scope", name="claims_pkey"),
        sa.CheckConstraint("octet_length(scope) = 32", name=op.f("claims_scope_check")),
        sa.CheckConstraint("octet_length(fingerprint) = 32", name=op.f("claims_fingerprint_check")),
    )
    op.create_index("claims_created_at_idx", "claims", ["created_at"])
    op.create_index("generations_of_key_idx", "generations", ["key_id", "id"])


def downgrade() -> None:
    op.drop_index("generations_of_key_idx", "generations")
    op.drop_table("claims")
