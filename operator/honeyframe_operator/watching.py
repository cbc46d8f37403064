"""kopf: the watch streams of our kinds, in a thread and loop of their own.

kopf counts every task of its loop as its own and cancels them five seconds after its end, so it lives apart; what
it sees is handed over as plain bodies.
"""

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable, Collection
from typing import Any

import kopf
import uvloop

from honeyframe_connectors.api.kinds import GROUP, VERSION
from honeyframe_operator.kube import KubeClient

logger = logging.getLogger(__name__)

Seen = Callable[[str, str | None, dict[str, Any]], None]
"""Called in the caller's loop with the kind, the event's type (None: from a LIST) and the body."""


class KindWatch:
    """Runs `kopf.operator` until stopped, and again whenever it ends: it does when a CRD of ours goes away."""

    def __init__(
        self, client: KubeClient, kinds: Collection[tuple[str, str]], *, namespaces: Collection[str], seen: Seen
    ) -> None:
        self._client = client
        self._kinds = kinds
        self._namespaces = namespaces
        self._seen = seen
        self._loop = asyncio.get_running_loop()

    async def run(self, ready: Callable[[], Any]) -> None:
        """Watch until cancelled; `ready` is awaited before each start, for kopf looks for the CRDs only once."""
        while True:
            await ready()
            stop, ended = threading.Event(), asyncio.Event()
            # A daemon: kopf may hang in a login or a request, and must not hold up our end.
            threading.Thread(target=self._watch, args=(stop, ended), name="kopf", daemon=True).start()
            try:
                await ended.wait()
            finally:
                stop.set()
            logger.warning("the watch of our kinds ended, as it does when a CRD of ours goes; starting it again")
            await asyncio.sleep(1.0)

    def _watch(self, stop: threading.Event, ended: asyncio.Event) -> None:
        try:
            with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
                try:
                    runner.run(
                        kopf.operator(
                            registry=self._registry(),
                            settings=settings(),
                            clusterwide=not self._namespaces,
                            namespaces=self._namespaces,
                            stop_flag=stop,
                        )
                    )
                finally:
                    stop.set()  # kopf waits for it in a thread, and the loop's end for that thread
        finally:
            with contextlib.suppress(RuntimeError):  # our loop is closed: nobody waits any more
                self._loop.call_soon_threadsafe(ended.set)

    def _registry(self) -> kopf.OperatorRegistry:
        registry = kopf.OperatorRegistry()

        @kopf.on.login(registry=registry)
        async def login(**_: Any) -> kopf.ConnectionInfo:
            future = asyncio.run_coroutine_threadsafe(self._client.connection(), self._loop)
            return await asyncio.wrap_future(future)

        async def seen(*, event: Any, param: Any = None, **_: Any) -> None:
            self._loop.call_soon_threadsafe(self._seen, param, event["type"], event["object"])

        for kind, plural in self._kinds:
            kopf.on.event(GROUP, VERSION, plural, registry=registry, id=plural, param=kind)(seen)
        return registry


def settings() -> kopf.OperatorSettings:
    """What is known to matter of kopf's settings (docs/decisions/0002)."""
    chosen = kopf.OperatorSettings()
    chosen.peering.standalone = True
    chosen.posting.enabled = False
    chosen.scanning.disabled = True
    chosen.queueing.worker_limit = None
    chosen.queueing.idle_timeout = 1.0
    chosen.queueing.exit_timeout = 0.5
    chosen.watching.chunk_size = 500
    chosen.watching.server_timeout = 300
    chosen.watching.client_timeout = 330
    chosen.watching.connect_timeout = 10
    chosen.watching.reconnect_backoff = 0.5
    chosen.networking.request_timeout = 30
    chosen.networking.connect_timeout = 10
    chosen.networking.enforce_retry_after = True
    chosen.persistence.finalizer = f"{GROUP}/unused"
    chosen.persistence.diffbase_storage = _NoDiffBase()
    chosen.persistence.progress_storage = _NoProgress()
    return chosen


class _NoDiffBase(kopf.DiffBaseStorage):
    """Keeps nothing: kopf's own deep-copies every body at every event."""

    def build(self, **_: Any) -> Any:
        return {}

    def fetch(self, **_: Any) -> None:
        return None

    def store(self, **_: Any) -> None:
        return None


class _NoProgress(kopf.ProgressStorage):
    """Keeps nothing: event handlers have no progress."""

    def fetch(self, **_: Any) -> None:
        return None

    def store(self, **_: Any) -> None:
        return None

    def purge(self, **_: Any) -> None:
        return None

    def touch(self, **_: Any) -> None:
        return None

    def clear(self, *, essence: Any) -> Any:
        return essence

    def flush(self) -> None:
        return None
