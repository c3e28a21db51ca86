"""Let requests have several pictures and a lease, and pictures a format and an end"""

import sqlalchemy as sa
from alembic import op

revision = "a7c95e2f6b18"
down_revision = "4be1d07a95c3"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("claims", sa.Column("other_ids", sa.ARRAY(sa.Text(collation="C")), nullable=True))
    op.add_column("claims", sa.Column("lease_until", sa.DateTime(timezone=True), nullable=True))
    op.add_column("generations", sa.Column("format", sa.Text, server_default="png", nullable=False))
    op.add_column("generations", sa.Column("deleted_at", sa.DateTime(timezone=True), nullable=True))
    op.create_check_constraint(op.f("generations_format_check"), "generations", "format in ('png', 'jpeg', 'webp')")
    op.create_index(
        "generations_undelivered_idx",
        "generations",
        ["id"],
        postgresql_where=sa.text("status <> 'delivered' and deleted_at is null"),
    )
    op.create_index(
        "generations_kept_idx",
        "generations",
        ["id"],
        postgresql_where=sa.text("provider <> 'stub' and deleted_at is null"),
    )


def downgrade() -> None:
    op.drop_index("generations_kept_idx", "generations")
    op.drop_index("generations_undelivered_idx", "generations")
    op.drop_column("generations", "deleted_at")
    op.drop_column("generations", "format")
    op.drop_column("claims", "lease_until")
    op.drop_column("claims", "other_ids")
