"""The one loop: keys from the queue, a reconcile each, its status written where it differs.

It knows no kind by name: a kind is a `Binding`.
"""

import asyncio
import functools
import logging
import time
import traceback
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from honeyframe_connectors.api.kinds import API_VERSION, ConditionType
from honeyframe_connectors.errors import ConnectorError, Reason, TryAgain
from honeyframe_connectors.redact import Redactor
from honeyframe_operator import events
from honeyframe_operator.kube import METADATA_LIST, UNANSWERED, ApiError, KubeClient
from honeyframe_operator.leader import Leader
from honeyframe_operator.metrics import Metrics
from honeyframe_operator.objects import Key, Objects, newer, resource
from honeyframe_operator.workqueue import WorkQueue
from reconcilers.conditions import conditions
from reconcilers.ports import Resource
from reconcilers.steps import News, Outcome, Report, Verdict

logger = logging.getLogger(__name__)

WORKERS = 32
_FREE_TEXT = ("conditions", "health", "credentials", "result")
"""The parts of a status that hold sentences."""
SLOW_SECONDS = 1.0
"""A first reconcile that takes longer says that it is running."""


class Binding(Protocol):
    """How a kind is reconciled."""

    plural: str

    def known(self, resource: Resource) -> float | None:
        """Seconds until a settled object needs a look; None: reconcile it now."""

    async def reconcile(self, resource: Resource) -> Outcome:
        """Make it so and say how it went."""

    async def remember(self, resource: Resource, outcome: Outcome) -> None:
        """Note what a status that is now written was made from."""

    async def gone(self, namespace: str, name: str, uid: str | None) -> None:
        """The object is not there, or there under another uid."""

    def names(self) -> set[tuple[str, str]]:
        """Namespace and name of what the vault holds rows of."""


@dataclass
class Controller:
    """Workers on one queue. Everything that leaves as text goes through `redact`."""

    client: KubeClient
    objects: Objects
    queue: WorkQueue[Key]
    bindings: Mapping[str, Binding]
    leader: Leader
    metrics: Metrics
    redact: Redactor
    identity: str
    scopes: tuple[str, ...] = ("",)
    """Namespaces that are watched; ("",): all."""
    working: bool = False
    _first_seen: dict[Key, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # The same few sentences stand in most statuses; to search each for secrets again costs more than its write.
        self._clean = functools.lru_cache(maxsize=4096)(self.redact)

    def saw(self, key: Key, body: dict[str, Any]) -> None:
        """A watch showed an object."""
        if self.objects.put(key, body):
            self.look(key)

    def lost(self, key: Key) -> None:
        """A watch or a list no longer shows an object."""
        self.objects.drop(key)
        self.look(key)

    def look(self, key: Key) -> None:
        """Something about an object may have changed: queue it, unless its row says that all is as it was."""
        if not self.working:
            return
        body = self.objects.get(key)
        delay = self.bindings[key[0]].known(resource(body)) if body is not None else None
        if delay is None:
            if body is not None and not (body.get("status") or {}).get("conditions"):
                self._first_seen.setdefault(key, time.monotonic())
            self.queue.add(key)
        elif delay < float("inf"):
            self.queue.add_after(key, delay)

    def look_at_all(self) -> None:
        """Look at every object that was seen, and at every row whose object was not."""
        for kind, binding in self.bindings.items():
            for key in self.objects.keys(kind) | {(kind, *name) for name in binding.names()}:
                self.look(key)

    async def work(self) -> None:
        """Reconcile until cancelled."""
        self.working = True
        try:
            async with asyncio.TaskGroup() as group:
                for _ in range(WORKERS):
                    group.create_task(self._worker())
        finally:
            self.working = False

    async def _worker(self) -> None:
        while True:
            key, waited = await self.queue.get()
            self.metrics.queue_wait_seconds.observe(waited)
            started, result = time.monotonic(), "ok"
            try:
                result = await self._process(key)
            except ConnectorError as error:
                result = "waiting"
                self._retry(key, error)
            except (ApiError, *UNANSWERED) as error:
                result = "api"
                self._retry(key, error)
            except Exception as error:  # noqa: BLE001 - a fault of ours is counted, logged, and tried again
                result = "error"
                delay = self.queue.retry(key)
                text = self.redact.message(f"{type(error).__name__}: {error}")
                logger.error("%s %s/%s: %s at %s; again in %.0f s", *key, text, _where(error), delay)  # noqa: TRY400
            finally:
                self.queue.done(key)
                self.metrics.reconciles.labels(key[0], result).inc()
                self.metrics.reconcile_seconds.labels(key[0]).observe(time.monotonic() - started)
                if result == "ok" and (seen := self._first_seen.pop(key, None)) is not None:
                    self.metrics.first_reconcile_seconds.labels(key[0]).observe(time.monotonic() - seen)

    def _retry(self, key: Key, error: ConnectorError | Exception) -> None:
        after = getattr(error, "retry_after", None)
        if after is not None:
            self.queue.add_after(key, after)
        else:
            after = self.queue.retry(key)
        logger.info("%s %s/%s: %s; again in %.1f s", *key, self.redact.message(str(error) or "no answer"), after)

    async def _process(self, key: Key) -> str:
        kind, namespace, name = key
        binding = self.bindings[kind]
        body = self.objects.get(key) or await self._ask(key)
        if body is None:
            await binding.gone(namespace, name, None)
            self.queue.forget(key)
            self._first_seen.pop(key, None)
            return "gone"
        subject = resource(body)
        outcome = await self._reconcile(key, body, binding, subject)
        written = await self._write(key, body, outcome.status)
        if written is None:
            return "gone"
        if outcome.news:
            told = [News(each.type, each.reason, self._clean(each.message)) for each in outcome.news]
            await events.post(self.client, kind, written, told, self.identity)
        await binding.remember(resource(written), outcome)
        if outcome.retry is not None:
            self._retry(key, outcome.retry)
            return "waiting"
        self.queue.forget(key)
        if outcome.requeue_after is not None:
            self.queue.add_after(key, outcome.requeue_after)
        return "ok"

    async def _reconcile(self, key: Key, body: dict[str, Any], binding: Binding, subject: Resource) -> Outcome:
        if any(condition["type"] == ConditionType.READY for condition in subject.status.get("conditions", ())):
            return await binding.reconcile(subject)
        task = asyncio.ensure_future(binding.reconcile(subject))
        try:
            done, _ = await asyncio.wait((task,), timeout=SLOW_SECONDS)
            if not done:
                await self._write(key, body, _first_check(subject))
            return await task
        finally:
            task.cancel()

    async def _ask(self, key: Key) -> dict[str, Any] | None:
        """A cache miss is no answer: the API server knows."""
        kind, namespace, name = key
        path = f"{collection(self.bindings[kind].plural, namespace)}/{name}"
        try:
            body = await self.client.get(path)
        except ApiError as error:
            if error.status == 404:  # noqa: PLR2004 - HTTP 404
                return None
            raise
        self.objects.put(key, body)
        return self.objects.get(key)

    async def _write(self, key: Key, body: dict[str, Any], status: dict[str, Any]) -> dict[str, Any] | None:
        """PUT the status where it differs: also a compare-and-set, so a 409 means "decide again"."""
        kind, namespace, name = key
        latest = self.objects.get(key)
        if latest is not None and latest["metadata"]["uid"] == body["metadata"]["uid"]:
            body = latest
        before = body.get("status") or {}
        status |= {key: _redacted(status[key], self._clean) for key in _FREE_TEXT if key in status}
        if before == status:
            return body
        self.leader.fence()
        path = f"{collection(self.bindings[kind].plural, namespace)}/{name}/status"
        try:
            answer = await self.client.put(path, {**body, "status": status})
        except ApiError as error:
            self.metrics.status_writes.labels(kind, str(error.status)).inc()
            if error.status == 404:  # noqa: PLR2004 - HTTP 404: deleted meanwhile; its event or the next list says so
                self.lost(key)
                return None
            if error.status == 409:  # noqa: PLR2004 - HTTP 409: newer than ours
                self.objects.drop(key)
                raise TryAgain(Reason.PROGRESSING, "the object changed meanwhile", retry_after=0.05) from None
            raise
        self.metrics.status_writes.labels(kind, "200").inc()
        self.objects.put(key, answer)
        news = list(events.transitions(before, status))
        if news:
            await events.post(self.client, kind, answer, news, self.identity)
        return answer

    async def sweep(self) -> bool:
        """Compare a complete LIST with what the watches showed; whether the watches are up to date.

        kopf tells nothing of objects that went while a watch was broken: those are found here.
        """
        fresh = True
        for kind, binding in self.bindings.items():
            listed: dict[Key, Mapping[str, Any]] = {}
            for scope in self.scopes:
                async for page in self.client.pages(collection(binding.plural, scope), accept=METADATA_LIST):
                    for item in page["items"]:
                        listed[kind, item["metadata"]["namespace"], item["metadata"]["name"]] = item
            for key in self.objects.keys(kind) - listed.keys():
                self.lost(key)
            for key, item in listed.items():
                body = self.objects.get(key)
                if body is None or body["metadata"]["uid"] != item["metadata"]["uid"] or newer(item, body):
                    fresh = False
        return fresh


def collection(plural: str, namespace: str) -> str:
    """The path of a kind's objects, in one namespace or ("") in all."""
    return f"/apis/{API_VERSION}/namespaces/{namespace}/{plural}" if namespace else f"/apis/{API_VERSION}/{plural}"


def _first_check(subject: Resource) -> dict[str, Any]:
    verdict = Verdict("Unknown", Reason.PROGRESSING, "the first check is running", ConditionType.RECONCILING)
    return {
        "observedGeneration": subject.generation,
        "conditions": conditions(Report(), verdict, (), previous=(), generation=subject.generation),
    }


def _redacted(value: Any, redact: Callable[[str], str]) -> Any:
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {key: _redacted(child, redact) for key, child in value.items()}
    if isinstance(value, list):
        return [_redacted(child, redact) for child in value]
    return value


def _where(error: Exception) -> str:
    """Where a fault of ours was raised: files and lines, never the values that a traceback may show."""
    frames = traceback.extract_tb(error.__traceback__)[-4:]
    return " < ".join(
        f"{frame.name} ({frame.filename.rsplit('/', 1)[-1]}:{frame.lineno})" for frame in reversed(frames)
    )
