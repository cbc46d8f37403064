"""What a reconcile asks of the cluster, in words that know no client."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

from honeyframe_connectors.connector_type import CheckResult, ConnectorConfig, ConnectorType
from honeyframe_connectors.vault.rows import Owner


@dataclass(frozen=True, slots=True)
class Resource:
    """An object of one of our kinds, as it stands in the cluster."""

    namespace: str
    name: str
    uid: str
    generation: int
    created_at: str
    annotations: Mapping[str, str]
    spec: Mapping[str, Any]
    status: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Source:
    """What is known of a Secret or ConfigMap without its content."""

    uid: str
    resource_version: str
    labelled: bool
    """Whether it opts in; a ConfigMap always does."""
    targets: str | None = None
    """Where its values may go, as its annotation says; None: it says nothing."""
    reason: str = ""
    """Why its values changed, as its annotation says."""


@dataclass(frozen=True, slots=True)
class Content:
    """A Secret or ConfigMap with its values."""

    source: Source
    data: Mapping[str, bytes] = field(repr=False)


class Cluster(Protocol):
    """The parts of the cluster that a reconcile reads; `TryAgain` where the API server does not answer."""

    def owner(self, namespace: str) -> Owner:
        """Who owns the rows of a namespace."""
        ...

    async def source(self, kind: str, namespace: str, name: str) -> Source | None:
        """What is known of a Secret or ConfigMap; a call only where the watch does not show it."""
        ...

    async def content(self, kind: str, namespace: str, name: str) -> Content | None:
        """Its values, read now; of a Secret that does not opt in only the source."""
        ...

    async def uid(self, kind: str, namespace: str, name: str) -> str | None:
        """The uid of an object of our kinds, read now; None where there is none."""
        ...

    async def namespace_uid(self, namespace: str) -> str | None:
        """The uid of a namespace, read now; None where there is none."""
        ...

    async def kinds_intact(self) -> bool:
        """Whether every CRD of ours is there and stays: objects that go with theirs were not deleted by anybody."""
        ...

    async def delete(self, kind: str, namespace: str, name: str, uid: str) -> None:
        """Delete an object of our kinds, if it is there and still the one with this uid."""
        ...


@dataclass(frozen=True, slots=True)
class Attempt:
    """One login at a target."""

    namespace_uid: str
    type: ConnectorType[Any]
    config: ConnectorConfig = field(repr=False)
    """With the secret values merged in."""
    known_good: bool
    """Whether its secret values were accepted there last."""
    ca: bytes | None
    output_schemas: tuple[str, ...]
    timeout: float
    """Seconds."""


class Login(Protocol):
    """Tries a login. What goes wrong at the target is in the result; `Waiting` where it cannot be tried now."""

    async def __call__(self, attempt: Attempt) -> CheckResult:
        """Try it."""
        ...
