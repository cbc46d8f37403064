"""Counting what uses 10,000 Connectors, beside what the server itself needs to count the same rows.

The reference is PostgreSQL's own time of `count(*) … group by` over the same two tables, as EXPLAIN ANALYZE tells it:
nothing that has to read every reference can be faster. Ours also orders, picks the ten most recent of each, and carries
all of it into this process.
"""

import asyncio
import random
import secrets
import statistics
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, delete, insert, text

from hack.postgres import PostgresServer
from honeyframe_connectors.store.database import Database
from honeyframe_connectors.store.tables import agent_tools, data_connectors, datasets
from honeyframe_connectors.usage import UsageCounter

CLUSTER = "bench"
GOAL_SECONDS = 1.0
_NOW = datetime(2026, 11, 1, tzinfo=UTC)
_PLAIN = (
    "EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) SELECT connector_id, count(*) FROM (SELECT connector_id FROM "
    "honeyframe.datasets UNION ALL SELECT connector_id FROM honeyframe.agent_tools) AS uses GROUP BY connector_id"
)


def measure(server: PostgresServer, *, quick: bool = False) -> dict[str, float]:
    """Measure on a database of its own, print the table, and return `usage_10k_seconds`, the slower layout's median."""
    connectors, references, rounds = (1_000, 10_000, 3) if quick else (10_000, 100_000, 7)
    name = f"usage_{secrets.token_hex(4)}"
    server.create_database(name)
    url = f"postgresql://{server.admin_user}:{server.admin_password}@{server.host}:{server.port}/{name}?sslmode=require"
    print(f"\n{connectors} Connectors, {references} datasets and agent tools, PostgreSQL, medians of {rounds}")
    print(f"{'':<24}{'ours':>10}{'count(*)':>12}  goal")
    medians = []
    for projects in (100, 1):
        ours, plain = asyncio.run(_layout(url, connectors, references, projects, rounds))
        medians.append(ours)
        where = f"{projects} projects" if projects > 1 else "one project"
        print(f"{where:<24}{ours:>8.3f} s{plain:>10.3f} s  < {GOAL_SECONDS:g} s")
    return {"usage_10k_seconds": max(medians)}


async def _layout(url: str, connectors: int, references: int, projects: int, rounds: int) -> tuple[float, float]:
    database = Database(url)
    try:
        await database.open()
        await database.write(lambda connection: _fill(connection, connectors, references, projects))
        await database.write(lambda connection: connection.execute(text("ANALYZE")))
        counter, ours, plain = UsageCounter(database), [], []
        for _ in range(rounds):
            started = time.perf_counter()
            counted = await counter.count(CLUSTER)
            ours.append(time.perf_counter() - started)
            assert sum(each.datasets + each.agent_tools for each in counted.values()) == references  # noqa: S101
            plain.append(await database.read(_plain_seconds))
    finally:
        await database.close()
    return statistics.median(ours), statistics.median(plain)


def _plain_seconds(connection: Connection) -> float:
    found: Any = connection.execute(text(_PLAIN)).scalar_one()
    return float(found[0]["Execution Time"]) / 1000


def _fill(connection: Connection, connectors: int, references: int, projects: int) -> None:
    for table in (datasets, agent_tools, data_connectors):
        connection.execute(delete(table))
    connection.execute(insert(data_connectors), [_connector(number, projects) for number in range(connectors)])
    chosen = random.Random(7)  # noqa: S311 - the same rows in every run
    for table in (datasets, agent_tools):
        connection.execute(insert(table), list(_references(chosen, connectors, references // 2, projects)))


def _connector(number: int, projects: int) -> dict[str, Any]:
    return {
        "id": f"connector-{number:06}",
        "org": "acme",
        "project": f"project-{number % projects}",
        "name": f"c{number}",
        "display_name": f"c{number}",
        "type": "postgresql",
        "category": "database",
        "config": {},
        "managed_by": "operator",
        "cluster_id": CLUSTER,
        "namespace_uid": f"namespace-{number % projects}",
        "revision": "0",
        "created_at": _NOW,
        "updated_at": _NOW,
    }


def _references(chosen: random.Random, connectors: int, count: int, projects: int) -> Iterator[dict[str, Any]]:
    for number in range(count):
        connector = chosen.randrange(connectors)
        used = _NOW - timedelta(seconds=chosen.randrange(90 * 86_400)) if chosen.random() < 0.9 else None  # noqa: PLR2004
        yield {
            "id": f"reference-{number}",
            "org": "acme",
            "project": f"project-{connector % projects}",
            "name": f"curated_{number:06}_daily",
            "connector_id": f"connector-{connector:06}",
            "last_used_at": used,
        }


if __name__ == "__main__":
    with PostgresServer.start() as started:
        measure(started)
