"""The table that labels lie in, and how one of an earlier version gets its further columns.

A program of an earlier version goes on writing into the widened table: every further column has a value of its own accord.
"""

from typing import Any

import sqlalchemy as sa

from interp.labels.label import LONGEST, LONGEST_NAME, LONGEST_TAG, MOST_TAGS

_schema = sa.MetaData()
TABLE = sa.Table(
    "labels",
    _schema,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("sae", sa.String(64), nullable=False, index=True),
    sa.Column("feature", sa.Integer, nullable=False, index=True),
    sa.Column("text", sa.String(LONGEST), nullable=False),
    sa.Column("author", sa.String(LONGEST_NAME), nullable=False),
    sa.Column("note", sa.String(LONGEST), nullable=False),
    sa.Column("status", sa.String(20), nullable=False),
    sa.Column("created", sa.String(40), nullable=False),
    sa.Column("tags", sa.String(MOST_TAGS * (LONGEST_TAG + 1)), nullable=False, server_default=""),
    sa.Column("starred", sa.Boolean, nullable=False, server_default=sa.false()),
    sa.Column("method", sa.String(LONGEST_NAME), nullable=False, server_default=""),
    sa.Column("predicate", sa.String(LONGEST), nullable=False, server_default=""),
)
"""A row a revision, the newest last; tags stand side by side with spaces between them."""
LATER: dict[str, Any] = {"tags": "", "starred": False, "method": "", "predicate": ""}
"""Columns that a table of an earlier version has not, and what they hold for its rows."""
FIRST = frozenset(column.name for column in TABLE.columns if column.name not in LATER)
ALL = FIRST.union(LATER)


def columns_of(db: sa.Connection) -> frozenset[str]:
    """Names of the columns that the table has now; none when there is no table."""
    try:
        return frozenset(column["name"] for column in sa.inspect(db).get_columns(TABLE.name))
    except sa.exc.NoSuchTableError:
        return frozenset()


def making(present: frozenset[str], dialect: sa.Dialect) -> list[str]:
    """Statements that make the table with its indexes, or its further columns, where these columns are there already."""
    made: list[sa.schema.ExecutableDDLElement] = []
    if not present:
        made = [
            sa.schema.CreateTable(TABLE),
            *(sa.schema.CreateIndex(index) for index in sorted(TABLE.indexes, key=lambda index: str(index.name))),
        ]
    added = [sa.schema.CreateColumn(column) for column in TABLE.columns if present and column.name not in present]
    return [
        *(str(statement.compile(dialect=dialect)) for statement in made),
        *(f"ALTER TABLE {TABLE.name} ADD COLUMN {column.compile(dialect=dialect)}" for column in added),
    ]


def rows(present: frozenset[str]) -> sa.Select[Any]:
    """A query for all rows with every column, of a table that has these."""
    late = {name: sa.literal(value, TABLE.c[name].type).label(name) for name, value in LATER.items()}
    return sa.select(*(column if column.name in present else late[column.name] for column in TABLE.columns))
