"""When a deleted row goes for good, and the brake: what looks like an accident is kept for a week."""

from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta

from honeyframe_connectors.vault.rows import ConnectorRow

WINDOW = timedelta(hours=1)
FEW = 10
SHARE = 0.1
"""More than this share of all rows, and more than FEW, going within WINDOW looks like an accident."""
KEPT_FOR = timedelta(days=7)


def purge_time(policy: str, at: datetime, *, purge_after: timedelta, halted: bool) -> datetime | None:
    """When a row that went at `at` goes for good; None: never."""
    if policy == "Retain":
        return None
    return at + (max(purge_after, KEPT_FOR) if halted else purge_after)


def to_halt(rows: Iterable[ConnectorRow], purged: Iterable[datetime], *, moment: datetime) -> list[ConnectorRow]:
    """The rows that are to be kept for a week because so many went within the last hour and did not come back.

    `rows` are all of the cluster, `purged` says when those went that are not in it any more.
    """
    all_rows: Sequence[ConnectorRow] = tuple(rows)
    since = moment - WINDOW
    lately = [row for row in all_rows if row.deleted_at is not None and row.deleted_at > since]
    purged_lately = sum(each > since for each in purged)
    went = len(lately) + purged_lately
    before = sum(row.deleted_at is None for row in all_rows) + went
    if went <= max(FEW, SHARE * before):
        return []
    return [row for row in lately if _goes_early(row)]


def due(rows: Iterable[ConnectorRow], *, moment: datetime) -> list[ConnectorRow]:
    """The rows whose time has come."""
    return [row for row in rows if row.deleted_at is not None and row.purge_at is not None and row.purge_at <= moment]


def is_halted(row: ConnectorRow, purge_after: timedelta) -> bool:
    """Whether the brake keeps a row beyond its usual time."""
    if row.deleted_at is None or row.purge_at is None:
        return False
    return row.purge_at - row.deleted_at > purge_after


def _goes_early(row: ConnectorRow) -> bool:
    return row.deleted_at is not None and row.purge_at is not None and row.purge_at < row.deleted_at + KEPT_FOR
