"""Whose a row is: deleted, found again, adopted, handed over, purged; on a real vault, with a cluster as told."""

import asyncio
import json
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import Field, SecretStr
from sqlalchemy import func, insert, select, update
from typer.testing import CliRunner

from honeyframe_connectors.api.kinds import now
from honeyframe_connectors.backfill.secrets import backfill_secrets
from honeyframe_connectors.cli.rows import app
from honeyframe_connectors.connector_type import Category, Checkup, ConnectorConfig, ConnectorType, Guard, Mark
from honeyframe_connectors.errors import Reason, Stalled, TryAgain
from honeyframe_connectors.probe import Gate
from honeyframe_connectors.registry import Registry
from honeyframe_connectors.store.database import Database
from honeyframe_connectors.store.tables import audit_log, connector_secret_history, connector_tests, data_connectors
from honeyframe_connectors.targets import Targets
from honeyframe_connectors.vault.claim import claim, claiming_cluster, refuse_while_at_work
from honeyframe_connectors.vault.clusters import Leadership
from honeyframe_connectors.vault.keyring import Keyring
from honeyframe_connectors.vault.purge import deleted, purge
from honeyframe_connectors.vault.refusals import Refusals
from honeyframe_connectors.vault.rows import ConnectorRow, Owner
from honeyframe_connectors.vault.vault import Vault
from reconcilers.connector import Connectors
from reconcilers.logins import Logins
from reconcilers.ports import Content, Resource, Source
from reconcilers.upkeep import Upkeep
from tests.support.older import OlderRow, make_older_install
from tests.support.stores import TUNING

SECRET = secrets.token_hex(32).encode()
GOOD = b"good-planted-Passw0rd"
ADOPT = "honeyframe.io/adopt"


class AConfig(ConnectorConfig):
    """A config."""

    host: Annotated[str, Mark.DESTINATION] = Field(description="Where.")
    username: Annotated[str, Mark.MAPPABLE] = Field(default="u", description="Who.")
    password: Annotated[SecretStr | None, Mark.SECRET] = Field(default=None, description="The proof.")
    pool_size: Annotated[int, Mark.TUNING] = Field(default=5, description="How many.")


class AType(ConnectorType[AConfig]):
    """A type whose checks pass, and are counted."""

    name = "atype"
    title = "A type"
    aliases = ("oldname",)
    category = Category.DATABASE
    driver = None
    steps = ("authenticate",)
    guard = Guard.PINNED
    config = AConfig
    logins = 0

    async def check(self, config: AConfig, checkup: Checkup) -> None:
        self.logins += 1
        checkup.passed("authenticate")


class BType(AType):
    """Another type."""

    name = "btype"
    aliases = ()


@dataclass
class ACluster:
    cluster_id: str = "blue"
    org: str = "acme"
    namespace: str = "ns-uid"
    seen_namespace: str = ""
    """What a watch that is behind shows."""
    data: dict[str, bytes] = field(default_factory=lambda: {"password": GOOD})
    there: bool = True
    uids: dict[str, str] = field(default_factory=dict)
    intact: bool = True

    def owner(self, namespace: str) -> Owner:
        return Owner(self.cluster_id, self.seen_namespace or self.namespace, self.org, namespace)

    async def source(self, kind: str, namespace: str, name: str) -> Source | None:
        return Source("secret-uid", "1", labelled=True) if self.there else None

    async def content(self, kind: str, namespace: str, name: str) -> Content | None:
        return Content(Source("secret-uid", "1", labelled=True), self.data) if self.there else None

    async def uid(self, kind: str, namespace: str, name: str) -> str | None:
        return self.uids.get(name)

    async def namespace_uid(self, namespace: str) -> str | None:
        return self.namespace

    async def kinds_intact(self) -> bool:
        return self.intact


@dataclass
class Bench:
    database: Database
    vault: Vault
    connectors: Connectors
    upkeep: Upkeep
    cluster: ACluster
    type: AType
    looked_at: list[tuple[str, str]]
    now: float = 1_800_000_000.0

    async def apply(
        self, name: str, uid: str = "", *, adopt: str = "", secret: bool = True, type_: str = "atype", **spec: Any
    ) -> dict[str, Any]:
        """One reconcile of a Connector; its status, conditions by type."""
        self.cluster.uids[name] = uid = uid or f"uid-{name}"
        config = {"config": {type_: {"host": "h"}}, **({"secretRef": {"name": "s"}} if secret else {})}
        annotations = {ADOPT: adopt} if adopt else {}
        outcome = await self.connectors.reconcile(Resource("ns", name, uid, 1, "", annotations, {**config, **spec}, {}))
        return {**outcome.status, **{each["type"]: each for each in outcome.status["conditions"]}}

    async def delete(self, name: str) -> None:
        self.cluster.uids.pop(name, None)
        await self.connectors.gone("ns", name, None)

    async def row(self, name: str) -> ConnectorRow:
        (row,) = await self.rows(name)
        return row

    async def rows(self, name: str) -> list[ConnectorRow]:
        """As the database has them, which is as the ledger does."""
        ledger = self.connectors.ledger
        assert ledger is not None
        found = await self.database.read(
            lambda connection: connection.scalars(
                select(data_connectors.c.id).where(data_connectors.c.name == name)
            ).all()
        )
        rows = [row for row_id in found if (row := await self.vault.load(row_id)) is not None]
        assert {row.id: row for row in ledger.of("ns", name)} == {row.id: row for row in rows}
        return rows

    async def audited(self) -> list[str]:
        return await self.database.read(
            lambda connection: list(connection.scalars(select(audit_log.c.action).order_by(audit_log.c.id)))
        )

    async def count(self, table: Any) -> int:
        return await self.database.read(lambda c: c.scalar(select(func.count()).select_from(table)) or 0)

    async def execute(self, statement: Any, values: Any = None) -> None:
        await self.database.write(lambda connection: connection.execute(statement, values), guarded=False)


@pytest.fixture
async def bench(url: str) -> AsyncIterator[Bench]:
    async with opened_bench(url) as found:
        yield found


@asynccontextmanager
async def opened_bench(url: str) -> AsyncIterator[Bench]:
    database = Database(url)
    vault, cluster, type_, looked_at = Vault(database, Keyring(SECRET)), ACluster(), AType(), []
    connectors = Connectors(
        registry=Registry([type_, BType()]), vault=vault, cluster=cluster, logins=Logins(Refusals(database, vault)),
        targets=Targets(), gate=Gate(), fence=lambda: None, flags="[]",
    )  # fmt: skip
    await connectors.load("blue")
    upkeep = Upkeep(connectors, database, "blue", look=lambda namespace, name: looked_at.append((namespace, name)))
    found = Bench(database, vault, connectors, upkeep, cluster, type_, looked_at)
    connectors.clock = connectors.logins.clock = upkeep.clock = lambda: found.now
    yield found
    await database.close()


# --- deletion and purge ----------------------------------------------------------------------------------------------


async def test_a_deleted_row_goes_in_its_time_with_its_history(bench: Bench) -> None:
    first = await bench.apply("c")
    assert first["servedVersion"] == 1
    (row,) = await bench.rows("c")
    test = {"id": "t", "connector_id": row.id, "org": "acme", "project": "ns", "type": "atype", "ok": True}
    await bench.execute(insert(connector_tests), {**test, "latency_ms": 1, "steps": [], "at": now()})
    await bench.delete("c")
    row = await bench.row("c")
    assert row.deleted_at == datetime.fromtimestamp(bench.now, UTC)
    assert row.purge_at == row.deleted_at + timedelta(hours=24)
    bench.now += 86_399
    await bench.upkeep.tick()
    assert await bench.count(data_connectors) == 1
    bench.now += 1
    await bench.upkeep.tick()
    assert await bench.rows("c") == []
    assert [await bench.count(table) for table in (connector_secret_history, connector_tests)] == [0, 0]
    assert await bench.audited() == [
        "connector.created", "connector.accepted", "connector.deleted", "connector.purged",
    ]  # fmt: skip
    assert (await bench.apply("c", "another"))["servedVersion"] == 1


async def test_what_comes_back_loses_its_time(bench: Bench) -> None:
    first = await bench.apply("c")
    await bench.delete("c")
    bench.cluster.there = False
    assert "servedVersion" not in await bench.apply("c", "second")
    assert (await bench.row("c")).purge_at is not None
    bench.cluster.there = True
    again = await bench.apply("c", "second")
    assert (again["connectorId"], again["servedVersion"]) == (first["connectorId"], 1)
    assert (await bench.row("c")).purge_at is None
    await bench.delete("c")
    bench.cluster.data = {"password": b"rotated"}
    assert (await bench.apply("c", "third"))["servedVersion"] == 2
    row = await bench.row("c")
    assert (row.deleted_at, row.purge_at) == (None, None)
    bench.now += 8 * 86_400
    await bench.upkeep.tick()
    assert (await bench.row("c")).id == first["connectorId"]


@pytest.mark.parametrize("suspended", [False, True])
async def test_what_is_retained_is_never_purged(bench: Bench, suspended: bool) -> None:
    await bench.apply("c")
    await bench.apply("c", deletionPolicy="Retain", suspend=suspended)
    bench.cluster.intact = False
    await bench.delete("c")
    row = await bench.row("c")
    assert (row.deletion_policy, row.purge_at) == ("Retain", None)
    bench.now += 365 * 86_400
    await bench.upkeep.tick()
    assert (await bench.row("c")).id == row.id


async def test_the_brake_keeps_what_went_with_a_crd(bench: Bench) -> None:
    await bench.apply("c")
    bench.cluster.intact = False
    await bench.delete("c")
    row = await bench.row("c")
    assert row.deleted_at is not None
    assert row.purge_at == row.deleted_at + timedelta(days=7)


async def test_the_brake_keeps_many_that_went_at_once_and_says_so(
    bench: Bench, caplog: pytest.LogCaptureFixture
) -> None:
    halted: list[int] = []
    bench.upkeep.halted = halted.append
    bench.connectors.purge_after = timedelta(seconds=60)
    for number in range(12):
        await bench.apply(f"c{number}")
    for number in range(6):
        await bench.delete(f"c{number}")
    bench.now += 61
    await bench.upkeep.tick()
    assert await bench.count(data_connectors) == 6, "a few go in their time"
    for number in range(6, 11):
        await bench.delete(f"c{number}")
    bench.now += 61
    await bench.upkeep.tick()
    assert await bench.count(data_connectors) == 6, "what is purged already counts, too"
    assert halted[-1] == 5
    assert "ns/c6, ns/c7, ns/c8, ns/c9, ns/c10" in caplog.text
    assert "honeyframe vault purge --deleted" in caplog.text
    bench.now += 7 * 86_400
    await bench.upkeep.tick()
    assert await bench.count(data_connectors) == 1
    assert halted[-1] == 0


async def test_a_purge_leaves_what_was_written_meanwhile(bench: Bench) -> None:
    await bench.apply("c")
    await bench.delete("c")
    read = await deleted(bench.database, datetime.fromtimestamp(bench.now, UTC))
    await bench.apply("c", "again")
    assert await purge(bench.database, read, by="test") == []
    assert (await bench.row("c")).deleted_at is None


async def test_a_namespace_made_again_by_another_tenant(bench: Bench) -> None:
    first = await bench.apply("c")
    bench.cluster.namespace = "another-ns-uid"
    bench.cluster.data = {"password": b"another tenant's"}
    again = await bench.apply("c", "another")
    assert again["connectorId"] != first["connectorId"]
    old = await bench.vault.load(first["connectorId"])
    assert old is not None
    assert old.deleted_at is not None
    bench.cluster.data = {"password": GOOD}
    assert (await bench.apply("c", "another"))["connectorId"] == again["connectorId"], "not even with the same values"
    refused = await bench.apply("d", adopt=first["connectorId"])
    assert refused["Ready"]["reason"] == "NameConflict"
    assert "has no connector" in refused["Ready"]["message"]


async def test_a_watch_that_is_behind_gives_nobody_a_row(bench: Bench) -> None:
    first = await bench.apply("c", secret=False)
    await bench.delete("c")
    bench.cluster.namespace, bench.cluster.seen_namespace = "another-ns-uid", "ns-uid"
    with pytest.raises(TryAgain):
        await bench.apply("c", "another", secret=False)
    bench.cluster.seen_namespace = ""
    assert (await bench.apply("c", "another", secret=False))["connectorId"] != first["connectorId"]


async def test_of_another_type_it_is_another_connector(bench: Bench) -> None:
    first = await bench.apply("c")
    await bench.delete("c")
    second = await bench.apply("c", "b", type_="btype")
    assert second["connectorId"] != first["connectorId"]
    await bench.delete("c")
    assert (await bench.apply("c", "c"))["connectorId"] == first["connectorId"]


# --- adoption --------------------------------------------------------------------------------------------------------


async def platform_row(bench: Bench, name: str = "Warehouse (prod)", *, type_: str = "oldname", **columns: Any) -> str:
    """A row of the platform's own, as a backfill of its plaintext leaves it."""
    owner = Owner("", "", "acme", "ns")
    row = await bench.vault.create(owner, name=name, display_name=name, type=type_, category="database", object_uid="")
    row = await bench.vault.commit(
        row, config={"host": "h", "pool_size": 20}, tuning=TUNING, secrets={"password": GOOD}, config_mac="",
        secret_mac="", secret_name=None, ca=None, test_status="skipped", reason="",
    )  # fmt: skip
    values = {"managed_by": "ui", "cluster_id": None, "namespace_uid": None, "object_uid": None, **columns}
    await bench.execute(update(data_connectors).where(data_connectors.c.id == row.id), values)
    return row.id


async def test_a_row_of_the_platform_is_adopted_without_a_rotation(bench: Bench) -> None:
    row_id = await platform_row(bench)
    adopted = await bench.apply("warehouse", adopt=row_id, displayName="Warehouse")
    assert (adopted["connectorId"], adopted["servedVersion"], adopted["Ready"]["status"]) == (row_id, 1, "True")
    row = await bench.row("warehouse")
    assert (row.display_name, row.type, row.managed_by) == ("Warehouse", "atype", "operator")
    assert row.owner == Owner("blue", "ns-uid", "acme", "ns")
    assert bench.type.logins <= 1, "a check of what serves, and no probe"
    assert "connector.adopted" in await bench.audited()
    assert "connector.rotated" not in await bench.audited()
    restarted = Connectors(
        **{
            name: getattr(bench.connectors, name)
            for name in ("registry", "vault", "cluster", "logins", "targets", "gate", "fence", "flags")
        }
    )
    await restarted.load("blue")
    assert restarted.ledger is not None
    assert restarted.ledger.of("ns", "warehouse") == (row,)
    bench.cluster.data = {"password": b"rotated"}
    assert (await bench.apply("warehouse", adopt=row_id))["servedVersion"] == 2


@pytest.mark.parametrize("ids", ["text", "number"])
async def test_what_a_backfill_took_in_is_adopted_without_a_rotation(url: str, ids: str) -> None:
    """Plaintext of an older install, from the platform's own table to a Connector that serves it."""
    place = {"org_id": "acme", "project_id": "ns"}
    older = OlderRow("Warehouse", "oldname", {"host": "h", "password": GOOD.decode()}, extra=place)
    (row_id,) = make_older_install(url, [older], ids=ids, more=", org_id VARCHAR(20), project_id VARCHAR(20)")
    async with opened_bench(url) as bench:
        refused = await bench.apply("warehouse", adopt=row_id)
        assert "honeyframe backfill secrets" in refused["Ready"]["message"]
        await backfill_secrets(bench.database, bench.vault, bench.connectors.registry, lambda _: None, dry_run=False)
        assert (await bench.apply("warehouse", adopt="no-such-id"))["Ready"]["reason"] == "NameConflict"
        adopted = await bench.apply("warehouse", adopt=row_id)
        assert (adopted["connectorId"], adopted["servedVersion"], adopted["Ready"]["status"]) == (row_id, 1, "True")
        await bench.delete("warehouse")
        bench.now += 86_400
        await bench.upkeep.tick()
        assert await bench.count(data_connectors) == 0


async def test_only_who_has_the_values_adopts(bench: Bench) -> None:
    row_id = await platform_row(bench)
    for data in ({"password": b"guess"}, {"password": GOOD[:-1]}, {"password": GOOD + b"\n"}):
        bench.cluster.data = data
        refused = await bench.apply("warehouse", adopt=row_id)
        assert (refused["Ready"]["reason"], refused["Ready"]["status"]) == ("NameConflict", "False")
        assert GOOD.decode() not in json.dumps(refused)
        assert "connectorId" not in refused
    bench.cluster.data = {"password": "••••••••".encode()}
    assert (await bench.apply("warehouse", adopt=row_id))["Ready"]["status"] == "False"
    assert (await bench.apply("warehouse", adopt=row_id, secret=False))["Ready"]["status"] == "False"
    bench.cluster.there = False
    assert (await bench.apply("warehouse", adopt=row_id))["Ready"]["reason"] == "SecretNotFound"
    assert bench.type.logins == 0
    assert await bench.count(data_connectors) == 1
    row = await bench.vault.find(row_id)
    assert row is not None
    assert (row.managed_by, row.name, row.pending) == ("ui", "Warehouse (prod)", None)


@pytest.mark.parametrize(
    ("columns", "type_", "said"),
    [
        ({"org": "other"}, "oldname", "has no connector"),
        ({"project": "other"}, "oldname", "has no connector"),
        ({"deleted_at": now()}, "oldname", "has no connector"),
        ({}, "btype", "is of type btype"),
        ({"serving_version": None}, "oldname", "honeyframe backfill secrets"),
        ({"wrapped_keys": None}, "oldname", "honeyframe backfill secrets"),
        ({"managed_by": "operator", "cluster_id": "green"}, "oldname", "honeyframe vault claim --from-cluster green"),
    ],
)
async def test_what_cannot_be_adopted(bench: Bench, columns: dict[str, Any], type_: str, said: str) -> None:
    row_id = await platform_row(bench, type_=type_, **columns)
    refused = await bench.apply("warehouse", adopt=row_id)
    assert refused["Ready"]["reason"] == "NameConflict"
    assert said in refused["Ready"]["message"]


async def test_an_adopted_row_that_was_changed_by_hand_does_not_open(bench: Bench) -> None:
    row_id = await platform_row(bench, row_mac="0" * 64)
    assert (await bench.apply("warehouse", adopt=row_id))["Ready"]["reason"] == "VaultUnavailable"
    row = await bench.vault.find(row_id)
    assert row is not None
    assert row.managed_by == "ui"


async def test_a_name_that_the_platform_keeps_says_how_to_adopt_it(bench: Bench) -> None:
    row_id = await platform_row(bench, "warehouse")
    refused = await bench.apply("warehouse")
    assert refused["Ready"]["reason"] == "NameConflict"
    assert f'{ADOPT}: "{row_id}"' in refused["Ready"]["message"]
    assert (await bench.apply("warehouse", adopt=row_id))["connectorId"] == row_id


async def test_a_config_that_differs_is_tested_after_the_adoption(bench: Bench) -> None:
    row_id = await platform_row(bench)
    adopted = await bench.apply("warehouse", adopt=row_id, config={"atype": {"host": "another"}})
    assert (adopted["connectorId"], adopted["servedVersion"]) == (row_id, 2)


async def test_renaming_waits_for_the_old_one_to_go(bench: Bench) -> None:
    first = await bench.apply("old")
    bench.cluster.data = {"password": b"second"}
    assert (await bench.apply("old"))["servedVersion"] == 2
    waiting = await bench.apply("new", adopt=first["connectorId"])
    assert (waiting["Ready"]["reason"], waiting["Reconciling"]["status"]) == ("Progressing", "True")
    assert "kubectl -n ns delete connector old" in waiting["Ready"]["message"]
    told: list[str] = []
    bench.connectors.went = lambda row: told.append(row.id)
    await bench.delete("old")
    assert told == [first["connectorId"]]
    renamed = await bench.apply("new", adopt=first["connectorId"])
    assert (renamed["connectorId"], renamed["servedVersion"]) == (first["connectorId"], 2)
    row = await bench.row("new")
    assert (row.deleted_at, row.purge_at, row.display_name) == (None, None, "new")
    assert await bench.rows("old") == []
    assert len(await bench.vault.history(row.id)) == 2
    another = await bench.apply("old", "made again")
    assert another["connectorId"] != first["connectorId"]


async def test_renaming_needs_the_values_too(bench: Bench) -> None:
    first = await bench.apply("old")
    await bench.delete("old")
    bench.cluster.data = {"password": b"guess"}
    refused = await bench.apply("new", adopt=first["connectorId"])
    assert refused["Ready"]["reason"] == "NameConflict"
    assert (await bench.row("old")).deleted_at is not None


async def test_an_annotation_that_stays_in_git_changes_nothing(bench: Bench) -> None:
    row_id = await platform_row(bench)
    await bench.apply("warehouse", adopt=row_id)
    await bench.apply("warehouse", adopt="something-else")
    await bench.delete("warehouse")
    assert (await bench.apply("warehouse", "again", adopt=row_id))["connectorId"] == row_id


# --- a cluster that takes another's place ----------------------------------------------------------------------------


async def hand_over(bench: Bench, old: str, new: str) -> list[str]:
    return [each.error async for each in claim(bench.vault, await bench.vault.rows(old), new)]


async def test_a_rebuilt_cluster_takes_the_rows(bench: Bench) -> None:
    first = await bench.apply("c")
    gone = await bench.apply("gone")
    await bench.delete("gone")
    await bench.connectors.load("green")
    bench.cluster.cluster_id, bench.cluster.namespace, bench.upkeep.cluster_id = "green", "green-ns-uid", "green"
    conflict = await bench.apply("c", "green-uid")
    assert conflict["Ready"]["reason"] == "NameConflict"
    assert "honeyframe vault claim --from-cluster blue" in conflict["Ready"]["message"]
    assert await hand_over(bench, "blue", "green") == ["", ""]
    assert await hand_over(bench, "blue", "green") == [], "a second run finds nothing to do"
    await bench.upkeep.tick()
    assert sorted(bench.looked_at) == [("ns", "c"), ("ns", "gone")]
    logins = bench.type.logins
    again = await bench.apply("c", "green-uid")
    assert (again["connectorId"], again["servedVersion"]) == (first["connectorId"], 1)
    assert bench.type.logins <= logins + 1
    row = await bench.row("c")
    assert (row.owner, row.object_uid) == (Owner("green", "green-ns-uid", "acme", "ns"), "green-uid")
    assert (await bench.apply("gone", "green-gone"))["connectorId"] == gone["connectorId"], "its history came along"
    await bench.upkeep.tick()
    assert len(bench.looked_at) == 2, "what was taken is not handed over any more"
    assert (await bench.audited()).count("connector.claimed") == 2


async def test_a_claimed_row_serves_nobody_who_does_not_have_its_values(bench: Bench) -> None:
    first = await bench.apply("c")
    await hand_over(bench, "blue", "green")
    await bench.connectors.load("green")
    bench.cluster.cluster_id, bench.cluster.namespace, bench.cluster.there = "green", "green-ns-uid", False
    logins = bench.type.logins
    waiting = await bench.apply("c", "green-uid")
    assert (waiting["connectorId"], "servedVersion" in waiting) == (first["connectorId"], False)
    assert bench.type.logins == logins
    bench.now += 6 * 86_400
    await bench.upkeep.tick()
    bench.cluster.there, bench.cluster.data = True, {"password": b"other"}
    assert (await bench.apply("c", "green-uid"))["servedVersion"] == 2, "tested first, as a first credential is"
    row = await bench.row("c")
    assert (row.deleted_at, row.purge_at) == (None, None)


async def test_a_suspended_connector_leaves_its_claimed_row_alone(bench: Bench) -> None:
    first = await bench.apply("c")
    await hand_over(bench, "blue", "green")
    await bench.connectors.load("green")
    bench.cluster.cluster_id, bench.cluster.namespace = "green", "green-ns-uid"
    assert (await bench.apply("c", "green-uid", suspend=True))["Ready"]["reason"] == "Suspended"
    assert (await bench.row("c")).deleted_at is None
    assert (await bench.apply("c", "green-uid"))["connectorId"] == first["connectorId"]


async def test_what_is_not_in_git_any_more_goes_as_usual(bench: Bench) -> None:
    await bench.apply("c")
    await hand_over(bench, "blue", "green")
    await bench.connectors.load("green")
    bench.cluster.cluster_id = "green"
    await bench.connectors.gone("ns", "c", None)
    assert (await bench.row("c")).purge_at is not None


async def test_the_old_operator_loses_its_rows_and_ends_none(bench: Bench) -> None:
    first = await bench.apply("c")
    await hand_over(bench, "blue", "green")
    bench.cluster.data = {"password": b"rotated"}
    with pytest.raises(TryAgain):
        await bench.apply("c")
    refused = await bench.apply("c")
    assert refused["Ready"]["reason"] == "NameConflict"
    row = await bench.vault.load(first["connectorId"])
    assert row is not None
    assert (row.owner.cluster_id, row.deleted_at) == ("green", None)


async def test_the_org_of_a_claimed_row_stays(bench: Bench) -> None:
    await bench.apply("c")
    await hand_over(bench, "blue", "green")
    await bench.connectors.load("green")
    bench.cluster.cluster_id, bench.cluster.namespace, bench.cluster.org = "green", "green-ns-uid", "other"
    assert (await bench.apply("c", "green-uid"))["Ready"]["reason"] == "OrgMismatch"


async def test_nobody_claims_from_a_cluster_at_work(bench: Bench) -> None:
    blue, green = Leadership(bench.database, "blue"), Leadership(bench.database, "green")
    await blue.take()
    with pytest.raises(Stalled, match=r"cluster blue is at work.*--force") as told:
        await refuse_while_at_work(bench.database, "blue")
    assert told.value.reason is Reason.CONFLICT
    await blue.release()
    await refuse_while_at_work(bench.database, "blue")
    await refuse_while_at_work(bench.database, "never-seen")
    with pytest.raises(Stalled, match=r"no other is at work.*--to-cluster"):
        await claiming_cluster(bench.database, "blue", None)
    await green.take()
    assert await claiming_cluster(bench.database, "blue", None) == "green"
    assert await claiming_cluster(bench.database, "blue", "other") == "other"
    with pytest.raises(Stalled, match="already"):
        await claiming_cluster(bench.database, "blue", "blue")


# --- the commands ----------------------------------------------------------------------------------------------------


@pytest.fixture
def store_flags(url: str, tmp_path: Path) -> list[str]:
    (tmp_path / "url").write_text(url + "\n")
    return ["--database-file", str(tmp_path / "url")]


async def run(*arguments: str) -> tuple[int, str, str]:
    result = await asyncio.to_thread(CliRunner().invoke, app, list(arguments))
    return result.exit_code, result.stdout, result.stderr


async def test_purge_takes_what_is_deleted_now(bench: Bench, store_flags: list[str]) -> None:
    bench.now = now().timestamp() - 7200
    for name in ("live", "old", "kept", "new"):
        await bench.apply(name, deletionPolicy="Retain" if name == "kept" else "Delete")
    await bench.delete("old")
    await bench.delete("kept")
    bench.now += 7100
    await bench.delete("new")
    assert (await run("purge", *store_flags))[0] == 2, "nothing goes without --deleted"
    code, out, err = await run("purge", "--deleted", "--older-than", "1h", "--dry-run", *store_flags)
    assert (code, out.split()[0], err) == (0, "ns/old", "would be purged: 1, not: 0\n")
    code, out, _ = await run("purge", "--deleted", "--older-than", "1h", "-o", "json", *store_flags)
    assert [each["connector"] for each in json.loads(out)] == ["ns/old"]
    assert (await run("purge", "--deleted", "--cluster", "green", *store_flags))[1] == ""
    assert (await run("purge", "--deleted", *store_flags))[1].split()[0] == "ns/new"
    assert await bench.count(data_connectors) == 2
    assert (await run("purge", "--deleted", "--retained", *store_flags))[1].split()[0] == "ns/kept"
    assert (await run("purge", "--deleted", "--older-than", "soon", *store_flags))[0] == 2
    code, _, err = await run("purge", "--deleted", "--database", "postgresql://u:hunter2@h/d")
    assert (code, "hunter2" in err, "--database-file" in err) == (2, False, True)
    assert (await bench.audited()).count("connector.purged") == 3
    bench.now += 8 * 86_400
    await bench.upkeep.tick()
    assert bench.connectors.ledger is not None
    assert [row.name for row in bench.connectors.ledger.rows()] == ["live", "kept"], (
        "it learns what somebody else purged"
    )


async def test_claim_hands_over_and_says_what_it_could_not(
    bench: Bench, store_flags: list[str], tmp_path: Path
) -> None:
    (tmp_path / "secret").write_bytes(SECRET + b"\n")
    flags = [*store_flags, "--secret-file", str(tmp_path / "secret"), "--from-cluster", "blue"]
    for name in ("a", "b"):
        await bench.apply(name)
    blue = Leadership(bench.database, "blue")
    await blue.take()
    code, _, err = await run("claim", *flags, "--to-cluster", "green")
    assert (code, "cluster blue is at work" in err) == (2, True)
    assert (await run("claim", *flags))[0] == 2, "nobody said which cluster"
    await blue.release()
    code, out, err = await run("claim", *flags, "--to-cluster", "green", "--dry-run")
    assert (code, err) == (0, "would be claimed: 2, not: 0\n")
    await bench.execute(update(data_connectors).where(data_connectors.c.name == "b"), {"row_mac": "0" * 64})
    code, out, err = await run("claim", *flags, "--to-cluster", "green", "-o", "json")
    assert code == 1
    assert {each["connector"]: "does not open" in each["error"] for each in json.loads(out)} == {
        "ns/a": False, "ns/b": True,
    }  # fmt: skip
    (tmp_path / "secret").write_text(secrets.token_hex(32))
    code, _, err = await run("claim", *flags, "--to-cluster", "green")
    assert (code, "--older-secret-files" in err) == (1, True)
    assert (await run("claim", *flags, "--database-file", str(tmp_path / "nowhere")))[0] == 2


async def test_a_claim_by_force_from_a_cluster_at_work(bench: Bench, store_flags: list[str], tmp_path: Path) -> None:
    (tmp_path / "secret").write_bytes(SECRET)
    await bench.apply("c")
    await Leadership(bench.database, "blue").take()
    code, out, _ = await run(
        "claim", *store_flags, "--secret-file", str(tmp_path / "secret"), "--from-cluster", "blue",
        "--to-cluster", "green", "--force",
    )  # fmt: skip
    assert (code, out.split()[0]) == (0, "ns/c")
