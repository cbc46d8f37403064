"""What uses each connector, counted from the platform's tables.

One statement counts for all namespaces of a cluster: the platform's tables have no index by namespace, and a statement
for each would read them as often. A dataset or tool counts where it names the connector and is of the connector's own
org and project, so that no name is shown in another tenant's status.

Times are whole quarters of an hour, in the statement already: which ten are the most recent must not change with every
use, for each change is a write to the API server.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache
from typing import Any, Literal

import orjson
from sqlalchemy import (
    BigInteger,
    ColumnElement,
    Connection,
    Integer,
    Select,
    Table,
    Text,
    bindparam,
    case,
    cast,
    extract,
    func,
    literal,
    select,
    union_all,
)

from honeyframe_connectors.store.database import Database
from honeyframe_connectors.store.tables import agent_tools, data_connectors, datasets

RECENT = 10
QUARTER_SECONDS = 900

UseKind = Literal["dataset", "agentTool"]


@dataclass(frozen=True, slots=True)
class Use:
    """One dataset or agent tool that uses a connector."""

    kind: UseKind
    name: str
    last_used_at: datetime | None
    """Rounded down to a quarter of an hour."""


@dataclass(frozen=True, slots=True)
class Usage:
    """What uses one connector. Times are rounded down to a quarter of an hour."""

    datasets: int
    agent_tools: int
    quarter: int | None
    """When it was last used, in quarters of an hour since 1970."""
    rows: str
    """The most recent ones as the store gives them: of 10,000 connectors few are ever looked at."""

    @property
    def last_used_at(self) -> datetime | None:
        """When it was last used."""
        return _moment(self.quarter)

    @property
    def recent(self) -> tuple[Use, ...]:
        """The most recent ones, newest first, at most `RECENT`."""
        rows = sorted(orjson.loads(self.rows), key=lambda row: (row[2] is None, -(row[2] or 0), row[1], row[0]))
        return tuple(Use(kind, name, _moment(quarter)) for kind, name, quarter in rows)


class UsageCounter:
    """Counts what uses the connectors of one cluster."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def count(self, cluster_id: str) -> dict[str, Usage]:
        """The usage by connector id; a connector that nothing uses is not there.

        Raises:
            Waiting: `VaultUnavailable`, the store does not answer, or the platform's tables have not the columns that
                are asked for.
        """
        return await self._database.read(lambda connection: count(connection, cluster_id))


def count(connection: Connection, cluster_id: str) -> dict[str, Usage]:
    """As `UsageCounter.count`, on a connection."""
    found = connection.execute(statement(connection.dialect.name), {"cluster": cluster_id})
    return {row_id: Usage(*counted) for row_id, *counted in found.all()}


@cache
def statement(dialect: str) -> Select[Any]:
    """The one statement, for the dialect `postgresql` or `sqlite`; its parameter is `cluster`."""
    uses = union_all(_uses("dataset", datasets, dialect), _uses("agentTool", agent_tools, dialect)).subquery("uses")
    position = func.row_number().over(
        partition_by=uses.c.id, order_by=(uses.c.quarter.desc().nulls_last(), uses.c.name, uses.c.kind)
    )
    ranked = select(uses, position.label("position")).subquery("ranked")
    row = (ranked.c.kind, ranked.c.name, ranked.c.quarter)
    rows: Any = (
        func.json_agg(func.json_build_array(*row))
        if dialect == "postgresql"
        else func.json_group_array(func.json_array(*row))
    )
    return select(
        ranked.c.id,
        func.count().filter(ranked.c.kind == "dataset").label("datasets"),
        func.count().filter(ranked.c.kind == "agentTool").label("agent_tools"),
        func.max(ranked.c.quarter).label("quarter"),
        cast(rows.filter(ranked.c.position <= RECENT), Text).label("rows"),
    ).group_by(ranked.c.id)


def _uses(kind: UseKind, table: Table, dialect: str) -> Select[Any]:
    connectors = data_connectors
    return (
        select(
            connectors.c.id,
            literal(kind, literal_execute=True).label("kind"),
            func.coalesce(cast(table.c.name, Text), "").label("name"),
            _quarter(table.c.last_used_at, dialect).label("quarter"),
        )
        .join(
            table,
            (table.c.connector_id == connectors.c.id)
            & (table.c.org == connectors.c.org)
            & (table.c.project == connectors.c.project),
        )
        .where(connectors.c.cluster_id == bindparam("cluster"), connectors.c.deleted_at.is_(None))
    )


def _quarter(moment: ColumnElement[Any], dialect: str) -> ColumnElement[int]:
    """Which quarter of an hour since 1970; none for PostgreSQL's infinity."""
    if dialect == "postgresql":
        quarter = cast(func.floor(extract("epoch", moment) / QUARTER_SECONDS), BigInteger)
        return case((func.isfinite(moment), quarter))
    return cast(func.strftime("%s", moment), Integer) // QUARTER_SECONDS


def _moment(quarter: int | None) -> datetime | None:
    if quarter is None:
        return None
    try:
        return datetime.fromtimestamp(quarter * QUARTER_SECONDS, UTC)
    except (ValueError, OverflowError):  # PostgreSQL knows years that Python does not
        return None
