"""Which process leads a cluster, by the database's word: the Lease says it to one API server only.

An operator on a cloned etcd holds the Lease there, under the same cluster id; so does one that was frozen and does not
know that its Lease is gone. All meet in the cluster's row, and every commit asks it.
"""

import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import BindParameter, Connection, bindparam, insert, or_, select, update
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.functions import FunctionElement

from honeyframe_connectors.errors import Reason, Waiting
from honeyframe_connectors.store.database import Database, Fenced
from honeyframe_connectors.store.tables import Moment, clusters

STALE_SECONDS = 15
"""A row that was not written for longer may be taken: the Lease's duration."""
BEAT_SECONDS = 5.0
_MARGIN = 1.0
"""Seconds for which our own clock may be behind the database's."""


class _now(FunctionElement[datetime]):  # noqa: N801 - SQL functions are written so
    """The database's clock, as the column keeps it."""

    type = Moment()
    inherit_cache = True


class _stale(FunctionElement[datetime]):  # noqa: N801 - SQL functions are written so
    """A row written before this moment of the database's clock may be taken."""

    type = Moment()
    inherit_cache = True


@compiles(_now, "postgresql")
def _now_postgresql(_element: _now, _compiler: Any, **_: Any) -> str:
    # Not the transaction's begin: it may have waited for the row since.
    return "clock_timestamp()"


@compiles(_now, "sqlite")
def _now_sqlite(_element: _now, _compiler: Any, **_: Any) -> str:
    return "strftime('%Y-%m-%d %H:%M:%f000', 'now')"


@compiles(_stale, "postgresql")
def _stale_postgresql(_element: _stale, _compiler: Any, **_: Any) -> str:
    return f"(clock_timestamp() - interval '{STALE_SECONDS} seconds')"


@compiles(_stale, "sqlite")
def _stale_sqlite(_element: _stale, _compiler: Any, **_: Any) -> str:
    return f"strftime('%Y-%m-%d %H:%M:%f000', 'now', '-{STALE_SECONDS} seconds')"


_CLUSTER: BindParameter[str] = bindparam("cluster")
_PROCESS: BindParameter[str] = bindparam("process")
_OURS = (clusters.c.cluster_id == _CLUSTER, clusters.c.process_id == _PROCESS, clusters.c.released.is_(False))
_TAKE = (
    update(clusters)
    .where(
        clusters.c.cluster_id == _CLUSTER,
        or_(clusters.c.released, clusters.c.renewed_at < _stale(), clusters.c.process_id == _PROCESS),
    )
    .values(process_id=_PROCESS, renewed_at=_now(), released=False)
)
_MAKE = insert(clusters).values(cluster_id=_CLUSTER, process_id=_PROCESS, renewed_at=_now(), released=False)
_RENEW = update(clusters).where(*_OURS).values(renewed_at=_now())
_RELEASE = update(clusters).where(*_OURS).values(released=True)
_HEARTBEATS = select(
    clusters.c.cluster_id, clusters.c.process_id, clusters.c.renewed_at, clusters.c.released, _now().label("moment")
)
_CHECK = select(clusters.c.released).where(*_OURS).with_for_update(read=True)
"""Locked against a taker until the commit: what it lets through is in the database before anybody else may lead."""


class Held(Fenced):
    """Another process has the cluster's row."""

    def __init__(self, heartbeat: "Heartbeat") -> None:
        super().__init__(
            Reason.PROGRESSING,
            f"cluster {heartbeat.cluster_id} is led by another process ({heartbeat.process_id}, heard of "
            f"{heartbeat.age:.0f} s ago), so this one does not lead: it takes over {STALE_SECONDS} s after that one "
            "ends; if the two are not replicas of one installation (a cloned etcd has the same ids), give one of them "
            "a --cluster-id of its own",
        )


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """What a cluster's row says."""

    cluster_id: str
    process_id: str
    age: float
    """Seconds, by the database's clock, since its leader was heard of."""
    released: bool

    @property
    def fresh(self) -> bool:
        """Whether a leader is at work there, as far as anybody can know."""
        return not self.released and self.age <= STALE_SECONDS


class Leadership:
    """Holds a cluster's row for this process, and guards the store's writes by it."""

    def __init__(self, database: Database, cluster_id: str, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._database = database
        self._key = {"cluster": cluster_id, "process": str(uuid.uuid4())}
        self._clock = clock
        self._sure_until = 0.0
        self._trouble = "the metadata store does not know yet that this process leads"

    @property
    def process_id(self) -> str:
        """This process's random id."""
        return self._key["process"]

    async def take(self) -> None:
        """Take the cluster's row, and let nothing be written from now on unless it is still ours.

        Raises:
            Held: another process has it, did not release it, and was heard of less than 15 s ago.
            Waiting: `VaultUnavailable`.
        """
        self._database.guard = self._guard
        await self._beat(self._take)

    async def renew(self) -> None:
        """Say that this process still leads.

        Raises:
            Held: another process took the row.
            Waiting: `VaultUnavailable`; once the row may be old enough to be taken, `fence` closes.
        """
        await self._beat(lambda connection: bool(connection.execute(_RENEW, self._key).rowcount))

    async def release(self) -> None:
        """Let another process take the row at once.

        Raises:
            Waiting: `VaultUnavailable`.
        """
        self._sure_until = 0.0
        await self._database.write(lambda connection: connection.execute(_RELEASE, self._key), guarded=False)

    def fence(self) -> None:
        """Let nothing be begun that could not be committed.

        Raises:
            Waiting: `VaultUnavailable`: the row may be old enough for another process to take it.
        """
        if self._clock() >= self._sure_until:
            raise Waiting(Reason.VAULT_UNAVAILABLE, self._trouble)

    async def _beat(self, write: Callable[[Connection], bool]) -> None:
        asked = self._clock()
        try:
            ours = await self._database.write(write, guarded=False)
        except Waiting as error:
            self._trouble = error.message
            raise
        if not ours:
            self._sure_until = 0.0
            raise await self._held()
        self._sure_until = asked + STALE_SECONDS - _MARGIN

    async def _held(self) -> Fenced:
        found = await heartbeats(self._database)
        mine = next((each for each in found if each.cluster_id == self._key["cluster"]), None)
        held = Held(mine) if mine is not None else _unheld()
        self._trouble = held.message
        return held

    def _take(self, connection: Connection) -> bool:
        if connection.execute(_TAKE, self._key).rowcount:
            return True
        try:
            with connection.begin_nested():
                connection.execute(_MAKE, self._key)
        except IntegrityError:
            return False
        return True

    def _guard(self, connection: Connection) -> None:
        if connection.execute(_CHECK, self._key).first() is None:
            raise _unheld()


async def heartbeats(database: Database) -> list[Heartbeat]:
    """What every cluster's row says.

    Raises:
        Waiting: `VaultUnavailable`.
    """
    found = await database.read(lambda connection: connection.execute(_HEARTBEATS).all())
    return [
        Heartbeat(each.cluster_id, each.process_id, (each.moment - each.renewed_at).total_seconds(), each.released)
        for each in found
    ]


def _unheld() -> Fenced:
    return Fenced(Reason.PROGRESSING, "another process leads this cluster, or none does: nothing is written")
