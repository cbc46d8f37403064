"""A new, empty metadata store for a test: SQLite always, PostgreSQL where the run has one."""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from hack.postgres import PostgresServer
from honeyframe_connectors.store.database import Database
from honeyframe_connectors.vault.keyring import Keyring
from honeyframe_connectors.vault.rows import ConnectorRow, Owner
from honeyframe_connectors.vault.vault import Vault

PASSWORD = "store/p@ss word"
OWNER = Owner("cluster-1", "namespace-uid-1", "acme", "analytics")
TUNING = frozenset({"pool_size"})
CONFIG = {"host": "db.example.com", "port": 5432, "pool_size": 5}


def sqlite_url(directory: Path) -> str:
    return f"sqlite:///{directory}/store/honeyframe.db"


def postgresql_url(server: PostgresServer) -> str:
    name = f"store_{secrets.token_hex(6)}"
    server.psql(f"CREATE ROLE {name} LOGIN PASSWORD '{PASSWORD}'; CREATE DATABASE {name} OWNER {name}")
    return f"postgresql://{name}:store%2Fp%40ss%20word@127.0.0.1:{server.port}/{name}?sslmode=require"


@asynccontextmanager
async def opened(url: str, keyring: Keyring) -> AsyncIterator[tuple[Database, Vault]]:
    database = Database(url)
    vault = Vault(database, keyring)
    try:
        await vault.open()
        yield database, vault
    finally:
        await database.close()


async def make(vault: Vault, name: str = "warehouse", owner: Owner = OWNER, uid: str = "uid-1") -> ConnectorRow:
    return await vault.create(
        owner, name=name, display_name=name, type="postgresql", category="database", object_uid=uid
    )


async def accept(
    vault: Vault,
    row: ConnectorRow,
    secrets_: dict[str, bytes],
    config: dict[str, object] | None = None,
    *,
    ca: bytes | None = None,
    floor: int = 0,
) -> ConnectorRow:
    return await vault.commit(
        row,
        config=CONFIG if config is None else config,
        tuning=TUNING,
        secrets=secrets_,
        config_mac=vault.mac(row, "config", b"config"),
        secret_mac=vault.mac(row, "secret", b"secret"),
        secret_name="warehouse",
        ca=ca,
        test_status="passed",
        reason="first",
        version_floor=floor,
    )
