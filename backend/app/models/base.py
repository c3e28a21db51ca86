"""What every table is made of: the base class, the names of constraints, and the column types that tables share."""

from sqlalchemy import (
    BigInteger,
    CheckConstraint,
    ColumnElement,
    Connection,
    DateTime,
    FromClause,
    MetaData,
    Text,
    event,
    func,
)
from sqlalchemy.orm import DeclarativeBase, InstrumentedAttribute

from app.core.limit_format import CONCURRENCY_MAX, LIMIT_PATTERN

TIME = DateTime(timezone=True)
ID = Text(collation="C")
"""Compared byte by byte: ids that begin with their time sort by it."""


class Base(DeclarativeBase):
    metadata = MetaData(
        naming_convention={
            "pk": "%(table_name)s_pkey",
            "fk": "%(table_name)s_%(column_0_name)s_fkey",
            "uq": "%(table_name)s_%(column_0_name)s_key",
            "ix": "%(table_name)s_%(column_0_N_name)s_idx",
            "ck": "%(table_name)s_%(constraint_name)s_check",
        }
    )


def total(column: InstrumentedAttribute[int]) -> ColumnElement[int]:
    """The sum of the column as an integer: PostgreSQL's own sum of one is `numeric`. Null where there are no rows."""
    return func.sum(column).cast(BigInteger)


def is_limit(column: str) -> str:
    """The condition of a column that holds a limit, such as `600/minute`."""
    return f"{column} ~ '^{LIMIT_PATTERN}$'"


def limit_checks() -> tuple[CheckConstraint, ...]:
    """The constraints of the three columns with which an account's limits are set."""
    return (
        CheckConstraint(is_limit("generate_limit"), name="generate_limit"),
        CheckConstraint(is_limit("generate_limit_per_key"), name="generate_limit_per_key"),
        CheckConstraint(
            f"generate_concurrency_per_key between 1 and {CONCURRENCY_MAX}", name="generate_concurrency_per_key"
        ),
    )


def after_create(target: FromClause | MetaData, *statements: str) -> None:
    """Has the statements executed after the table, or all tables, have been created from the models: for what they
    cannot say, such as triggers.
    """

    def execute(_target: object, connection: Connection, **_options: object) -> None:
        for statement in statements:
            connection.exec_driver_sql(statement)

    event.listen(target, "after_create", execute)
