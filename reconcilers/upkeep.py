"""What the leader looks after between reconciles: rows that were handed over, the brake, and what is to be purged."""

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime

from honeyframe_connectors.errors import ConnectorError
from honeyframe_connectors.store.database import Database
from honeyframe_connectors.vault.claim import handed_over
from honeyframe_connectors.vault.purge import as_deleted, purge
from honeyframe_connectors.vault.rows import ConnectorRow
from reconcilers.connector import Connectors
from reconcilers.deletion import KEPT_FOR, WINDOW, due, is_halted, to_halt
from reconcilers.ledger import Ledger

logger = logging.getLogger(__name__)
TICK_SECONDS = 10.0
_NAMED = 20
"""So many rows are named in a log entry."""


@dataclass
class Upkeep:
    """Runs while its process leads."""

    connectors: Connectors
    database: Database
    cluster_id: str
    look: Callable[[str, str], None]
    """Has the Connector of a namespace and name looked at."""
    purged: Callable[[int], None] = lambda _count: None
    """Told how many rows were purged."""
    halted: Callable[[int], None] = lambda _count: None
    """Told how many rows the brake keeps now."""
    clock: Callable[[], float] = time.time
    _purged_lately: list[datetime] = field(default_factory=list)
    """When those went that are purged already: they count for the brake all the same."""
    _said: set[str] = field(default_factory=set)
    """The ids of the rows that the log has named."""
    _trouble: str = ""

    async def run(self) -> None:
        """Tick until cancelled; what cannot be done is said once and tried again."""
        while True:
            try:
                await self.tick()
                self._trouble = ""
            except ConnectorError as error:
                if error.message != self._trouble:
                    logger.warning("upkeep: %s", error.message)
                self._trouble = error.message
            await asyncio.sleep(TICK_SECONDS)

    async def tick(self) -> None:
        """Do once what is to be done now.

        Raises:
            ConnectorError: something could not be done; the rest is done next time.
        """
        ledger, moment = self.connectors.ledger, datetime.fromtimestamp(self.clock(), UTC)
        if ledger is None:
            return
        await self._take_in(ledger)
        # Before anything is purged: what is counted now decides over all of it.
        await self._halt(ledger, moment)
        await self._purge(ledger, moment)
        self._say([row for row in ledger.rows() if is_halted(row, self.connectors.purge_after)])

    async def _take_in(self, ledger: Ledger) -> None:
        ids = await handed_over(self.database, self.cluster_id)
        waiting = {row.id for row in ledger.rows() if not row.owner.namespace_uid} if ids else set()
        for row_id in ids:
            if row_id not in waiting and (row := await self.connectors.vault.find(row_id)) is not None:
                ledger.put(row)
                self.look(row.owner.project, row.name)

    async def _halt(self, ledger: Ledger, moment: datetime) -> None:
        self._purged_lately = [each for each in self._purged_lately if each > moment - WINDOW]
        for row in to_halt(ledger.rows(), self._purged_lately, moment=moment):
            if row.deleted_at is not None:
                await self.connectors.keep_until(row, row.deleted_at + KEPT_FOR)

    async def _purge(self, ledger: Ledger, moment: datetime) -> None:
        rows = due(ledger.rows(), moment=moment)
        gone = {each.id for each in await purge(self.database, [as_deleted(row) for row in rows], by="operator")}
        for row in rows:
            if row.id not in gone:
                await self.connectors.refresh(row)
            elif row.deleted_at is not None:
                ledger.drop(row)
                self._purged_lately.append(row.deleted_at)
        if gone:
            self.purged(len(gone))
            logger.info("%d deleted rows were purged with their history", len(gone))

    def _say(self, halted: list[ConnectorRow]) -> None:
        self.halted(len(halted))
        news = [row for row in halted if row.id not in self._said]
        self._said = {row.id for row in halted}
        if not news:
            return
        named = ", ".join(f"{row.owner.project}/{row.name}" for row in news[:_NAMED])
        more = f" and {len(news) - _NAMED} more" if len(news) > _NAMED else ""
        logger.warning(
            "Connectors went with their CRD, or more in an hour than anybody deletes on purpose, and their rows are "
            "kept for a week: %s%s; if they are to go, run in the operator's pod honeyframe vault purge --deleted",
            named,
            more,
        )
