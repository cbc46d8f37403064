"""Hands the rows of a cluster that is no more to the one that was built from the same Git.

A row that was handed over names the new cluster and no namespace uid: the Connector of the same namespace name, name
and type takes it at first sight.
"""

import asyncio
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, replace

from sqlalchemy import bindparam, select

from honeyframe_connectors.errors import ConnectorError, Reason, Stalled
from honeyframe_connectors.store.database import BATCH, Database, Unreachable
from honeyframe_connectors.store.tables import data_connectors
from honeyframe_connectors.vault.clusters import Heartbeat, heartbeats
from honeyframe_connectors.vault.rows import OPERATOR, ConnectorRow
from honeyframe_connectors.vault.vault import Vault

_HANDED_OVER = select(data_connectors.c.id).where(
    data_connectors.c.managed_by == OPERATOR,
    data_connectors.c.cluster_id == bindparam("cluster"),
    data_connectors.c.namespace_uid.is_(None),
)


@dataclass(frozen=True, slots=True)
class Claimed:
    """One row, and why it could not be handed over, if so."""

    row: ConnectorRow
    error: str = ""


async def claiming_cluster(database: Database, old: str, new: str | None) -> str:
    """Which cluster takes the rows of `old`: `new`, else the only other one whose operator is at work.

    Raises:
        Stalled: `InvalidConfig`, it cannot be told, or it is the same.
        Waiting: `VaultUnavailable`.
    """
    if new == old:
        raise Stalled(Reason.INVALID_CONFIG, f"cluster {old} has its rows already: name the old cluster's id")
    if new is not None:
        return new
    at_work = [each.cluster_id for each in await heartbeats(database) if each.fresh and each.cluster_id != old]
    if len(at_work) != 1:
        found = (
            f"several are at work on this store ({', '.join(sorted(at_work))})" if at_work else "no other is at work"
        )
        raise Stalled(Reason.INVALID_CONFIG, f"which cluster takes the rows? {found}: give --to-cluster")
    return at_work[0]


async def refuse_while_at_work(database: Database, old: str) -> None:
    """Let nobody take the rows of a cluster that lives.

    Raises:
        Stalled: `Conflict`: its operator was heard of less than 15 s ago, and did not stop.
        Waiting: `VaultUnavailable`.
    """
    heartbeat = next((each for each in await heartbeats(database) if each.cluster_id == old), None)
    if heartbeat is not None and heartbeat.fresh:
        raise Stalled(
            Reason.CONFLICT,
            f"cluster {old} is at work: {_heard(heartbeat)}. Stop it, or give --force: its Connectors keep no row then",
        )


async def claim(vault: Vault, rows: Sequence[ConnectorRow], new: str) -> AsyncIterator[Claimed]:
    """Hand rows over, each whole or not at all; a second run goes on where this one ended.

    Raises:
        Waiting: `VaultUnavailable`, the store cannot be used.
    """
    for start in range(0, len(rows), BATCH):
        for claimed in await asyncio.gather(*(_claim(vault, row, new) for row in rows[start : start + BATCH])):
            yield claimed


async def handed_over(database: Database, cluster_id: str) -> list[str]:
    """The ids of a cluster's rows that no Connector took yet.

    Raises:
        Waiting: `VaultUnavailable`.
    """
    return list(await database.read(lambda connection: connection.scalars(_HANDED_OVER, {"cluster": cluster_id}).all()))


async def _claim(vault: Vault, row: ConnectorRow, new: str) -> Claimed:
    owner = replace(row.owner, cluster_id=new, namespace_uid="")
    try:
        return Claimed(await vault.move(row, owner, name=row.name, audit="connector.claimed", object_uid=""))
    except Unreachable:
        raise
    except ConnectorError as error:
        return Claimed(row, error.message)


def _heard(heartbeat: Heartbeat) -> str:
    return f"process {heartbeat.process_id} was heard of {heartbeat.age:.0f} s ago"
