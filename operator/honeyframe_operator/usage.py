"""Counts, while leading, what uses each Connector, and has those looked at whose usage is another."""

import asyncio
import logging
from dataclasses import dataclass, field

from honeyframe_connectors.api import connector
from honeyframe_connectors.errors import ConnectorError
from honeyframe_connectors.usage import UsageCounter
from honeyframe_operator.controller import Controller
from honeyframe_operator.metrics import Metrics
from reconcilers.connector_usage import UsageBoard

logger = logging.getLogger(__name__)


@dataclass
class UsageFollower:
    """Keeps a `UsageBoard` up to date. What cannot be counted stays as it was: no Connector is less Ready for it."""

    counter: UsageCounter
    board: UsageBoard
    controller: Controller
    metrics: Metrics
    cluster_id: str
    interval: float
    """Seconds between two counts; 0: never."""
    _trouble: str = field(default="", repr=False)

    async def count(self) -> None:
        """Count once."""
        if not self.interval:
            return
        try:
            counted = await self.counter.count(self.cluster_id)
        except ConnectorError as error:
            self.metrics.usage_counts.labels("failed").inc()
            if self._trouble != error.message:
                logger.warning("usage cannot be counted, and stays as it was shown last: %s", error.message)
            self._trouble = error.message
            return
        self.metrics.usage_counts.labels("ok").inc()
        self._trouble = ""
        changed = self.board.take(counted)
        objects, kind = self.controller.objects, connector.KIND.kind
        for key in objects.keys(kind) if changed else ():
            status = (objects.get(key) or {}).get("status") or {}
            if status.get("connectorId") in changed:
                self.controller.look(key)

    async def run(self) -> None:
        """Count again and again, until cancelled; the first count is the caller's, before the first look."""
        while self.interval:
            await asyncio.sleep(self.interval)
            await self.count()
