"""What the vault's rows say, without what is encrypted in them."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

OPERATOR = "operator"


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
    test_status: str
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
