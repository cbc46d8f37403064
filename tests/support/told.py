"""The reconcile of a Connector on a real vault, with a cluster and a type that do as they are told."""

import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Annotated, Any

from pydantic import Field, SecretStr

from honeyframe_connectors.connector_type import Category, Checkup, ConnectorConfig, ConnectorType, Guard, Mark
from honeyframe_connectors.errors import CheckFailed, Reason, Refused, Unanswered
from honeyframe_connectors.probe import Gate
from honeyframe_connectors.registry import Registry
from honeyframe_connectors.store.database import Database
from honeyframe_connectors.targets import Targets
from honeyframe_connectors.vault.keyring import Keyring
from honeyframe_connectors.vault.refusals import Refusals
from honeyframe_connectors.vault.rows import Owner
from honeyframe_connectors.vault.vault import Vault
from reconcilers.connector import Connectors
from reconcilers.logins import Logins
from reconcilers.ports import Content, Resource, Source

SECRET = secrets.token_bytes(32)
NO = Refused(Reason.AUTHENTICATION_FAILED, "no")
SILENT = Unanswered(Reason.CONNECTION_FAILED, "nobody answers")


class ToldConfig(ConnectorConfig):
    """A config."""

    host: Annotated[str, Mark.DESTINATION, Mark.MAPPABLE] = Field(description="Where.")
    user: Annotated[str, Mark.ACCOUNT, Mark.MAPPABLE] = Field(default="someone", description="As whom.")
    database: str = Field(default="main", description="What.")
    tls: int = Field(default=0, description="How strictly.")
    password: Annotated[SecretStr | None, Mark.SECRET] = Field(default=None, description="Who.")
    token: Annotated[SecretStr | None, Mark.SECRET] = Field(default=None, description="Who else.")


class Told(ConnectorType[ToldConfig]):
    """A type whose checks end as they are told; what was dialled is kept."""

    name = "told"
    title = "Told"
    category = Category.DATABASE
    driver = None
    steps = ("authenticate",)
    guard = Guard.PINNED
    config = ToldConfig

    def __init__(self) -> None:
        self.answers: dict[str, CheckFailed] = {}
        """By a password, host or database."""
        self.dialled: list[tuple[str, str]] = []
        """Host and password of every login."""

    @property
    def logins(self) -> int:
        return len(self.dialled)

    def endpoints(self, config: ToldConfig) -> tuple[tuple[str, int], ...]:
        return ((config.host, 1),)

    def strictness(self, config: ToldConfig, ca: bytes | None) -> int:
        return config.tls

    async def check(self, config: ToldConfig, checkup: Checkup) -> None:
        password = config.password.get_secret_value() if config.password else ""
        self.dialled.append((config.host, password))
        for part in (config.host, config.database, password):
            if part in self.answers:
                raise self.answers[part]
        checkup.passed("authenticate")


@dataclass
class ToldCluster:
    """Secrets by name; None: there is none."""

    data: dict[str, bytes] | None = field(default_factory=lambda: {"password": b"good-one"})
    version: int = 1
    labelled: bool = True
    targets: str | None = None
    reason: str = ""
    namespace: str = "namespace-uid"
    object_uid: str | None = "uid"

    def owner(self, namespace: str) -> Owner:
        return Owner("cluster", self.namespace, "acme", namespace)

    async def source(self, kind: str, namespace: str, name: str) -> Source | None:
        if self.data is None:
            return None
        return Source("secret-uid", str(self.version), self.labelled, self.targets, self.reason)

    async def content(self, kind: str, namespace: str, name: str) -> Content | None:
        source = await self.source(kind, namespace, name)
        return Content(source, (self.data or {}) if self.labelled else {}) if source else None

    async def uid(self, kind: str, namespace: str, name: str) -> str | None:
        return self.object_uid

    async def namespace_uid(self, namespace: str) -> str | None:
        return self.namespace

    async def kinds_intact(self) -> bool:
        return True

    def put(self, password: bytes | None, **others: bytes) -> None:
        """Write the Secret, or delete it."""
        self.data = None if password is None else {"password": password, **others}
        self.version += 1


@dataclass
class Bench:
    """One Connector."""

    connectors: Connectors
    type: Told
    cluster: ToldCluster
    now: float = 1_800_000_000.0
    resource: Resource = field(
        default_factory=lambda: Resource(
            "ns", "c", "uid", 1, "", {}, {"config": {"told": {"host": "h"}}, "secretRef": {"name": "s"}}, {}
        )
    )
    news: list[tuple[str, str]] = field(default_factory=list)
    """Reason and message of what was told."""

    async def look(self) -> dict[str, Any]:
        """One reconcile, with its status kept as the API server would; conditions by type, and when it looks again."""
        self.cluster.object_uid = self.resource.uid
        outcome = await self.connectors.reconcile(self.resource)
        self.news += [(str(each.reason), each.message) for each in outcome.news]
        self.resource = replace(self.resource, status=outcome.status)
        await self.connectors.remember(self.resource, outcome)
        found: dict[str, Any] = {each["type"]: each for each in outcome.status["conditions"]}
        return {**found, "after": outcome.requeue_after, "retry": outcome.retry}

    def edit(self, **spec: Any) -> None:
        self.resource = replace(
            self.resource, generation=self.resource.generation + 1, spec={**self.resource.spec, **spec}
        )

    def config(self, **fields: Any) -> None:
        self.edit(config={"told": {"host": "h", **fields}})

    def annotate(self, name: str, value: str) -> None:
        self.resource = replace(self.resource, annotations={**self.resource.annotations, name: value})

    def later(self, seconds: float) -> None:
        self.now += seconds

    @property
    def status(self) -> dict[str, Any]:
        return dict(self.resource.status)

    @property
    def credentials(self) -> dict[str, Any]:
        return dict(self.resource.status["credentials"])

    async def serving(self) -> tuple[str, str]:
        """Host and password of what serves, from the vault."""
        assert self.connectors.ledger is not None
        (row,) = [each for each in self.connectors.ledger.of("ns", "c") if each.deleted_at is None]
        version = await self.connectors.vault.serving(row, frozenset())
        return str(version.config["host"]), version.secrets["password"].decode()


def connectors_on(database: Database, type_: Told, cluster: ToldCluster) -> Connectors:
    """A reconciler that has read nothing yet."""
    vault = Vault(database, Keyring(SECRET))
    return Connectors(
        registry=Registry([type_]),
        vault=vault,
        cluster=cluster,
        logins=Logins(Refusals(database, vault)),
        targets=Targets(),
        gate=Gate(),
        fence=lambda: None,
        flags="[]",
    )


@asynccontextmanager
async def told_bench(url: str) -> AsyncIterator[Bench]:
    """A Connector, its Secret and its target."""
    database = Database(url)
    type_, cluster = Told(), ToldCluster()
    connectors = connectors_on(database, type_, cluster)
    await connectors.load("cluster")
    found = Bench(connectors, type_, cluster)
    connectors.clock = connectors.logins.clock = lambda: found.now
    try:
        yield found
    finally:
        await database.close()
