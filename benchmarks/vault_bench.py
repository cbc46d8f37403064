"""What the vault's administration costs, on SQLite and on a PostgreSQL that syncs its log to the disk.

A measurement is a function in `MEASUREMENTS`: it gets an empty store and how much is measured, and returns its figures
with those of a reference of the same run; `GOALS` says which figures have a goal.
"""

import asyncio
import os
import secrets
import statistics
import tempfile
import time
from collections.abc import Awaitable, Callable, Coroutine, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sqlalchemy import Connection, bindparam, select, update

from benchmarks import usage_bench
from hack.postgres import PostgresServer
from honeyframe_connectors.store.database import Database
from honeyframe_connectors.store.tables import data_connectors
from honeyframe_connectors.vault.keyring import Keyring
from honeyframe_connectors.vault.rewrap import BATCH, rewrap
from honeyframe_connectors.vault.rows import Owner
from honeyframe_connectors.vault.vault import Vault

_AS_IN_PRODUCTION = {"fsync": "on", "full_page_writes": "on", "synchronous_commit": "on"}
_CONFIG = {"host": "db.example.com", "port": 5432, "database": "analytics", "username": "honeyframe_ro"}
_OBSERVED = {"uid": "0" * 36, "generation": 1, "secret": ["0" * 36, "123456"], "fingerprint": "0" * 32}


@dataclass(frozen=True)
class Store:
    """An empty metadata store to measure on."""

    kind: str
    """`sqlite` or `postgresql`: the end of a figure's key."""
    url: str


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    connectors: int
    rounds: int


@dataclass(frozen=True)
class Figure:
    """One line of the table."""

    measured: float
    reference: float
    what: str
    """What the reference is."""


Measurement = Callable[[Store, Size], Coroutine[Any, Any, Mapping[str, Figure]]]
FULL = Size(connectors=10_000, rounds=5)
QUICK = Size(connectors=500, rounds=1)
GOALS = {"rewrap_seconds_sqlite": "< 5", "rewrap_seconds_postgresql": "< 5", "usage_10k_seconds": "< 1"}


async def rewrapping(store: Store, size: Size) -> Mapping[str, Figure]:
    """Seconds to wrap every connector's keys under another secret, beside the same writes without opening anything."""
    active = secrets.token_bytes(32)
    await seed(store, Keyring(active), size.connectors)
    plain, wrapped = [], []
    for _ in range(size.rounds):
        older, active = active, secrets.token_bytes(32)
        database = Database(store.url)
        vault = Vault(database, Keyring(active, [older]))
        await vault.open()
        plain.append(await _timed(_updates(database)))
        wrapped.append(await _timed(rewrap(database, vault.wrapping)))
        await database.close()
    what = f"the same UPDATEs in as many transactions, without cryptography; median of {size.rounds}"
    return {f"rewrap_seconds_{store.kind}": Figure(statistics.median(wrapped), statistics.median(plain), what)}


async def counting_usage(store: Store, size: Size) -> Mapping[str, Figure]:
    """Seconds to count ten references a connector, on PostgreSQL; of two layouts the slower."""
    if store.kind != "postgresql":
        return {}
    measured, reference = await usage_bench.slower_layout(store.url, size.connectors, size.rounds)
    what = f"the server's own time of count(*) … group by over the same rows; median of {size.rounds}"
    return {"usage_10k_seconds": Figure(measured, reference, what)}


MEASUREMENTS: list[Measurement] = [rewrapping, counting_usage]


def run(*, quick: bool = False) -> dict[str, float]:
    """Measure, print the table, and return the figures by their keys."""
    size = QUICK if quick else FULL
    figures: dict[str, Figure] = {}
    for measurement in MEASUREMENTS:
        with tempfile.TemporaryDirectory(prefix="honeyframe-bench-") as home:
            figures |= asyncio.run(measurement(Store("sqlite", f"sqlite:///{Path(home)}/bench.db"), size))
        with PostgresServer.start(settings=_AS_IN_PRODUCTION) as server:
            server.create_role("bench", "bench")
            server.create_database("bench", owner="bench")
            url = f"postgresql://bench:bench@127.0.0.1:{server.port}/bench?sslmode=require"
            figures |= asyncio.run(measurement(Store("postgresql", url), size))
    _print_table(figures, size)
    return {key: figure.measured for key, figure in figures.items()}


async def seed(store: Store, keyring: Keyring, count: int) -> None:
    """Fill a store with connectors as wide as real ones."""
    database = Database(store.url)
    vault = Vault(database, keyring)
    await vault.open()
    owner = Owner("bench", "bench", "bench", "bench")
    for start in range(0, count, BATCH):
        await asyncio.gather(
            *(
                vault.create(
                    owner, name=f"c{number}", display_name="", type="postgresql", category="database", object_uid=""
                )
                for number in range(start, min(count, start + BATCH))
            )
        )
    wide = update(data_connectors).values(config=_CONFIG, observed=_OBSERVED)
    await database.write(lambda connection: connection.execute(wide))
    await database.close()


async def _updates(database: Database) -> None:
    """What of `rewrap` is left without opening and wrapping: the bytes that are there are written again."""
    found = select(data_connectors.c.id, data_connectors.c.wrapped_keys)
    rows = await database.read(lambda connection: connection.execute(found).all())
    statement = (
        update(data_connectors)
        .where(data_connectors.c.id == bindparam("row_id"))
        .values(wrapped_keys=bindparam("wrapped"))
    )
    for start in range(0, len(rows), BATCH):
        values = [{"row_id": row.id, "wrapped": row.wrapped_keys} for row in rows[start : start + BATCH]]

        def write(connection: Connection, values: list[dict[str, object]] = values) -> None:
            connection.execute(statement, values)

        await database.write(write)


async def _timed(work: Awaitable[object]) -> float:
    started = time.perf_counter()
    await work
    return time.perf_counter() - started


def _print_table(figures: Mapping[str, Figure], size: Size) -> None:
    print(f"\n{size.connectors} connectors; {os.cpu_count()} cores\n")
    print(f"{'figure':<28}{'measured':>10}{'reference':>11}  {'goal':<8}the reference is")
    for key, figure in figures.items():
        goal = GOALS.get(key, "")
        print(f"{key:<28}{figure.measured:>10.3f}{figure.reference:>11.3f}  {goal:<8}{figure.what}")
    print()
