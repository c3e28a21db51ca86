"""Create accounts, keys, generations and usage"""

import sqlalchemy as sa
from alembic import op

revision = "d5baf69cc961"
down_revision = None
branch_labels = None
depends_on = None

_id = sa.Text(collation="C")
_time = sa.DateTime(timezone=True)


def upgrade() -> None:
    op.create_table(
        "users",
        sa.Column("id", _id, nullable=False),
        sa.Column("email", sa.Text, nullable=False),
        sa.Column("password_hash", sa.Text, nullable=False),
        sa.Column("is_active", sa.Boolean, server_default=sa.true(), nullable=False),
        sa.Column("created_at", _time, server_default=sa.func.now(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="users_pkey"),
        sa.UniqueConstraint("email", name="users_email_key"),
        sa.CheckConstraint("email = lower(email)", name=op.f("users_email_check")),
    )
    op.create_table(
        "api_keys",
        sa.Column("id", _id, nullable=False),
        sa.Column("user_id", _id, nullable=False),
        sa.Column("name", sa.Text, nullable=False),
        sa.Column("environment", sa.Text, nullable=False),
        sa.Column("prefix", sa.Text, nullable=False),
        sa.Column("key_hash", sa.LargeBinary, nullable=False),
        sa.Column("created_at", _time, server_default=sa.func.now(), nullable=False),
        sa.Column("last_used_at", _time),
        sa.Column("revoked_at", _time),
        sa.Column("is_suspended", sa.Boolean, server_default=sa.false(), nullable=False),
        sa.PrimaryKeyConstraint("id", name="api_keys_pkey"),
        sa.ForeignKeyConstraint(["user_id"], ["users.id"], name="api_keys_user_id_fkey"),
        sa.UniqueConstraint("key_hash", name="api_keys_key_hash_key"),
        sa.CheckConstraint("environment in ('live', 'test')", name=op.f("api_keys_environment_check")),
        sa.CheckConstraint("octet_length(key_hash) = 32", name=op.f("api_keys_key_hash_check")),
    )
    op.create_index("api_keys_of_user_idx", "api_keys", ["user_id", "created_at", "id"])
    op.create_table(
        "generations",
        sa.Column("id", _id, nullable=False),
        sa.Column("key_id", _id, nullable=False),
        sa.Column("prompt", sa.Text, nullable=False),
        sa.Column("size", sa.Text, nullable=False),
        sa.Column("provider", sa.Text, nullable=False),
        sa.Column("status", sa.Text, nullable=False),
        sa.Column("created_at", _time, server_default=sa.func.now(), nullable=False),
        sa.Column("delivered_at", _time),
        sa.PrimaryKeyConstraint("id", name="generations_pkey"),
        sa.ForeignKeyConstraint(["key_id"], ["api_keys.id"], name="generations_key_id_fkey"),
        sa.CheckConstraint(
            "status in ('processing', 'delivered', 'failed', 'lost')", name=op.f("generations_status_check")
        ),
        sa.CheckConstraint(
            "(status = 'delivered') = (delivered_at is not null)", name=op.f("generations_delivered_at_check")
        ),
    )
    op.create_table(
        "usage",
        sa.Column("key_id", _id, nullable=False),
        sa.Column("day", sa.Date, nullable=False),
        sa.Column("pictures", sa.BigInteger, nullable=False),
        sa.PrimaryKeyConstraint("key_id", "day", name="usage_pkey"),
        sa.ForeignKeyConstraint(["key_id"], ["api_keys.id"], name="usage_key_id_fkey"),
        sa.CheckConstraint("pictures >= 0", name=op.f("usage_pictures_check")),
    )


def downgrade() -> None:
    op.drop_table("usage")
    op.drop_table("generations")
    op.drop_table("api_keys")
    op.drop_table("users")
