"""Takes deleted rows away for good; their history and their tests' history go with them."""

import asyncio
from collections.abc import Sequence
from datetime import datetime

from sqlalchemy import bindparam, delete, insert, select

from honeyframe_connectors.api.kinds import now, timestamp
from honeyframe_connectors.store.database import BATCH, Change, Database, Missed
from honeyframe_connectors.store.tables import audit_log, data_connectors
from honeyframe_connectors.vault.rows import OPERATOR, ConnectorRow, Deleted

_PURGE = delete(data_connectors).where(
    data_connectors.c.id == bindparam("row_id"),
    data_connectors.c.revision == bindparam("was"),
    data_connectors.c.deleted_at.is_not(None),
)
_INSERT_AUDIT = insert(audit_log)
_DELETED = (
    select(
        data_connectors.c.id,
        data_connectors.c.org,
        data_connectors.c.project,
        data_connectors.c.name,
        data_connectors.c.cluster_id,
        data_connectors.c.deleted_at,
        data_connectors.c.deletion_policy,
        data_connectors.c.purge_at,
        data_connectors.c.revision,
    )
    .where(data_connectors.c.managed_by == OPERATOR, data_connectors.c.deleted_at <= bindparam("until"))
    .order_by(data_connectors.c.deleted_at, data_connectors.c.id)
)


def as_deleted(row: ConnectorRow) -> Deleted:
    """What a purge needs of a row that has `deleted_at`."""
    if row.deleted_at is None:
        raise ValueError(f"row {row.id} is not deleted")
    owner = row.owner
    return Deleted(
        row.id,
        owner.org,
        owner.project,
        row.name,
        owner.cluster_id,
        row.deleted_at,
        row.deletion_policy,
        row.purge_at,
        row.revision,
    )


async def deleted(database: Database, until: datetime) -> list[Deleted]:
    """The operators' rows, of every cluster, that were deleted at `until` or before, the oldest first.

    Raises:
        Waiting: `VaultUnavailable`.
    """
    found = await database.read(lambda connection: connection.execute(_DELETED, {"until": until}).all())
    return [
        Deleted(
            each.id,
            each.org,
            each.project,
            each.name,
            each.cluster_id or "",
            each.deleted_at,
            each.deletion_policy,
            each.purge_at,
            each.revision,
        )
        for each in found
    ]


async def purge(database: Database, rows: Sequence[Deleted], *, by: str) -> list[Deleted]:
    """Delete rows with all that hangs on them, and return those that went; one written since it was read stays.

    `by` is who asked for it, for the audit log.

    Raises:
        Waiting: `VaultUnavailable`; some may be gone by then.
    """
    gone: list[Deleted] = []
    for start in range(0, len(rows), BATCH):
        batch = rows[start : start + BATCH]
        results = await asyncio.gather(*(_purge(database, row, by) for row in batch), return_exceptions=True)
        for row, result in zip(batch, results, strict=True):
            if isinstance(result, BaseException) and not isinstance(result, Missed):
                raise result
            if result is None:
                gone.append(row)
    return gone


async def _purge(database: Database, row: Deleted, by: str) -> None:
    detail = {"connector_id": row.id, "deleted_at": timestamp(row.deleted_at), "by": by}
    entry = {
        "at": now(),
        "action": "connector.purged",
        "subject": f"{row.org}/{row.project}/{row.name}",
        "detail": detail,
    }
    await database.apply(
        Change(_PURGE, {"row_id": row.id, "was": row.revision}, meets=True), Change(_INSERT_AUDIT, entry)
    )
