"""Who works: one process at a time holds the Lease; the others watch and are warm.

The client's own elector renews in wall-clock text and never releases (docs/decisions/0004); this one counts what it
saw on its own monotonic clock, and lets go of the Lease when it stops.
"""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any

from honeyframe_connectors.errors import Reason, TryAgain
from honeyframe_operator.kube import UNANSWERED, ApiError, KubeClient

logger = logging.getLogger(__name__)


class Leader:
    """Holds a `coordination.k8s.io/Lease`, or waits for it. Times are in seconds."""

    def __init__(
        self,
        client: KubeClient,
        *,
        namespace: str,
        name: str,
        identity: str,
        duration: float = 15.0,
        renew_every: float = 5.0,
    ) -> None:
        self._client = client
        self._collection = f"/apis/coordination.k8s.io/v1/namespaces/{namespace}/leases"
        self._path = f"{self._collection}/{name}"
        self._metadata = {"name": name, "namespace": namespace}
        self._identity = identity
        self._duration = duration
        self._renew_every = renew_every
        self._held_until = 0.0
        self._observed: tuple[str, float] = ("", 0.0)

    @property
    def leads(self) -> bool:
        """Whether the Lease is surely ours at this moment."""
        return time.monotonic() < self._held_until

    def fence(self) -> None:
        """Let nothing be written by a process that does not lead.

        Raises:
            TryAgain: it does not.
        """
        if not self.leads:
            raise TryAgain(Reason.PROGRESSING, "this process does not lead any more")

    async def run(self, lead: Callable[[], Awaitable[None]]) -> None:
        """Lead whenever the Lease is ours: `lead` runs until cancelled, which happens as soon as the Lease is lost."""
        work: asyncio.Task[None] | None = None
        try:
            while True:
                await self._try()
                if self.leads and work is None:
                    logger.info("leading as %s", self._identity)
                    work = asyncio.ensure_future(lead())
                if work is not None and work.done():
                    work.result()
                if not self.leads and work is not None:
                    logger.warning("the Lease is lost: no more work here")
                    await _cancelled(work)
                    work = None
                await self._pause()
        finally:
            if work is not None:
                await _cancelled(work)
            await asyncio.shield(self._release())

    async def _pause(self) -> None:
        left = self._held_until - time.monotonic()
        await asyncio.sleep(min(self._renew_every, left) if left > 0 else min(self._renew_every, 2.0))

    async def _try(self) -> None:
        asked = time.monotonic()
        try:
            lease = await asyncio.wait_for(self._client.get(self._path), self._renew_every)
        except ApiError as error:
            if error.status != 404:  # noqa: PLR2004 - HTTP 404
                logger.error("the Lease cannot be read: %s", error.message)  # noqa: TRY400 - the sentence is what helps
                return
            lease = None
        except UNANSWERED:
            return
        if lease is not None and not self._free(lease):
            if lease["spec"].get("holderIdentity") != self._identity:
                self._held_until = 0.0
            return
        try:
            async with asyncio.timeout(self._renew_every):
                if lease is None:
                    await self._client.post(self._collection, self._ours(None))
                else:
                    await self._client.put(self._path, self._ours(lease))
        except ApiError as error:
            if error.status == 403:  # noqa: PLR2004 - HTTP 403
                logger.error("the Lease cannot be written: %s", error.message)  # noqa: TRY400 - the sentence is what helps
            if error.status == 409:  # noqa: PLR2004 - another one was faster
                self._held_until = 0.0
            return
        except UNANSWERED:
            return
        self._held_until = asked + self._duration - 1.0

    def _free(self, lease: dict[str, Any]) -> bool:
        spec = lease.get("spec") or {}
        holder = spec.get("holderIdentity") or ""
        if holder in ("", self._identity):
            return True
        version, since = lease["metadata"]["resourceVersion"], time.monotonic()
        if self._observed[0] != version:
            self._observed = (version, since)
        return since - self._observed[1] > float(spec.get("leaseDurationSeconds") or self._duration)

    def _ours(self, lease: dict[str, Any] | None) -> dict[str, Any]:
        moment = datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
        spec = dict((lease or {}).get("spec") or {})
        if spec.get("holderIdentity") != self._identity:
            spec["acquireTime"] = moment
            spec["leaseTransitions"] = int(spec.get("leaseTransitions") or 0) + (1 if lease else 0)
        spec |= {
            "holderIdentity": self._identity,
            "renewTime": moment,
            "leaseDurationSeconds": int(self._duration),
        }
        metadata = (lease or {}).get("metadata") or self._metadata
        return {"apiVersion": "coordination.k8s.io/v1", "kind": "Lease", "metadata": metadata, "spec": spec}

    async def _release(self) -> None:
        if not self.leads:
            return
        self._held_until = 0.0
        try:
            lease = await asyncio.wait_for(self._client.get(self._path), 2.0)
            if lease["spec"].get("holderIdentity") == self._identity:
                lease["spec"] |= {"holderIdentity": "", "leaseDurationSeconds": 1}
                await asyncio.wait_for(self._client.put(self._path, lease), 2.0)
        except (ApiError, *UNANSWERED):
            logger.info("the Lease could not be released; it runs out by itself")


async def _cancelled(task: "asyncio.Future[None]") -> None:
    task.cancel()
    await asyncio.wait((task,))
