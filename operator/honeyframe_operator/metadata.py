"""Watches that see metadata only: Secrets, ConfigMaps and namespaces, never a value of one.

Even metadata can hold a password (`kubectl apply` keeps the whole Secret in an annotation), so what is not needed is
dropped before anything else sees it.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass
from typing import Any

from honeyframe_connectors.api.kinds import (
    CREDENTIALS_LABEL,
    LONGEST_REASON,
    ORG_LABEL,
    REASON_ANNOTATION,
    TARGETS_ANNOTATION,
)
from honeyframe_operator.kube import METADATA, METADATA_LIST, UNANSWERED, ApiError, Gone, KubeClient
from reconcilers.ports import Source

logger = logging.getLogger(__name__)
RETRY_SECONDS = 2.0


@dataclass(frozen=True, slots=True)
class Metadata:
    """What is kept of an object's metadata."""

    namespace: str
    name: str
    uid: str
    resource_version: str
    labelled: bool
    org: str | None = None
    targets: str | None = None
    reason: str = ""

    def source(self, *, always: bool = False) -> Source:
        """As a reconcile reads it; `always` is for what needs no label."""
        return Source(self.uid, self.resource_version, always or self.labelled, self.targets, self.reason)


def decode(item: Mapping[str, Any]) -> Metadata:
    """The few fields that we need."""
    metadata = item["metadata"]
    labels, annotations = metadata.get("labels") or {}, metadata.get("annotations") or {}
    return Metadata(
        namespace=metadata.get("namespace", ""),
        name=metadata["name"],
        uid=metadata["uid"],
        resource_version=metadata["resourceVersion"],
        labelled=labels.get(CREDENTIALS_LABEL) == "true",
        org=labels.get(ORG_LABEL),
        targets=annotations.get(TARGETS_ANNOTATION),
        reason=annotations.get(REASON_ANNOTATION, "")[:LONGEST_REASON],
    )


class MetadataWatch:
    """One LIST and WATCH, kept up for good; calls back for every object that is new, changed or gone."""

    def __init__(
        self,
        client: KubeClient,
        path: str,
        *,
        changed: Callable[[Metadata], None],
        gone: Callable[[Metadata], None],
        selector: str = "",
    ) -> None:
        self._client = client
        self._path = path
        self._query = {"labelSelector": selector} if selector else {}
        self._changed = changed
        self._gone = gone
        self._seen: dict[tuple[str, str], Metadata] = {}
        self.synced = asyncio.Event()
        """Set once the first LIST is complete."""

    async def run(self) -> None:
        """Watch until cancelled; what the API server refuses is said once and tried again."""
        version, trouble = "", ""
        while True:
            try:
                if not version:
                    version = await self._list()
                    self.synced.set()
                async for event in self._events(version):
                    version = event["object"]["metadata"]["resourceVersion"]
                    self._apply(event)
                trouble = ""
            except Gone:
                version = ""
            except (ApiError, *UNANSWERED) as error:
                if str(error) != trouble:
                    trouble = str(error)
                    logger.warning("watch of %s: %s", self._path, trouble or "no answer")
                await asyncio.sleep(getattr(error, "retry_after", None) or RETRY_SECONDS)

    def _events(self, version: str) -> AsyncIterator[dict[str, Any]]:
        return self._client.watch(self._path, version=version, accept=METADATA, **self._query)

    async def _list(self) -> str:
        listed: dict[tuple[str, str], Metadata] = {}
        version = ""
        async for page in self._client.pages(self._path, accept=METADATA_LIST, **self._query):
            version = page["metadata"]["resourceVersion"]
            for item in page["items"]:
                metadata = decode(item)
                listed[metadata.namespace, metadata.name] = metadata
        before, self._seen = self._seen, listed
        for key, metadata in listed.items():
            if before.get(key) != metadata:
                self._changed(metadata)
        for key in before.keys() - listed.keys():
            self._gone(before[key])
        return version

    def _apply(self, event: Mapping[str, Any]) -> None:
        if event["type"] == "BOOKMARK":
            return
        metadata = decode(event["object"])
        key = (metadata.namespace, metadata.name)
        if event["type"] == "DELETED":
            self._seen.pop(key, None)
            self._gone(metadata)
        else:
            self._seen[key] = metadata
            self._changed(metadata)
