"""Create accounts apart from users, with balances, lanes and facts of the deployment"""

import sqlalchemy as sa
from alembic import op

revision = "1f6a3d9c0b57"
down_revision = "e3f6b80d417c"
branch_labels = None
depends_on = None

_id = sa.Text(collation="C")
_time = sa.DateTime(timezone=True)
_LIMIT = "~ '^[1-9][0-9]{0,6}/(second|minute|hour|day)$'"


def upgrade() -> None:
    _create_accounts()
    _create_balances()
    _create_lanes()
    op.create_table(
        "deployment",
        sa.Column("is_the_row", sa.Boolean, server_default=sa.true(), nullable=False),
        sa.Column("currency", sa.Text),
        sa.Column("generations_kept_from", sa.Date),
        sa.PrimaryKeyConstraint("is_the_row", name="deployment_pkey"),
        sa.CheckConstraint("is_the_row", name=op.f("deployment_is_the_row_check")),
        sa.CheckConstraint("currency ~ '^[A-Z]{3}$'", name=op.f("deployment_currency_check")),
    )
    op.execute("insert into deployment default values")


def _create_accounts() -> None:
    op.create_table(
        "accounts",
        sa.Column("id", _id, nullable=False),
        sa.Column("is_active", sa.Boolean, server_default=sa.true(), nullable=False),
        sa.Column("created_at", _time, server_default=sa.func.now(), nullable=False),
        sa.Column("generate_limit", sa.Text),
        sa.Column("generate_limit_per_key", sa.Text),
        sa.Column("generate_concurrency_per_key", sa.Integer),
        sa.PrimaryKeyConstraint("id", name="accounts_pkey"),
        sa.CheckConstraint(f"generate_limit {_LIMIT}", name=op.f("accounts_generate_limit_check")),
        sa.CheckConstraint(f"generate_limit_per_key {_LIMIT}", name=op.f("accounts_generate_limit_per_key_check")),
        sa.CheckConstraint(
            "generate_concurrency_per_key between 1 and 1000000",
            name=op.f("accounts_generate_concurrency_per_key_check"),
        ),
    )


def _create_balances() -> None:
    zero = sa.text("0")
    amounts = [sa.Column(name, sa.BigInteger, server_default=zero, nullable=False) for name in _AMOUNTS]
    op.create_table(
        "balances",
        sa.Column("account_id", _id, nullable=False),
        sa.Column("is_postpaid", sa.Boolean, server_default=sa.false(), nullable=False),
        *amounts,
        sa.Column("cap", sa.BigInteger),
        sa.Column("anchor", sa.Interval, server_default=sa.text("'0'"), nullable=False),
        sa.Column("period", _time, server_default=sa.text("'-infinity'"), nullable=False),
        sa.Column("spent", sa.BigInteger, server_default=zero, nullable=False),
        sa.PrimaryKeyConstraint("account_id", name="balances_pkey"),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="balances_account_id_fkey"),
        *(
            sa.CheckConstraint(f"{name} >= 0", name=op.f(f"balances_{name}_check"))
            for name in ("charged", "held", "allowance", "cap", "spent")
        ),
    )


_AMOUNTS = ("credit", "charged", "held", "allowance")


def _create_lanes() -> None:
    zero = sa.text("0")
    op.create_table(
        "lanes",
        sa.Column("account_id", _id, nullable=False),
        sa.Column("class", sa.Text, nullable=False),
        sa.Column("turn", sa.BigInteger, server_default=zero, nullable=False),
        sa.Column("waiting", sa.Integer, server_default=zero, nullable=False),
        sa.Column("running", sa.Integer, server_default=zero, nullable=False),
        sa.Column("most", sa.Integer),
        sa.PrimaryKeyConstraint("account_id", "class", name="lanes_pkey"),
        sa.ForeignKeyConstraint(["account_id"], ["accounts.id"], name="lanes_account_id_fkey"),
        sa.CheckConstraint("class in ('now', 'batch')", name=op.f("lanes_class_check")),
        *(
            sa.CheckConstraint(f"{name} >= 0", name=op.f(f"lanes_{name}_check"))
            for name in ("waiting", "running", "most")
        ),
        postgresql_with={"fillfactor": 50},
    )
    op.create_index("lanes_waiting_idx", "lanes", ["turn"], postgresql_where=sa.text("waiting > 0"))
    op.execute("create sequence turns")


def downgrade() -> None:
    op.execute("drop sequence turns")
    for table in ("deployment", "lanes", "balances", "accounts"):
        op.drop_table(table)
