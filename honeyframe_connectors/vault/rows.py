"""What the vault's rows say, without what is encrypted in them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Literal

TestStatus = Literal["passed", "skipped", "failed", "rollback"]
"""How a version's test went: passed, cannot be tested, let in by force, or passed and brought back."""

OPERATOR = "operator"
UNKNOWN_MAC = "unknown"
"""Stands for the MAC of values that were not at hand when a row got new keys. As a content it is none that there is; as
what is held, it is whatever the Secret shows: who finds it there holds that, by its MAC, from then on."""


@dataclass(frozen=True, slots=True)
class Owner:
    """Whose a row is: a namespace of a cluster."""

    cluster_id: str
    """Empty for the platform's own rows."""
    namespace_uid: str
    """Empty where the row was handed over to a cluster, until its Connector is seen there."""
    org: str
    project: str
    """The namespace's name."""


@dataclass(frozen=True, slots=True)
class ConnectorRow:
    """A row of `data_connectors` that an operator keeps."""

    id: str
    owner: Owner
    name: str
    display_name: str
    type: str
    category: str
    object_uid: str
    """The object that it was last made from."""
    deleted_at: datetime | None
    serving_version: int | None
    last_version: int
    """The greatest number ever given: none is used twice."""
    config: Mapping[str, Any]
    """The clean config of what serves; empty before."""
    config_mac: str | None
    """Keyed MAC of the declared config and CA that serve."""
    secret_mac: str | None
    """Keyed MAC of the secret values that serve."""
    secret_name: str | None
    """The Secret that they came from."""
    revoked: bool
    held: str | None
    """Keyed MAC of the secret values that a rollback holds back, whatever shows them."""
    forced: bool
    """What serves was let in by force, and no check of it has passed yet."""
    handled_rollback_at: str | None
    """The time of the rollback token that was handled last."""
    deletion_policy: str
    """Delete, or Retain: never purged."""
    purge_at: datetime | None
    """When a deleted row goes for good."""
    pending: Mapping[str, Any] | None
    """The content that does not serve yet, as the reconciler keeps it."""
    observed: Mapping[str, Any] | None
    """What the last settled reconcile saw, as the reconciler keeps it."""
    revision: str
    """Random, another with every write."""
    wrapped_keys: bytes = field(repr=False)
    row_mac: str = field(repr=False, default="")
    """Keyed MAC of whose the row is, its name and what serves."""
    managed_by: str = OPERATOR
    """Who keeps it: the operator, or a part of the platform."""


@dataclass(frozen=True, slots=True)
class Version:
    """A config with the secret values and the CA that it was accepted with."""

    number: int
    config: Mapping[str, Any]
    secrets: Mapping[str, bytes] = field(repr=False)
    ca: bytes | None


@dataclass(frozen=True, slots=True)
class VersionInfo:
    """What may be shown of a version."""

    number: int
    at: datetime
    test_status: TestStatus
    reason: str
    restored_from: int | None
    secret_mac: str | None
    """Keyed MAC of its secret values."""


@dataclass(frozen=True, slots=True)
class Deleted:
    """A deleted row, as far as a purge needs it."""

    id: str
    org: str
    project: str
    name: str
    cluster_id: str
    deleted_at: datetime
    deletion_policy: str
    purge_at: datetime | None
    revision: str


@dataclass(frozen=True, slots=True)
class OrgRow:
    """A row of `orgs`."""

    name: str
    adapters: list[dict[str, Any]]
    engine_profile: str
    holder: Mapping[str, Any] | None
    """The CatalogConfig that declares it: namespace, name, uid."""


def connector_row(found: Any) -> ConnectorRow:
    """A row of `data_connectors` as it was read."""
    return ConnectorRow(
        id=found.id,
        owner=Owner(found.cluster_id or "", found.namespace_uid or "", found.org, found.project),
        name=found.name,
        display_name=found.display_name,
        type=found.type,
        category=found.category,
        object_uid=found.object_uid or "",
        deleted_at=found.deleted_at,
        serving_version=found.serving_version,
        last_version=found.last_version,
        config=found.config,
        config_mac=found.config_mac,
        secret_mac=found.secret_mac,
        secret_name=found.secret_name,
        revoked=found.revoked,
        held=found.held,
        forced=found.forced,
        handled_rollback_at=found.handled_rollback_at,
        deletion_policy=found.deletion_policy,
        purge_at=found.purge_at,
        pending=found.pending,
        observed=found.observed,
        revision=found.revision,
        wrapped_keys=found.wrapped_keys or b"",
        row_mac=found.row_mac or "",
        managed_by=found.managed_by,
    )
