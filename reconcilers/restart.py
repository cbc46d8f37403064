"""What a row was made from: where it matches what the watches show, a restarted operator has nothing to do."""

from collections.abc import Mapping
from typing import Any

from reconcilers.attempts import GRACE, Pending
from reconcilers.connector_scope import Scope
from reconcilers.digests import applied, status_digest
from reconcilers.ports import Resource, Source


def matches(
    seen: Mapping[str, Any], resource: Resource, secret: Source | None, ca: Source | None, fingerprint: str
) -> bool:
    """Whether all that a row was made from is as it was."""
    return (
        seen.get("uid") == resource.uid
        and seen.get("generation") == resource.generation
        and seen.get("secret") == _version(secret)
        and seen.get("ca") == _version(ca)
        and seen.get("fingerprint") == fingerprint
        and seen.get("status") == status_digest(resource.status)
    )


def observed(scope: Scope, before: Mapping[str, Any], pending: Pending | None, fingerprint: str) -> dict[str, Any]:
    """What a full reconcile was made from; the status' digest is added once it is written."""
    resource = scope.resource
    in_sync = pending is None and scope.serves
    return {
        "uid": resource.uid,
        "generation": resource.generation,
        "secret": _version(scope.secret),
        "ca": _version(scope.ca_source),
        "token": scope.token or before.get("token"),
        "fingerprint": fingerprint,
        "seen": scope.secret_mac or before.get("seen"),
        "applied": applied(resource.spec) if in_sync else before.get("applied"),
        "wake": _wake(pending),
    }


def _wake(pending: Pending | None) -> float | None:
    """When a restarted operator must look again, whatever else is as it was."""
    if pending is None:
        return None
    grace = pending.since + GRACE
    return grace if pending.next_at is None else min(pending.next_at, grace)


def _version(source: Source | None) -> list[str] | None:
    return [source.uid, source.resource_version] if source else None
