"""The tables of an older install, as its platform made them before there was an operator."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, create_engine, make_url, text
from sqlalchemy.pool import NullPool

PLANTED = "correct-horse-battery-staple"
URL_TOKEN = "T0000-planted-token"
FOREIGN = b"gAAAAAB-somebody-elses-format"

IDS = {
    "text": ("VARCHAR(36)", [f"0000000{number}-aaaa-4bbb-8ccc-dddddddddddd" for number in range(1, 7)]),
    "uuid": ("UUID", [f"0000000{number}-aaaa-4bbb-8ccc-dddddddddddd" for number in range(1, 7)]),
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


def table(url: str, name: str = "data_connectors") -> str:
    return name if is_sqlite(url) else f"honeyframe.{name}"


def make_older_install(
    url: str,
    rows: Sequence[OlderRow] = ROWS,
    *,
    ids: str = "text",
    more: str = "",
    blob: str = "",
    key: str = "PRIMARY KEY",
) -> list[str]:
    """The platform's table with its rows; the ids of the rows."""
    sqlite = is_sqlite(url)
    type_, values = IDS[ids]
    if len(rows) > len(values):
        values = [str(number) for number in range(1, len(rows) + 1)]
    if sqlite:
        Path(str(make_url(url).database)).parent.mkdir(parents=True, exist_ok=True)
    with connected(url) as connection:
        if not sqlite:
            connection.execute(text("CREATE SCHEMA honeyframe"))
        json_type = "JSON" if sqlite else "JSONB"
        blob_type = blob or ("BLOB" if sqlite else "BYTEA")
        connection.execute(
            text(
                f"CREATE TABLE {table(url)} (id {type_} {key}, name VARCHAR(255) NOT NULL, type TEXT NOT NULL, "
                f"config {json_type}, connection_secrets_enc {blob_type}{more})"
            )
        )
        for row_id, row in zip(values, rows, strict=False):
            add_older_row(connection, url, row_id if ids != "number" else int(row_id), row)
    return list(values[: len(rows)])


def add_older_row(connection: Connection, url: str, row_id: Any, row: OlderRow) -> None:
    """As the platform inserts: it knows no column of ours."""
    config = json.dumps(row.config) if row.config is not None else None
    values = {"id": row_id, "name": row.name, "type": row.type, "config": config, **row.extra}
    if row.blob is not None:
        values["connection_secrets_enc"] = row.blob
    # Without a type of its own a parameter becomes what the column is.
    marks = ", ".join(
        f"CAST(:{key} AS JSONB)" if key == "config" and not is_sqlite(url) else f":{key}" for key in values
    )
    connection.execute(text(f"INSERT INTO {table(url)} ({', '.join(values)}) VALUES ({marks})"), values)


def older_columns(url: str) -> list[tuple[Any, ...]]:
    """What the platform wrote, as it now stands."""
    with connected(url) as connection:
        found = connection.execute(
            text(f"SELECT id, name, type, config, connection_secrets_enc FROM {table(url)} ORDER BY id")
        ).all()
    return [(str(each.id), each.name, each.type, _loaded(each.config), each.connection_secrets_enc) for each in found]


def _loaded(config: Any) -> Any:
    return json.loads(config) if isinstance(config, str) else config
