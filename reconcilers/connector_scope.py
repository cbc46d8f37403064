"""What one reconcile of a Connector learns, and what is kept in memory between two."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from honeyframe_connectors.api.connector import ConnectorSpec
from honeyframe_connectors.api.kinds import seconds
from honeyframe_connectors.connector_type import CheckResult, ConnectorConfig, ConnectorType
from honeyframe_connectors.errors import ConnectorError, Stalled
from honeyframe_connectors.vault.rows import ConnectorRow, Owner, Version
from reconcilers.attempts import Pending
from reconcilers.candidate import Candidate
from reconcilers.ports import Resource, Source
from reconcilers.steps import News

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class RollbackToken:
    """To which version, and the time that makes it one of a kind."""

    version: int
    at: str


@dataclass(slots=True)
class Memory:
    """What is known of an object between two reconciles and may be forgotten. Times are seconds since the epoch."""

    failures: int = 0
    error: ConnectorError | None = None
    next_check: float = 0.0
    next_full: float = 0.0
    unavailable_since: float | None = None
    endpoints: tuple[int, tuple[tuple[str, int], ...]] | None = None
    """A version that served, and where it connects to."""
    pending: Pending | None = None
    """What the row should say is pending, where that could not be written: no login is tried before its time."""


@dataclass(slots=True)
class Scope:
    """What the steps of one reconcile learn."""

    resource: Resource
    memory: Memory
    now: float
    token: str | None
    """A reconcile token that was not acted on yet."""
    spec: ConnectorSpec | None = None
    type: ConnectorType[Any] | None = None
    declared: Mapping[str, Any] = field(default_factory=dict)
    owner: Owner | None = None
    row: ConnectorRow | None = None
    secret: Source | None = None
    ca_source: Source | None = None
    values: Mapping[str, bytes] = field(default_factory=dict, repr=False)
    ca: bytes | None = None
    config: ConnectorConfig | None = field(default=None, repr=False)
    config_mac: str = ""
    secret_mac: str = ""
    kept: Version | None = field(default=None, repr=False)
    """The version that a sentinel of bullets keeps values of."""
    candidate: Candidate | None = None
    """What is to serve."""
    serving: Version | None = field(default=None, repr=False)
    """What served, opened."""
    revoked_by: Stalled | None = None
    """Why its Secret does not let it serve."""
    turned_away_at: float | None = None
    """When what serves was turned away, as far as anybody noticed."""
    problem: ConnectorError | None = None
    """Why the whole may not be dialled."""
    rollback: RollbackToken | None = None
    """A rollback token that was not acted on yet."""
    news: list[News] = field(default_factory=list)
    """What people are told once."""
    tried: bool = False
    again_at: float | None = None
    """When a login that was refused before may be tried again; nothing was dialled."""
    committed: int | None = None
    """The version that this reconcile made."""
    result: CheckResult | None = None
    """A check of what serves, made in this reconcile."""

    @property
    def serves(self) -> bool:
        """Whether a version serves."""
        row = self.row
        return row is not None and row.serving_version is not None and not row.revoked and row.deleted_at is None

    @property
    def interval(self) -> float:
        """Seconds between checks; 0: on change only."""
        return seconds(self.spec.interval) if self.spec else seconds(str(self.resource.spec.get("interval", "5m")))


def required(value: T | None) -> T:
    """What an earlier step has set; a step that needs it says so in its `needs`."""
    if value is None:
        raise AssertionError("a step ran before one that it needs")
    return value
