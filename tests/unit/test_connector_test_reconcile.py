"""The reconcile of a ConnectorTest on a real vault, with a cluster and a type that do as they are told."""

import asyncio
import secrets
from collections.abc import AsyncIterator
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import pytest
from pydantic import Field, SecretStr
from sqlalchemy import select

from honeyframe_connectors.api.connector_test import ConnectorTestStatus, Message
from honeyframe_connectors.connector_type import (
    Category,
    CheckResult,
    CheckStep,
    Checkup,
    ConnectorConfig,
    ConnectorType,
    Guard,
    Mark,
)
from honeyframe_connectors.connector_type import Outcome as StepOutcome
from honeyframe_connectors.errors import Reason, Refused, TryAgain, Waiting
from honeyframe_connectors.registry import Registry
from honeyframe_connectors.store.database import Database
from honeyframe_connectors.store.tables import connector_tests
from honeyframe_connectors.vault.answers import Answers
from honeyframe_connectors.vault.keyring import Keyring
from honeyframe_connectors.vault.rows import Owner
from honeyframe_connectors.vault.vault import Vault
from reconcilers import connector_test
from reconcilers.connector_test import MOST_UNANSWERED, ConnectorTests
from reconcilers.ledger import Ledger
from reconcilers.ports import Attempt, Content, Resource, Source
from reconcilers.steps import Outcome
from tests.support.stores import accept, sqlite_url

OWNER = Owner("cluster", "namespace-uid", "acme", "ns")
CREATED = datetime(2027, 1, 15, 8, 0, tzinfo=UTC)
NOT_APPLIED = {"connector": {"config": {"told": {"host": "h"}}, "secretRef": {"name": "s"}}}


class ToldConfig(ConnectorConfig):
    """A config."""

    host: Annotated[str, Mark.DESTINATION] = Field(description="Where.")
    password: Annotated[SecretStr | None, Mark.SECRET] = Field(default=None, description="Who.")


class Told(ConnectorType[ToldConfig]):
    """A type."""

    name = "told"
    title = "Told"
    category = Category.DATABASE
    driver = None
    steps = ("authenticate",)
    guard = Guard.PINNED
    config = ToldConfig

    async def check(self, config: ToldConfig, checkup: Checkup) -> None:
        raise AssertionError("logins are told here, not made")


@dataclass
class ToldCluster:
    data: dict[str, bytes] = field(default_factory=lambda: {"password": b"good-one"})
    labelled: bool = True
    there: bool = True
    connector_uid: str | None = "uid"
    deleted: list[tuple[str, ...]] = field(default_factory=list)

    def owner(self, namespace: str) -> Owner:
        return OWNER

    async def source(self, kind: str, namespace: str, name: str) -> Source | None:
        return Source("secret-uid", "1", self.labelled) if self.there else None

    async def content(self, kind: str, namespace: str, name: str) -> Content | None:
        return Content(Source("secret-uid", "1", self.labelled), self.data) if self.there else None

    async def uid(self, kind: str, namespace: str, name: str) -> str | None:
        return self.connector_uid

    async def delete(self, kind: str, namespace: str, name: str, uid: str) -> None:
        self.deleted.append((kind, namespace, name, uid))


def result(error: Refused | None = None) -> CheckResult:
    outcome = StepOutcome.PASSED if error is None else StepOutcome.FAILED
    return CheckResult((CheckStep("authenticate", outcome, ""),), error, latency_ms=12, server_version="9")


@dataclass
class Bench:
    tests: ConnectorTests
    cluster: ToldCluster
    vault: Vault
    database: Database
    now: float = CREATED.timestamp()
    logins: list[Attempt] = field(default_factory=list)
    told: CheckResult | Exception = field(default_factory=result)
    hang: asyncio.Event | None = None
    peers: list[Resource] = field(default_factory=list)

    async def login(self, attempt: Attempt) -> CheckResult:
        self.logins.append(attempt)
        if self.hang is not None:
            await self.hang.wait()
        if isinstance(self.told, Exception):
            raise self.told
        return self.told

    async def look(self, test: Resource) -> tuple[Resource, Outcome]:
        """One reconcile, with its status kept as the API server would."""
        outcome = await self.tests.reconcile(test)
        test = replace(test, status=outcome.status)
        ConnectorTestStatus.model_validate(outcome.status)
        await self.tests.remember(test, outcome)
        return test, outcome

    async def served(self, password: bytes = b"kept-one", **changes: Any) -> Any:
        """A Connector that serves."""
        row = await self.vault.create(
            OWNER, name="c", display_name="c", type="told", category="database", object_uid="uid"
        )
        row = await accept(self.vault, row, {"password": password}, {"host": "h"})
        if changes:
            row = await self.vault.update(row, **changes)
        ledger = self.tests.ledger()
        assert ledger is not None
        return ledger.put(row)

    async def history(self) -> list[Any]:
        return await self.database.read(lambda connection: list(connection.execute(select(connector_tests))))


def asked(name: str = "t", uid: str = "test-uid", created: str = "2027-01-15T08:00:00Z", **spec: Any) -> Resource:
    return Resource("ns", name, uid, 1, created, {}, spec, {"observedGeneration": -1})


def conditions(test: Resource) -> dict[str, Any]:
    return {each["type"]: each for each in test.status["conditions"]}


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    database = Database(sqlite_url(tmp_path))
    vault = Vault(database, Keyring(secrets.token_bytes(32)))
    await vault.open()
    cluster, ledger = ToldCluster(), Ledger()

    async def login(attempt: Attempt) -> CheckResult:
        return await found.login(attempt)

    tests = ConnectorTests(
        registry=Registry([Told()]),
        vault=vault,
        answers=Answers(database),
        cluster=cluster,
        login=login,
        fence=lambda: None,
        ledger=lambda: ledger,
        connector=lambda _namespace, _name: None,
        peers=lambda _namespace: found.peers,
        clock=lambda: found.now,
    )
    found = Bench(tests, cluster, vault, database)
    yield found
    await database.close()


async def test_yes(bench: Bench) -> None:
    row = await bench.served()
    test, outcome = await bench.look(asked(connectorRef={"name": "c"}))
    assert test.status["result"] == {
        "ok": True,
        "latencyMs": 12,
        "serverVersion": "9",
        "steps": [{"name": "authenticate", "passed": True}],
    }
    assert {name: each["status"] for name, each in conditions(test).items()} == {"Ready": "True", "Complete": "True"}
    assert outcome.requeue_after == 600
    (attempt,) = bench.logins
    assert attempt.config.password.get_secret_value() == "kept-one"  # type: ignore[attr-defined]
    assert (attempt.namespace_uid, attempt.known_good, attempt.timeout) == ("namespace-uid", True, 10.0)
    ((kept,),) = [await bench.history()]
    assert (kept.id, kept.connector_id, kept.project, kept.ok, kept.latency_ms) == ("test-uid", row.id, "ns", True, 12)


async def test_no(bench: Bench) -> None:
    bench.told = result(Refused(Reason.AUTHENTICATION_FAILED, "no"))
    test, _ = await bench.look(asked(**NOT_APPLIED))
    assert (test.status["result"]["ok"], test.status["result"]["error"]) == (False, "no")
    found = conditions(test)
    assert {name: each["status"] for name, each in found.items()} == {
        "Ready": "False",
        "Stalled": "True",
        "Failed": "True",
    }
    assert {each["reason"] for each in found.values()} == {"AuthenticationFailed"}
    (attempt,) = bench.logins
    assert attempt.config.password.get_secret_value() == "good-one"  # type: ignore[attr-defined]
    assert not attempt.known_good
    (kept,) = await bench.history()
    assert (kept.connector_id, kept.ok, kept.error) == (None, False, "no")


async def test_an_answered_one_is_never_asked_again(bench: Bench) -> None:
    test, _ = await bench.look(asked(**NOT_APPLIED))
    bench.now += 100
    assert bench.tests.known(test) == pytest.approx(500)
    again, _ = await bench.look(test)
    assert (again.status, len(bench.logins), bench.cluster.deleted) == (test.status, 1, [])
    bench.now += 501
    assert bench.tests.known(test) == 0
    await bench.look(test)
    assert bench.cluster.deleted == [("ConnectorTest", "ns", "t", "test-uid")]
    assert len(bench.logins) == 1


async def test_an_answer_that_could_not_be_written_is_given_again(bench: Bench) -> None:
    test = asked(**NOT_APPLIED)
    first = await bench.tests.reconcile(test)
    second = await bench.tests.reconcile(test)
    assert (second.status, len(bench.logins), len(await bench.history())) == (first.status, 1, 1)


async def test_a_target_that_hangs_holds_no_worker_and_is_asked_once(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(connector_test, "PATIENCE", 0.01)
    bench.hang = asyncio.Event()
    test, outcome = await bench.look(asked(**NOT_APPLIED))
    assert {name: each["reason"] for name, each in conditions(test).items()} == {
        "Ready": "Progressing",
        "Reconciling": "Progressing",
    }
    assert outcome.requeue_after == connector_test.LOOK_AGAIN
    bench.cluster.there = False  # what is asked is asked: its Secret is not read again
    before = test.status
    test, _ = await bench.look(test)
    assert (test.status, len(bench.logins)) == (before, 1)
    bench.hang.set()
    while "completedAt" not in test.status:
        test, _ = await bench.look(test)
    assert (test.status["result"]["ok"], len(bench.logins)) == (True, 1)


async def test_of_more_than_twenty_the_newest_are_refused(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connector_test, "PATIENCE", 0.0)
    bench.hang = asyncio.Event()
    bench.peers = [asked(f"t{n:02}", f"uid-{n}", **NOT_APPLIED) for n in range(MOST_UNANSWERED + 3)]
    late = asked("a", "uid-late", "2027-01-15T08:00:00Z", **NOT_APPLIED)
    looked = [(await bench.look(each))[0] for each in bench.peers]
    reasons = [conditions(each)["Ready"]["reason"] for each in looked]
    assert reasons == ["Progressing"] * MOST_UNANSWERED + ["TooMany"] * 3
    assert "Failed" in conditions(looked[-1])
    bench.peers = looked
    test, _ = await bench.look(late)
    assert conditions(test)["Ready"]["reason"] == "TooMany", "an older name does not push out what is being asked"
    bench.hang.set()
    bench.peers = [(await bench.look(each))[0] for each in looked]
    while any("completedAt" not in each.status for each in bench.peers):
        bench.peers = [(await bench.look(each))[0] for each in bench.peers]
    bench.hang = None
    test, _ = await bench.look(asked("b", "uid-b", **NOT_APPLIED))
    assert conditions(test)["Complete"]["status"] == "True"


@pytest.mark.parametrize(
    ("spec", "reason", "words"),
    [
        ({}, "InvalidConfig", "exactly one"),
        ({"connectorRef": {"name": "c"}, **NOT_APPLIED}, "InvalidConfig", "exactly one"),
        ({"message": {"subject": "s"}, **NOT_APPLIED}, "InvalidConfig", "connectorRef"),
        ({"connectorRef": {"name": "none"}}, "ConnectorNotFound", "kubectl -n ns describe connector none"),
        ({"connector": {"config": {"other": {}}}}, "InvalidConfig", "other"),
        ({"connector": {"config": {"told": {}}, "secretRef": {"name": "s"}}}, "InvalidConfig", "host"),
        ({"connector": {"config": {"told": {"host": "h", "password": "x"}}}}, "InvalidConfig", "do not belong"),
    ],
)
async def test_what_cannot_be_asked(bench: Bench, spec: dict[str, Any], reason: str, words: str) -> None:
    test, _ = await bench.look(asked(**spec))
    assert conditions(test)["Failed"]["reason"] == reason
    assert words in test.status["result"]["error"]
    assert (bench.logins, await bench.history()) == ([], [])


async def test_sentences_name_the_place_in_this_spec(bench: Bench) -> None:
    test, _ = await bench.look(asked(connector={"config": {"told": {}}, "secretRef": {"name": "s"}}))
    assert "spec.connector.config.told.host" in test.status["result"]["error"]
    assert conditions(test)["Failed"]["message"] == test.status["result"]["error"]
    test, _ = await bench.look(asked(name="u", uid="uid-2", connector={"config": {}}))
    assert test.status["result"]["error"].startswith("spec.connector.config: ")


async def test_a_connector_that_is_not_there(bench: Bench) -> None:
    bench.cluster.connector_uid = None
    test, _ = await bench.look(asked(connectorRef={"name": "none"}))
    assert "there is no Connector none" in test.status["result"]["error"]


async def test_a_connector_of_the_namespace_that_was_there_before(bench: Bench) -> None:
    row = await bench.served()
    bench.tests.ledger().put(replace(row, owner=replace(OWNER, namespace_uid="the-old-one")))  # type: ignore[union-attr]
    test, _ = await bench.look(asked(connectorRef={"name": "c"}))
    assert conditions(test)["Failed"]["reason"] == "ConnectorNotFound"
    assert bench.logins == []


async def test_a_revoked_connector(bench: Bench) -> None:
    await bench.served(revoked=True)
    bench.cluster.labelled = False
    test, _ = await bench.look(asked(connectorRef={"name": "c"}))
    assert conditions(test)["Failed"]["reason"] == "SecretNotLabelled"
    bench.cluster.labelled = True  # it was not looked at again yet
    test, _ = await bench.look(asked("u", "uid-2", connectorRef={"name": "c"}))
    assert conditions(test)["Failed"]["reason"] == "ConnectorNotFound"
    assert bench.logins == []


@pytest.mark.parametrize(
    ("there", "labelled", "password", "reason"),
    [
        (False, True, b"x", "SecretNotFound"),
        (True, False, b"x", "SecretNotLabelled"),
        (True, True, "••••••••".encode(), "SecretKeyMissing"),
        (True, True, b"", "SecretKeyMissing"),
    ],
)
async def test_a_secret_that_cannot_be_used(
    bench: Bench, there: bool, labelled: bool, password: bytes, reason: str
) -> None:
    bench.cluster.there, bench.cluster.labelled, bench.cluster.data = there, labelled, {"password": password}
    test, _ = await bench.look(asked(**NOT_APPLIED))
    assert conditions(test)["Failed"]["reason"] == reason
    assert bench.logins == []


async def test_a_vault_that_is_away_is_waited_for_but_not_for_ever(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    ledger = bench.tests.ledger
    monkeypatch.setattr(bench.tests, "ledger", lambda: None)
    test, outcome = await bench.look(asked(connectorRef={"name": "c"}))
    assert outcome.retry is not None
    assert conditions(test)["Reconciling"]["status"] == "True"
    bench.now += 601
    later, _ = await bench.look(test)
    assert conditions(later)["Failed"]["reason"] == "VaultUnavailable"
    monkeypatch.setattr(bench.tests, "ledger", ledger)
    await bench.served()
    bench.now -= 601
    again = Resource("ns", "t2", "uid-2", 1, test.created_at, {}, test.spec, test.status)
    test, _ = await bench.look(again)
    assert conditions(test)["Complete"]["status"] == "True"


async def test_an_answer_goes_out_though_its_history_cannot_be_kept(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def refuse(*_: Any, **__: Any) -> None:
        raise Waiting(Reason.VAULT_UNAVAILABLE, "the store is away")

    monkeypatch.setattr(bench.tests.answers, "add", refuse)
    test, _ = await bench.look(asked(**NOT_APPLIED))
    assert conditions(test)["Complete"]["status"] == "True"


async def test_a_login_that_cannot_be_tried_now_is_tried_again(bench: Bench) -> None:
    bench.told = TryAgain(Reason.PROGRESSING, "later")
    test = asked(**NOT_APPLIED)
    with pytest.raises(TryAgain):
        await bench.look(test)
    bench.told = result()
    test, _ = await bench.look(test)
    assert (test.status["result"]["ok"], len(bench.logins)) == (True, 2)


async def test_a_row_that_someone_else_wrote_is_read_again(bench: Bench) -> None:
    row = await bench.served()
    await bench.vault.update(row, display_name="other")  # behind the ledger's back
    with pytest.raises(TryAgain):
        await bench.look(asked(connectorRef={"name": "c"}))
    test, _ = await bench.look(asked(connectorRef={"name": "c"}))
    assert test.status["result"]["ok"]


# --- messages: at most once ------------------------------------------------------------------------------------------

MESSAGE = {"connectorRef": {"name": "c"}, "message": {"subject": "Hello"}}


async def test_a_message_through_a_type_that_cannot_send(bench: Bench) -> None:
    await bench.served()
    test, _ = await bench.look(asked(**MESSAGE))
    assert conditions(test)["Failed"]["reason"] == "InvalidConfig"
    assert "cannot send messages" in test.status["result"]["error"]
    assert bench.logins == []


@pytest.fixture
def sent(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """What went out, through a type that can."""
    found: list[str] = []

    async def send(attempt: Attempt, message: Message) -> CheckResult:
        found.append(message.subject)
        return await bench.login(attempt)

    monkeypatch.setattr(bench.tests, "senders", {"told": send})
    return found


async def test_a_message_goes_out_after_its_start_is_written(bench: Bench, sent: list[str]) -> None:
    await bench.served()
    test, outcome = await bench.look(asked(**MESSAGE))
    assert (sent, outcome.requeue_after, "startedAt" in test.status) == ([], 0.0, True)
    started = test.status["startedAt"]
    test, _ = await bench.look(test)
    assert (sent, test.status["result"]["ok"], test.status["startedAt"]) == (["Hello"], True, started)
    await bench.look(test)
    assert sent == ["Hello"]


async def test_a_start_that_could_not_be_written_sends_nothing(bench: Bench, sent: list[str]) -> None:
    await bench.served()
    for _ in range(3):
        await bench.tests.reconcile(asked(**MESSAGE))  # its status is refused each time
    assert sent == []


async def test_a_message_that_was_begun_before_a_restart_is_not_sent(bench: Bench, sent: list[str]) -> None:
    await bench.served()
    test, _ = await bench.look(asked(**MESSAGE))
    bench.tests._questions.clear()
    test, _ = await bench.look(test)
    assert (sent, conditions(test)["Failed"]["reason"]) == ([], "Interrupted")
    assert test.status["startedAt"] in test.status["result"]["error"]


async def test_a_message_whose_sending_broke_is_not_sent_again(bench: Bench, sent: list[str]) -> None:
    await bench.served()
    bench.told = RuntimeError("planted-secret")
    test, _ = await bench.look(asked(**MESSAGE))
    test, _ = await bench.look(test)
    assert (sent, conditions(test)["Failed"]["reason"]) == (["Hello"], "Interrupted")
    assert "planted-secret" not in test.status["result"]["error"]


async def test_a_vault_that_goes_after_the_start_keeps_the_start(
    bench: Bench, sent: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    await bench.served()
    test, _ = await bench.look(asked(**MESSAGE))
    started = test.status["startedAt"]
    with monkeypatch.context() as away:
        away.setattr(bench.tests, "ledger", lambda: None)
        test, outcome = await bench.look(test)
    assert (outcome.retry is not None, test.status["startedAt"]) == (True, started)
    test, _ = await bench.look(test)
    assert (sent, test.status["result"]["ok"]) == (["Hello"], True)


async def test_a_deleted_test_is_let_go(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connector_test, "PATIENCE", 0.0)
    bench.hang = asyncio.Event()
    await bench.look(asked(**NOT_APPLIED))
    (question,) = bench.tests._questions.values()
    await bench.tests.gone("ns", "t", None)
    assert question.asked is not None
    with pytest.raises(asyncio.CancelledError):
        await question.asked
    assert bench.tests._questions == {}
