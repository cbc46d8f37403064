"""Wrap connectors' keys anew under the active key, after the platform's secret was exchanged.

Only the wrap changes. The data key and the MAC key in it stay, and with them every blob and every MAC: nothing is
rotated and nothing is looked at again. `revision` stays too: it guards what is decided from a row, and nothing is
decided from its wrap; an operator that has read the row opens the old wrap as long as it has the older secret. What is
written is a compare-and-set on the old wrap, so that of two who give the row other keys one wins as a whole.
"""

import hmac
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from sqlalchemy import Connection, LargeBinary, bindparam, func, select, update

from honeyframe_connectors.store.database import Database
from honeyframe_connectors.store.tables import data_connectors, install
from honeyframe_connectors.vault.binding import bound, place_mac
from honeyframe_connectors.vault.cipher import KEY_BYTES, KEY_ID_BYTES, MAGIC, DoesNotOpen
from honeyframe_connectors.vault.keyring import WrappingKeys

BATCH = 256
"""Rows in one transaction: an operator's own write waits for one batch at most, some tens of milliseconds."""

Progress = Callable[[int, int], object]
"""Told how many rows were looked at, and of how many."""

_VAULTED = data_connectors.c.wrapped_keys.is_not(None)
_KEY_ID = func.substr(data_connectors.c.wrapped_keys, len(MAGIC) + 1, KEY_ID_BYTES, type_=LargeBinary)
_UNDER_ANOTHER = (_VAULTED, _KEY_ID.is_distinct_from(bindparam("active", type_=LargeBinary)))
_COUNT = select(func.count()).select_from(data_connectors).where(*_UNDER_ANOTHER)
_NEXT = (
    # No more than is needed: a row's JSON costs more to read than its keys to wrap.
    select(
        data_connectors.c.id,
        func.coalesce(data_connectors.c.cluster_id, ""),
        func.coalesce(data_connectors.c.namespace_uid, ""),
        data_connectors.c.org,
        data_connectors.c.project,
        data_connectors.c.name,
        data_connectors.c.serving_version,
        data_connectors.c.held,
        data_connectors.c.type,
        data_connectors.c.config_mac,
        data_connectors.c.secret_mac,
        data_connectors.c.secret_name,
        data_connectors.c.revoked,
        data_connectors.c.wrapped_keys,
        func.coalesce(data_connectors.c.row_mac, ""),
    )
    .where(*_UNDER_ANOTHER, data_connectors.c.id > bindparam("after"))
    .order_by(data_connectors.c.id)
    .limit(BATCH)
)
_FREE = (
    select(data_connectors.c.id)
    .where(data_connectors.c.id.in_(bindparam("ids", expanding=True)))
    # Never waits while it holds rows itself: an operator that locks them in another order could wait for us.
    .with_for_update(skip_locked=True)
)
_WRAP = (
    update(data_connectors)
    .where(data_connectors.c.id == bindparam("row_id"), data_connectors.c.wrapped_keys == bindparam("was"))
    .values(wrapped_keys=bindparam("wrapped"))
)


@dataclass(frozen=True, slots=True)
class Failure:
    """A connector that was left as it is, and why."""

    connector_id: str
    project: str
    name: str
    error: str


@dataclass(frozen=True, slots=True)
class Rewrapped:
    """What came of it."""

    done: int
    """Connectors whose keys were wrapped anew."""
    left: int
    """Connectors that are not under the active key yet: failed ones, and those that somebody else was writing."""
    failures: tuple[Failure, ...]


@dataclass(slots=True)
class _Batch:
    last: str = ""
    changes: list[Mapping[str, Any]] = field(default_factory=list)
    failures: list[Failure] = field(default_factory=list)


async def rewrap(database: Database, keys: WrappingKeys, progress: Progress = lambda _done, _total: None) -> Rewrapped:
    """Wrap the keys of every connector, whoever keeps its row, under the active key, where they are under another.

    Batch by batch, each a transaction of its own: cancelled or killed, it goes on where it was when it is run again. A
    row that does not open (it was changed by hand, or its key is not given) is left as it is and named.

    Raises:
        Waiting: `VaultUnavailable`, the store cannot be used.
    """
    active = {"active": bytes.fromhex(keys.active_id)}
    total = await _left(database, active)
    done, failures = 0, dict[str, Failure]()
    progress(0, total)
    moved = True
    while moved:  # once more, for rows that were being written
        moved, after = False, ""
        while True:
            batch = await database.read(lambda connection, after=after: _prepared(connection, keys, active, after))  # type: ignore[misc]
            if not batch.last:
                break
            written = await database.write(lambda connection, changes=batch.changes: _write(connection, changes))  # type: ignore[misc]
            failures |= {each.connector_id: each for each in batch.failures}
            done, moved, after = done + written, moved or written > 0, batch.last
            progress(min(total, done + len(failures)), total)
    return Rewrapped(done, await _left(database, active), tuple(failures.values()))


async def forget_older(database: Database, keys: WrappingKeys) -> list[str]:
    """Take the check values of older keys away, those that a connector's keys are still under excepted.

    A process that has only such a key is not let in any more. Nothing is lost by it, for a check value opens no row:
    where a row under that key comes back, out of a backup, it opens as soon as its secret is given beside the active.

    Returns:
        The ids, in hexadecimal, of the keys that were forgotten.

    Raises:
        Waiting: `VaultUnavailable`, the store cannot be used.
    """

    def forget(connection: Connection) -> list[str]:
        checks = connection.execute(select(install).with_for_update()).one().checks
        under = connection.scalars(select(_KEY_ID).where(_VAULTED).distinct())
        kept = {key_id.hex() for key_id in under} | {keys.active_id}
        connection.execute(update(install), {"checks": {key: checks[key] for key in checks if key in kept}})
        return sorted(checks.keys() - kept)

    return await database.write(forget)


def open_keys(keys: WrappingKeys, placed: Sequence[Any], wrapped: bytes, mac: str) -> tuple[bytes, bytes]:
    """A row's data key and MAC key; `placed` is what its MAC is over.

    Raises:
        DoesNotOpen: its key is not given, or the row was changed by hand.
    """
    both = keys.unwrap(wrapped, bound(placed[0], "keys"))
    data_key, mac_key = both[:KEY_BYTES], both[KEY_BYTES:]
    if not hmac.compare_digest(mac, place_mac(mac_key, placed)):
        raise DoesNotOpen("its MAC does not match")
    return data_key, mac_key


def failure(placed: Sequence[Any], error: DoesNotOpen) -> Failure:
    """A row that does not open, as it is told."""
    row_id, _, _, _, project, name, *_ = placed
    return Failure(row_id, project, name, f"it does not open: {error}")


def _prepared(connection: Connection, keys: WrappingKeys, active: Mapping[str, bytes], after: str) -> _Batch:
    """The next rows, opened and wrapped, outside of any transaction that others wait for."""
    batch = _Batch()
    for found in connection.execute(_NEXT, {**active, "after": after}):
        *placed, was, mac = found
        batch.last = placed[0]
        try:
            wrapped = keys.wrap(b"".join(open_keys(keys, placed, was, mac)), bound(placed[0], "keys"))
        except DoesNotOpen as error:
            batch.failures.append(failure(placed, error))
        else:
            batch.changes.append({"row_id": placed[0], "was": was, "wrapped": wrapped})
    return batch


def _write(connection: Connection, changes: list[Mapping[str, Any]]) -> int:
    free = set(connection.scalars(_FREE, {"ids": [change["row_id"] for change in changes]}))
    chosen = [change for change in changes if change["row_id"] in free]
    return connection.execute(_WRAP, chosen).rowcount if chosen else 0


async def _left(database: Database, active: Mapping[str, bytes]) -> int:
    return await database.read(lambda connection: connection.execute(_COUNT, active).scalar_one())
