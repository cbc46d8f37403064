"""Counting what uses many Connectors, beside what the server itself needs to count the same rows.

The reference is PostgreSQL's own time of `count(*) … group by` over the same two tables, as EXPLAIN ANALYZE tells it:
nothing that has to read every reference can be faster. Ours also orders, picks the ten most recent of each, and carries
all of it into this process.
"""

import random
import statistics
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from sqlalchemy import Connection, delete, insert, text

from honeyframe_connectors.store.database import Database
from honeyframe_connectors.store.tables import agent_tools, data_connectors, datasets
from honeyframe_connectors.usage import UsageCounter

CLUSTER = "bench"
_NOW = datetime(2026, 11, 1, tzinfo=UTC)
_PLAIN = (
    "EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) SELECT connector_id, count(*) FROM (SELECT connector_id FROM "
    "honeyframe.datasets UNION ALL SELECT connector_id FROM honeyframe.agent_tools) AS uses GROUP BY connector_id"
)


async def slower_layout(url: str, connectors: int, rounds: int) -> tuple[float, float]:
    """Median seconds of ours and of the reference, of the slower of two layouts: in 100 projects, and in one."""
    layouts = [await _layout(url, connectors, 10 * connectors, projects, rounds) for projects in (100, 1)]
    return max(layouts)


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
