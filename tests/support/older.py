"""The tables of an older install, as its platform made them before there was an operator."""

import json
import secrets
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, MetaData, create_engine, make_url, select, text
from sqlalchemy.pool import NullPool

from honeyframe_connectors.registry import default_registry
from honeyframe_connectors.store.database import Database
from honeyframe_connectors.vault.keyring import Keyring
from honeyframe_connectors.vault.vault import Vault

PLANTED = "correct-horse-battery-staple"
URL_TOKEN = "T0000-planted-token"
SECRET = secrets.token_hex(32).encode()
REGISTRY = default_registry()
FOREIGN = b"gAAAAAB-somebody-elses-format"

IDS = {
    "text": ("VARCHAR(36)", [f"0000000{number}-aaaa-4bbb-8ccc-dddddddddddd" for number in range(1, 7)]),
    "uuid": ("UUID", [f"0000000{number}-aaaa-4bbb-8ccc-dddddddddddd" for number in range(1, 7)]),
    "serial": ("SERIAL", [str(number) for number in range(1, 7)]),
    "number": ("INTEGER", [str(number) for number in range(1, 7)]),
}


@dataclass(frozen=True)
class OlderRow:
    name: str
    type: str
    config: dict[str, Any] | None
    blob: bytes | None = None
    extra: dict[str, Any] = field(default_factory=dict)


POSTGRESQL_CONFIG = {
    "host": "db.example.com",
    "port": 5432,
    "database": "analytics",
    "username": "honeyframe_ro",
    "password": PLANTED,
    "sslmode": "require",
    "pool_size": 10,
}
ROWS = (
    OlderRow("Production Postgres", "rds", POSTGRESQL_CONFIG),
    OlderRow("alerts", "webhook", {"url": f"https://hooks.example.com/{URL_TOKEN}", "bearer_token": PLANTED}),
    OlderRow("sap", "netweaver", {"host": "sap.example.com", "password": PLANTED}),
    OlderRow("sealed-elsewhere", "postgresql", {"host": "db.example.com", "database": "a", "username": "b"}, FOREIGN),
    OlderRow("trusting", "postgresql", {"host": "db.example.com", "database": "a", "username": "b"}),
)


@contextmanager
def connected(url: str) -> Iterator[Connection]:
    """A connection beside the program's own; what is done in it is kept."""
    parsed = make_url(url)
    if parsed.get_backend_name() == "postgresql":
        parsed = parsed.set(drivername="postgresql+psycopg")
    engine = create_engine(parsed, poolclass=NullPool)
    with engine.begin() as connection:
        yield connection
    engine.dispose()


def is_sqlite(url: str) -> bool:
    return url.startswith("sqlite")


def sql(url: str, statement: str, values: Mapping[str, Any] | None = None) -> list[Any]:
    """Run a statement, written as for PostgreSQL, and give the rows that it yields."""
    with connected(url) as connection:
        result = connection.execute(text(local(url, statement)), values or {})
        return list(result.all()) if result.returns_rows else []


def local(url: str, statement: str) -> str:
    """SQLite has no schemas, counts by itself, and keeps JSON as text."""
    if not is_sqlite(url):
        return statement
    for theirs, ours in (("honeyframe.", ""), ("SERIAL", "INTEGER"), ("JSONB", "JSON"), ("BYTEA", "BLOB")):
        statement = statement.replace(theirs, ours)
    return statement.replace("CAST(:config AS JSON)", ":config").replace("CAST(:value AS JSON)", ":value")


def make_older_install(
    url: str, rows: Sequence[OlderRow] = ROWS, *, ids: str = "text", more: str = "", blob: str = "BYTEA"
) -> list[str]:
    """The platform's table with its rows; the ids of the rows."""
    if is_sqlite(url):
        Path(str(make_url(url).database)).parent.mkdir(parents=True, exist_ok=True)
    else:
        sql(url, "CREATE SCHEMA honeyframe")
    type_, values = IDS[ids]
    columns = "name VARCHAR(255) NOT NULL, type TEXT NOT NULL, config JSONB, connection_secrets_enc"
    sql(url, f"CREATE TABLE honeyframe.data_connectors (id {type_} PRIMARY KEY, {columns} {blob}{more})")
    made = values if len(rows) <= len(values) else [str(number) for number in range(1, len(rows) + 1)]
    for row_id, row in zip(made, rows, strict=False):
        add_older_row(url, row_id if ids in ("text", "uuid") else int(row_id), row)
    return list(made[: len(rows)])


def add_older_row(url: str, row_id: Any, row: OlderRow) -> None:
    """As the platform inserts: it knows no column of ours."""
    config = json.dumps(row.config) if row.config is not None else None
    values = {"id": row_id, "name": row.name, "type": row.type, "config": config, **row.extra}
    if row.blob is not None:
        values["connection_secrets_enc"] = row.blob
    marks = ", ".join("CAST(:config AS JSONB)" if key == "config" else f":{key}" for key in values)
    sql(url, f"INSERT INTO honeyframe.data_connectors ({', '.join(values)}) VALUES ({marks})", values)  # noqa: S608 - names of columns


def older_columns(url: str) -> list[tuple[Any, ...]]:
    """What the platform wrote, as it now stands."""
    found = sql(
        url, "SELECT id, name, type, config, connection_secrets_enc FROM honeyframe.data_connectors ORDER BY id"
    )
    return [(str(each.id), each.name, each.type, _loaded(each.config), each.connection_secrets_enc) for each in found]


def _loaded(config: Any) -> Any:
    return json.loads(config) if isinstance(config, str) else config


@asynccontextmanager
async def store(url: str, secret: bytes = SECRET) -> AsyncIterator[tuple[Database, Vault]]:
    database = Database(url)
    try:
        yield database, Vault(database, Keyring(secret))
    finally:
        await database.close()


def dump(url: str) -> list[Any]:
    """Everything that stands in the store: each table, its columns and rows."""
    schema = None if is_sqlite(url) else "honeyframe"
    with connected(url) as connection:
        tables = MetaData()
        tables.reflect(connection, schema=schema)
        return [
            (name, table.c.keys(), sorted(map(repr, connection.execute(select(table)))))
            for name, table in sorted(tables.tables.items())
        ]
