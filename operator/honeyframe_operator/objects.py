"""The objects of our kinds as the watches show them, and what they refer to."""

from collections import defaultdict
from collections.abc import Iterator, Mapping
from typing import Any

from reconcilers.ports import Resource

Key = tuple[str, str, str]
"""Kind, namespace, name."""
Reference = tuple[str, str, str]
"""Kind (Secret or ConfigMap), namespace, name."""


class Objects:
    """Newest bodies by key. A body that is missing here means "ask the API server", never "not found"."""

    def __init__(self) -> None:
        self._bodies: dict[Key, dict[str, Any]] = {}
        self._users: defaultdict[Reference, set[Key]] = defaultdict(set)

    def get(self, key: Key) -> dict[str, Any] | None:
        """The newest body that was seen."""
        return self._bodies.get(key)

    def put(self, key: Key, body: dict[str, Any]) -> bool:
        """Keep a body unless a newer one is there already; whether it was news."""
        before = self._bodies.get(key)
        # Of another uid too: kopf hands over the events of a deleted object and of its successor in any order.
        if before is not None and not newer(body, before):
            return False
        body["metadata"].pop("managedFields", None)
        if before is None or before.get("spec") != body.get("spec"):
            self._refer(key, before, body)
        self._bodies[key] = body
        return True

    def drop(self, key: Key) -> None:
        """Forget an object that is gone."""
        self._refer(key, self._bodies.pop(key, None), None)

    def users(self, reference: Reference) -> Iterator[Key]:
        """The objects that refer to a Secret or ConfigMap."""
        yield from self._users.get(reference, ())

    def keys(self, kind: str) -> set[Key]:
        """Every object of a kind that was seen."""
        return {key for key in self._bodies if key[0] == kind}

    def __len__(self) -> int:
        return len(self._bodies)

    def _refer(self, key: Key, before: Mapping[str, Any] | None, after: Mapping[str, Any] | None) -> None:
        for reference in references(key, before):
            self._users[reference].discard(key)
            if not self._users[reference]:
                del self._users[reference]
        for reference in references(key, after):
            self._users[reference].add(key)


def references(key: Key, body: Mapping[str, Any] | None) -> Iterator[Reference]:
    """What an object refers to."""
    spec = (body or {}).get("spec") or {}
    secret, ca = spec.get("secretRef"), spec.get("caRef")
    if isinstance(secret, dict) and "name" in secret:
        yield ("Secret", key[1], secret["name"])
    if isinstance(ca, dict) and "name" in ca:
        yield (ca.get("kind", "ConfigMap"), key[1], ca["name"])


def newer(body: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether a body is newer than another of the same object; resourceVersions are ordered numbers (KEP-5504)."""
    return int(body["metadata"]["resourceVersion"]) > int(other["metadata"]["resourceVersion"])


def resource(body: Mapping[str, Any]) -> Resource:
    """A body as reconcilers know it."""
    metadata = body["metadata"]
    return Resource(
        namespace=metadata["namespace"],
        name=metadata["name"],
        uid=metadata["uid"],
        generation=metadata.get("generation", 1),
        created_at=metadata.get("creationTimestamp", ""),
        annotations=metadata.get("annotations") or {},
        spec=body.get("spec") or {},
        status=body.get("status") or {},
    )
