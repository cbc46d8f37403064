"""The reconcile of a Connector on a real vault, with a cluster and a type that do as they are told."""

import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import Field, SecretStr

from honeyframe_connectors.connector_type import Category, Checkup, ConnectorConfig, ConnectorType, Guard, Mark
from honeyframe_connectors.errors import CheckFailed, Reason, Refused, Waiting
from honeyframe_connectors.probe import Gate
from honeyframe_connectors.registry import Registry
from honeyframe_connectors.store.database import Database
from honeyframe_connectors.targets import Targets
from honeyframe_connectors.vault.keyring import Keyring
from honeyframe_connectors.vault.rows import Owner
from honeyframe_connectors.vault.vault import RowChanged, Vault
from reconcilers.connector import Connectors
from reconcilers.ports import Content, Resource, Source
from tests.support.stores import sqlite_url

SECRET = secrets.token_bytes(32)
NO = Refused(Reason.AUTHENTICATION_FAILED, "no")


class ToldConfig(ConnectorConfig):
    """A config."""

    host: Annotated[str, Mark.DESTINATION] = Field(description="Where.")
    password: Annotated[SecretStr | None, Mark.SECRET] = Field(default=None, description="Who.")


class Told(ConnectorType[ToldConfig]):
    """A type whose checks end as they are told."""

    name = "told"
    title = "Told"
    category = Category.DATABASE
    driver = None
    steps = ("authenticate",)
    guard = Guard.PINNED
    config = ToldConfig

    def __init__(self) -> None:
        self.answers: dict[str, CheckFailed] = {}
        self.logins = 0

    async def check(self, config: ToldConfig, checkup: Checkup) -> None:
        self.logins += 1
        password = config.password.get_secret_value() if config.password else ""
        for part in (password, config.host):
            if part in self.answers:
                raise self.answers[part]
        checkup.passed("authenticate")


@dataclass
class ToldCluster:
    data: dict[str, bytes] = field(default_factory=lambda: {"password": b"good-one"})
    version: int = 1
    object_uid: str = "uid"

    def owner(self, namespace: str) -> Owner:
        return Owner("cluster", "namespace-uid", "acme", namespace)

    async def source(self, kind: str, namespace: str, name: str) -> Source | None:
        return Source("secret-uid", str(self.version), labelled=True)

    async def content(self, kind: str, namespace: str, name: str) -> Content | None:
        return Content(Source("secret-uid", str(self.version), labelled=True), self.data)

    async def uid(self, kind: str, namespace: str, name: str) -> str | None:
        return self.object_uid

    async def namespace_uid(self, namespace: str) -> str | None:
        return "namespace-uid"

    async def kinds_intact(self) -> bool:
        return True

    def put(self, password: bytes) -> None:
        self.data, self.version = {"password": password}, self.version + 1


@dataclass
class Bench:
    connectors: Connectors
    type: Told
    cluster: ToldCluster
    now: float = 1_800_000_000.0
    resource: Resource = field(
        default_factory=lambda: Resource(
            "ns", "c", "uid", 1, "", {}, {"config": {"told": {"host": "h"}}, "secretRef": {"name": "s"}}, {}
        )
    )

    async def look(self) -> dict[str, Any]:
        """One reconcile, with its status kept as the API server would; conditions by type, and when it looks again."""
        outcome = await self.connectors.reconcile(self.resource)
        self.resource = replace(self.resource, status=outcome.status)
        await self.connectors.remember(self.resource, outcome)
        found: dict[str, Any] = {each["type"]: each for each in outcome.status["conditions"]}
        return {**found, "after": outcome.requeue_after, "retry": outcome.retry}

    def edit(self, **spec: Any) -> None:
        self.resource = replace(
            self.resource, generation=self.resource.generation + 1, spec={**self.resource.spec, **spec}
        )

    def later(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    database = Database(sqlite_url(tmp_path))
    type_, cluster = Told(), ToldCluster()
    connectors = Connectors(
        registry=Registry([type_]),
        vault=Vault(database, Keyring(SECRET)),
        cluster=cluster,
        targets=Targets(),
        gate=Gate(),
        fence=lambda: None,
        flags="[]",
    )
    await connectors.load("cluster")
    found = Bench(connectors, type_, cluster)
    connectors.clock = lambda: found.now
    yield found
    await database.close()


def shut(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store takes no writes."""

    async def refuse(*_: Any, **__: Any) -> None:
        raise Waiting(Reason.VAULT_UNAVAILABLE, "the store is away")

    monkeypatch.setattr(bench.connectors.vault, "update", refuse)


async def test_no_login_before_its_time_while_the_store_takes_no_writes(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.type.answers["bad"] = NO
    bench.cluster.put(b"bad")
    shut(bench, monkeypatch)
    for _ in range(4):
        found = await bench.look()
        assert found["Ready"]["reason"] == "VaultUnavailable"
        assert found["retry"] is not None
    assert bench.type.logins == 1
    monkeypatch.undo()
    assert (await bench.look())["Ready"]["reason"] == "AuthenticationFailed"
    assert bench.type.logins == 1
    bench.later(21)
    await bench.look()
    assert bench.type.logins == 2


async def test_a_check_that_cannot_be_tried_is_looked_at_at_the_next_interval(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bench.look()
    bench.connectors._drivers_found.clear()
    monkeypatch.setattr(Told, "driver", "no_such_driver_anywhere")
    for number in range(1, 4):
        bench.later(301)
        found = await bench.look()
        assert found["Healthy"]["reason"] == "DriverMissing"
        assert found["after"] > 1
        assert found["Ready"]["status"] == ("True" if number < 3 else "False")


async def test_an_unreadable_spec_says_so_while_a_version_goes_on_serving(bench: Bench) -> None:
    await bench.look()
    bench.edit(timeout="0s")
    bench.later(301)
    found = await bench.look()
    assert (found["Ready"]["reason"], found["Healthy"]["status"]) == ("InvalidConfig", "True")
    assert bench.resource.status["servedVersion"] == 1


@pytest.mark.parametrize("suspend", [False, True])
async def test_a_reason_that_somebody_made_up_stops_nothing(bench: Bench, suspend: bool) -> None:
    await bench.look()
    bench.edit(suspend=suspend)
    made_up = [{**each, "reason": "Foo", "status": "False"} for each in bench.resource.status["conditions"]]
    bench.resource = replace(bench.resource, status={**bench.resource.status, "conditions": made_up})
    bench.connectors._memories.clear()
    found = await bench.look()
    assert suspend or found["Ready"]["status"] == "True"


async def test_a_config_that_does_not_pass_says_nothing_of_the_secret(bench: Bench) -> None:
    await bench.look()
    bench.type.answers["typo"] = Refused(Reason.TARGET_NOT_FOUND, "not there")
    bench.edit(config={"told": {"host": "typo"}})
    found = await bench.look()
    assert (found["Ready"]["status"], found["Ready"]["reason"]) == ("False", "TargetNotFound")
    assert found["CredentialsInSync"]["status"] == "True"
    assert found["Healthy"]["status"] == "True"
    bench.later(601)
    assert "Stalled" in await bench.look()


async def test_a_secret_that_does_not_pass_says_nothing_of_the_config(bench: Bench) -> None:
    await bench.look()
    bench.type.answers["bad"] = NO
    bench.cluster.put(b"bad")
    found = await bench.look()
    assert found["Ready"]["status"] == "True"
    assert (found["CredentialsInSync"]["status"], found["ConfigValid"]["status"]) == ("False", "True")


async def test_a_token_that_is_too_long_is_none(bench: Bench) -> None:
    token = "2027-01-01T00:00:00." + "1" * 80 + "Z"
    bench.resource = replace(bench.resource, annotations={"reconcile.fluxcd.io/requestedAt": token})
    await bench.look()
    assert "lastHandledReconcileAt" not in bench.resource.status


async def test_a_row_that_someone_else_wrote_is_no_ill_health(bench: Bench) -> None:
    await bench.look()
    ledger = bench.connectors.ledger
    assert ledger is not None
    (row,) = ledger.of("ns", "c")
    await bench.connectors.vault.update(row, display_name="other")  # behind the ledger's back
    bench.later(301)
    with pytest.raises(RowChanged):
        await bench.look()
    assert (await bench.look())["Healthy"]["status"] == "True"


async def test_made_again_after_a_delete_that_was_missed(bench: Bench) -> None:
    first = await bench.look()
    assert first["Ready"]["status"] == "True"
    identifier = bench.resource.status["connectorId"]
    for number in range(3):
        bench.resource = replace(bench.resource, uid=f"uid-{number}", status={})
        bench.cluster.object_uid = bench.resource.uid
        assert (await bench.look())["Ready"]["status"] == "True"
        assert bench.resource.status["connectorId"] == identifier
        assert (await bench.look())["Ready"]["status"] == "True"
    assert bench.type.logins == 1, "what was proven by its Secret is not probed again"
