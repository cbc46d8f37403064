"""How a migration meets a table that the platform made before us (docs/decisions/0012).

What is missing is added; what is there is neither changed nor renamed. The platform goes on writing its rows as it
did: each added column has a default, and a column of its own that it always fills may be left out by us.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import sqlalchemy as sa
from alembic import op
from sqlalchemy.sql.schema import SchemaItem

from honeyframe_connectors.errors import Reason, Waiting

SCHEMA: Final = "honeyframe"
_KINDS: Final = (sa.String, sa.Integer, sa.Boolean, sa.DateTime, sa.JSON)


@dataclass(frozen=True, slots=True)
class Fill:
    """What the platform's rows get in a column that its table lacks."""

    constant: str
    """An SQL literal; the column's default, unless PostgreSQL has `expression`."""
    expression: str | None = None
    """On PostgreSQL, for the rows that are there and those that the platform will write."""
    sqlite: str | None = None
    """On SQLite, whose ALTER TABLE takes constants only, for the rows that are there."""
    copies: tuple[str, ...] = ()
    """Columns of the platform's that say it: the first that is there, now and whenever it writes a row."""


NOW: Final = Fill("'1970-01-01 00:00:00.000000'", "now()", "strftime('%Y-%m-%d %H:%M:%f', 'now')")
RANDOM: Final = Fill("'0'", "md5(random()::text || clock_timestamp()::text)", "lower(hex(randomblob(16)))")


def make_table(
    name: str,
    *items: SchemaItem,
    key: Sequence[str],
    fills: Mapping[str, Fill],
    required: Sequence[str] = (),
    generated: Sequence[str] = (),
) -> None:
    """Create a table, or add what the platform's lacks of it.

    Args:
        name: the table's
        items: its columns and constraints, as of `op.create_table`
        key: the columns of its primary key; none: the caller sees to it
        fills: for each column that may not be NULL and that the platform may lack
        required: columns that only the platform can fill
        generated: columns that the database fills for us

    Raises:
        Waiting: `VaultUnavailable`, a table of this name is there that cannot be shared.
    """
    found = existing(name)
    if found is None:
        op.create_table(name, *items, schema=SCHEMA)
        return
    lacking = [each for each in required if each not in found]
    if lacking:
        raise _cannot(name, f"it has no column {lacking[0]}")
    columns = {item.name: item for item in items if isinstance(item, sa.Column)}
    added = [column for column in columns.values() if column.name not in found]
    for column in columns.values():
        if column in added:
            _add(name, column, fills.get(column.name), found)
        else:
            _judge(name, column, found[column.name])
    unwritten = [column for each, column in found.items() if each not in columns or each in generated]
    schema = schema_of(op.get_bind())
    their_key = sa.inspect(op.get_bind()).get_pk_constraint(name, schema)["constrained_columns"]
    _let_be_null(name, unwritten, their_key)
    for column in added:
        if column.name in fills:
            _follow(name, column.name, fills[column.name], found)
    if key and set(their_key) != set(key):
        make_index(f"uq_{name}_key", name, list(key), unique=True)


def make_index(name: str, table: str, columns: list[str], *, unique: bool = False, where: str | None = None) -> None:
    """Create an index, if there is none of its name.

    Raises:
        Waiting: `VaultUnavailable`, rows of the platform are not unique.
    """
    schema = schema_of(op.get_bind())
    if name in {index["name"] for index in sa.inspect(op.get_bind()).get_indexes(table, schema)}:
        return
    if unique:
        _be_unique(table, columns, where or "true")
    condition = sa.text(where) if where else None
    op.create_index(
        name, table, columns, unique=unique, schema=schema, sqlite_where=condition, postgresql_where=condition
    )


def number_versions() -> None:
    """Give the platform's own history numbers, so that none is used again. What it sealed does not open here."""
    history, connectors = _qualified("connector_secret_history"), _qualified("data_connectors")
    place = "rowid" if schema_of(op.get_bind()) is None else "ctid"
    op.execute(
        f"UPDATE {history} SET version = numbered.number FROM (SELECT {place} AS place, row_number() OVER "  # noqa: S608 - names of tables
        f"(PARTITION BY connector_id ORDER BY created_at, {place}) AS number FROM {history}) AS numbered "
        f"WHERE {history}.{place} = numbered.place"
    )
    op.execute(
        f"UPDATE {connectors} SET last_version = "  # noqa: S608 - names of tables
        f"(SELECT coalesce(max(version), 0) FROM {history} WHERE connector_id = {connectors}.id)"
    )
    make_index("uq_connector_secret_history_key", "connector_secret_history", ["connector_id", "version"], unique=True)


def existing(table: str) -> dict[str, Any] | None:
    """The columns of a table that is there, by name."""
    inspector, schema = sa.inspect(op.get_bind()), schema_of(op.get_bind())
    if not inspector.has_table(table, schema):
        return None
    return {column["name"]: column for column in inspector.get_columns(table, schema)}


def id_type() -> Any:
    """The type of a connector's id here: what names one has to have the same."""
    found = existing("data_connectors")
    return found["id"]["type"] if found is not None else sa.String(36)


def schema_of(connection: sa.Connection) -> str | None:
    """SQLite has none, and Alembic's ALTER TABLE does not go through the translation that takes it away."""
    return None if connection.dialect.name == "sqlite" else SCHEMA


def _add(table: str, column: "sa.Column[Any]", fill: Fill | None, found: Mapping[str, Any]) -> None:
    schema = schema_of(op.get_bind())
    if fill is None:
        op.add_column(table, column, schema=schema)
        return
    default = fill.expression if schema and fill.expression else fill.constant
    op.add_column(
        table, sa.Column(column.name, column.type, nullable=False, server_default=sa.text(default)), schema=schema
    )
    source = _source(fill, found)
    if source is not None:
        value, where = f"CAST({source} AS VARCHAR)", f"{source} IS NOT NULL"
    elif fill.sqlite is not None and not schema:
        value, where = fill.sqlite, "true"
    else:
        return
    op.execute(f"UPDATE {_qualified(table)} SET {column.name} = {value} WHERE {where}")  # noqa: S608 - names of tables


def _source(fill: Fill, found: Mapping[str, Any]) -> str | None:
    source = next((each for each in fill.copies if each in found), None)
    return op.get_bind().dialect.identifier_preparer.quote(source) if source is not None else None


def _follow(table: str, column: str, fill: Fill, found: Mapping[str, Any]) -> None:
    """What the platform writes later is filled as what was there: under the default, names of two orgs would meet."""
    source = _source(fill, found)
    if source is None:
        return
    trigger, where = f"{table}_{column}", f"NEW.{column} = {fill.constant} AND NEW.{source} IS NOT NULL"
    value = f"CAST(NEW.{source} AS VARCHAR)"
    if schema_of(op.get_bind()) is None:
        op.execute(
            f"CREATE TRIGGER {trigger} AFTER INSERT ON {table} WHEN {where} BEGIN "  # noqa: S608 - names of tables
            f"UPDATE {table} SET {column} = {value} WHERE rowid = NEW.rowid; END"
        )
        return
    op.execute(
        f"CREATE FUNCTION {SCHEMA}.{trigger}() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN "
        f"IF {where} THEN NEW.{column} := {value}; END IF; RETURN NEW; END $$"
    )
    op.execute(
        f"CREATE TRIGGER {trigger} BEFORE INSERT ON {SCHEMA}.{table} FOR EACH ROW EXECUTE FUNCTION {SCHEMA}.{trigger}()"
    )


def _judge(table: str, column: "sa.Column[Any]", found: Mapping[str, Any]) -> None:
    """Whether what we write fits into a column of the platform's; SQLite's columns take anything."""
    theirs = found["type"]
    if op.get_bind().dialect.name == "sqlite":
        return
    kinds: tuple[type[Any], ...] = tuple(kind for kind in _KINDS if isinstance(column.type, kind))
    if column.name in ("id", "connector_id"):
        kinds = (sa.String, sa.Uuid, sa.Integer)
    elif isinstance(column.type, sa.LargeBinary):
        kinds = (sa.LargeBinary, sa.String)
    if not isinstance(theirs, kinds) or isinstance(theirs, sa.Enum):
        raise _cannot(table, f"its column {column.name} is of type {theirs} and not {column.type}")


def _let_be_null(table: str, theirs: Sequence[Mapping[str, Any]], key: Sequence[str]) -> None:
    """Columns that we never write."""
    schema = schema_of(op.get_bind())
    strict = [each for each in theirs if not each["nullable"] and each["default"] is None and "identity" not in each]
    for each in strict:
        if each["name"] in key and schema:  # SQLite numbers its rows by itself
            raise _cannot(table, f"its key {each['name']} has no default")
    relaxed = [each for each in strict if each["name"] not in key]
    if relaxed:
        with op.batch_alter_table(table, schema=schema) as batch:
            for each in relaxed:
                batch.alter_column(each["name"], existing_type=each["type"], nullable=True)


def _be_unique(table: str, columns: Sequence[str], where: str) -> None:
    listed = ", ".join(columns)
    twice = op.get_bind().exec_driver_sql(
        f"SELECT {listed} FROM {_qualified(table)} WHERE {where} "  # noqa: S608 - names of tables and columns
        f"GROUP BY {listed} HAVING count(*) > 1 ORDER BY {listed} LIMIT 1"
    )
    for row in twice:
        shown = ", ".join(f"{column} {value!r}" for column, value in zip(columns, row, strict=True))
        raise _cannot(table, f"more than one row has {shown}", "rename all but one of them in the platform")


def _qualified(table: str) -> str:
    schema = schema_of(op.get_bind())
    return f"{schema}.{table}" if schema else table


def _cannot(table: str, why: str, mend: str = "give the operator a database of its own with --database") -> Waiting:
    return Waiting(
        Reason.VAULT_UNAVAILABLE,
        f"the metadata store's table {table} is the platform's and cannot be shared: {why}; {mend}",
    )
