"""What reconcilers ask of the cluster, answered from the metadata watches and, where they must, by a call."""

import base64
import time
from dataclasses import dataclass, field
from typing import Any

from honeyframe_connectors.api.kinds import API_VERSION
from honeyframe_connectors.errors import Reason, TryAgain
from honeyframe_connectors.vault.rows import Owner
from honeyframe_operator.kube import METADATA, UNANSWERED, ApiError, KubeClient, waiting
from honeyframe_operator.metadata import Metadata, decode
from reconcilers.ports import Content, Source

KINDS_SECONDS = 1.0
"""So long what discovery said of our kinds is believed: a CRD that goes takes all its objects with it."""
AFTERMATH_SECONDS = 60.0
_COLLECTIONS = {
    "Secret": "/api/v1/namespaces/{namespace}/secrets",
    "ConfigMap": "/api/v1/namespaces/{namespace}/configmaps",
    "Connector": f"/apis/{API_VERSION}/namespaces/{{namespace}}/connectors",
    "CatalogConfig": f"/apis/{API_VERSION}/namespaces/{{namespace}}/catalogconfigs",
    "ConnectorTest": f"/apis/{API_VERSION}/namespaces/{{namespace}}/connectortests",
}


@dataclass
class ClusterView:
    """The `reconcilers.ports.Cluster` of one API server."""

    client: KubeClient
    cluster_id: str
    default_org: str
    plurals: frozenset[str] = frozenset()
    """Our kinds."""
    watches_namespaces: bool = True
    """Whether a watch keeps `namespaces` current."""
    opt_in: bool = True
    """Whether a Secret must bear the label."""
    sources: dict[tuple[str, str, str], Source] = field(default_factory=dict)
    namespaces: dict[str, Metadata] = field(default_factory=dict)
    _looked_at_kinds: float = float("-inf")
    _kinds_missed: float = float("-inf")

    def owner(self, namespace: str) -> Owner:
        """Who owns the rows of a namespace.

        Raises:
            TryAgain: the namespace is not known yet.
        """
        metadata = self.namespaces.get(namespace)
        if metadata is None:
            raise TryAgain(Reason.PROGRESSING, f"namespace {namespace} is not known yet")
        return Owner(
            cluster_id=self.cluster_id,
            namespace_uid=metadata.uid,
            org=metadata.org or self.default_org,
            project=namespace,
        )

    def seen(self, kind: str, namespace: str, name: str) -> Source | None:
        """What the watches show of a Secret or ConfigMap."""
        return self.sources.get((kind, namespace, name))

    async def source(self, kind: str, namespace: str, name: str) -> Source | None:
        """What is known without its content. Losing the label looks like a deletion to the watch: so ask."""
        if seen := self.seen(kind, namespace, name):
            return seen
        body = await self._get(kind, namespace, name, accept=METADATA)
        return decode(body).source(always=kind == "ConfigMap") if body else None

    async def content(self, kind: str, namespace: str, name: str) -> Content | None:
        """Its values, read now; never those of a Secret without the label."""
        source = self.seen(kind, namespace, name) or await self.source(kind, namespace, name)
        if source is None or (kind == "Secret" and not source.labelled and self.opt_in):
            return Content(source, {}) if source else None
        body = await self._get(kind, namespace, name)
        if body is None:
            return None
        source = decode(body).source(always=kind == "ConfigMap")
        if kind == "Secret" and not source.labelled and self.opt_in:
            return Content(source, {})
        if kind == "ConfigMap":
            self.sources[kind, namespace, name] = source
            return Content(source, {key: value.encode() for key, value in (body.get("data") or {}).items()})
        return Content(source, {key: base64.b64decode(value) for key, value in (body.get("data") or {}).items()})

    async def uid(self, kind: str, namespace: str, name: str) -> str | None:
        """The uid of an object of our kinds, read now; None where there is none."""
        body = await self._get(kind, namespace, name, accept=METADATA)
        return body["metadata"]["uid"] if body else None

    async def namespace_uid(self, namespace: str) -> str | None:
        """The uid of a namespace, read now; None where there is none."""
        body = await self._read(f"/api/v1/namespaces/{namespace}", accept=METADATA)
        if body is None:
            return None
        metadata = decode(body)
        if not self.watches_namespaces:
            self.namespaces[namespace] = metadata
        return metadata.uid

    async def kinds_intact(self) -> bool:
        """Whether every CRD of ours is there and stays.

        A CRD that is going can be listed and deleted from, and nothing can be created any more: discovery says so to
        everybody, where its own object is for those who may read CRDs. What was missed a minute ago counts as well:
        its objects' events are still coming.
        """
        moment = time.monotonic()
        if moment - self._looked_at_kinds > KINDS_SECONDS:
            found = await self._read(f"/apis/{API_VERSION}")
            creatable = {each["name"] for each in (found or {}).get("resources", ()) if "create" in each["verbs"]}
            self._looked_at_kinds = moment
            if not self.plurals <= creatable:
                self._kinds_missed = moment
        return moment - self._kinds_missed > AFTERMATH_SECONDS

    async def delete(self, kind: str, namespace: str, name: str, uid: str) -> None:
        """Delete an object of our kinds, if it is there and still the one with this uid."""
        try:
            await self.client.delete(f"{_COLLECTIONS[kind].format(namespace=namespace)}/{name}", uid=uid)
        except ApiError as error:
            if error.status not in (404, 409):  # HTTP 404: it is gone; 409: another one has its name
                raise waiting(error) from None
        except UNANSWERED as error:
            raise waiting(error) from None

    async def _get(self, kind: str, namespace: str, name: str, accept: str | None = None) -> dict[str, Any] | None:
        return await self._read(f"{_COLLECTIONS[kind].format(namespace=namespace)}/{name}", accept)

    async def _read(self, path: str, accept: str | None = None) -> dict[str, Any] | None:
        try:
            return await self.client.get(path, accept=accept)
        except ApiError as error:
            if error.status == 404:  # noqa: PLR2004 - HTTP 404
                return None
            raise waiting(error) from None
        except UNANSWERED as error:
            raise waiting(error) from None
