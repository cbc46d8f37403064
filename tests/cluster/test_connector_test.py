"""ConnectorTests on a real API server: asked, answered, and gone."""

import asyncio
import contextlib
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest

from hack.cluster import ControlPlane
from hack.operator_process import OperatorProcess
from hack.webhook_sink import WebhookSink
from honeyframe_operator.kube import ApiError, KubeClient
from tests.cluster.conftest import PASSWORD, Database
from tests.cluster.test_connector import Trust
from tests.support.cluster import Body, Namespace, condition
from tests.support.kstatus import kstatus
from tests.support.proxy import FaultyProxy


async def ask(namespace: Namespace, name: str, **spec: Any) -> Body:
    return await namespace.create("ConnectorTest", name, spec=spec)


async def answer(namespace: Namespace, name: str, patience: float = 20.0) -> Body:
    return await namespace.wait("ConnectorTest", name, lambda body: "completedAt" in body["status"], patience)


def history(operator: OperatorProcess, namespace: Namespace) -> list[tuple[Any, ...]]:
    with sqlite3.connect(operator.directory / "honeyframe.db") as connection:
        statement = "select id, connector_id, ok, error from connector_tests where project = ? order by at"
        return connection.execute(statement, (namespace.name,)).fetchall()


class Silent:
    """A server that accepts, reads, and never answers."""

    def __init__(self) -> None:
        self.connections = 0
        self._server: asyncio.Server | None = None
        self._writers: set[asyncio.StreamWriter] = set()

    async def start(self) -> dict[str, Any]:
        """A config that goes there."""
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        port = self._server.sockets[0].getsockname()[1]
        return {"postgresql": {"host": "127.0.0.1", "port": port, "database": "d", "username": "u"}}

    def hang_up(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._writers:
            writer.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        self._writers.add(writer)
        with contextlib.suppress(ConnectionError):
            while await reader.read(1024):
                pass
        self._writers.discard(writer)
        writer.close()


@pytest.fixture
async def silent() -> AsyncIterator[tuple[Silent, dict[str, Any]]]:
    """The server, and a config that goes there."""
    found = Silent()
    yield found, await found.start()
    found.hang_up()


async def test_a_connector_that_serves(
    namespace: Namespace, operator: OperatorProcess, database: Database, trust: Trust, control_plane: ControlPlane
) -> None:
    await namespace.secret("s", password=database.password)
    await namespace.connector("c", database.config, "s", caRef=await trust(namespace), suspend=False)
    connector = await namespace.ready("c")
    await namespace.patch("Connector", "c", {"spec": {"suspend": True}})
    await ask(namespace, "t", connectorRef={"name": "c"})
    body = await answer(namespace, "t")
    status = body["status"]
    assert kstatus(body) == "Current"
    assert (condition(body, "Complete") or {})["status"] == "True"
    assert condition(body, "Reconciling") is None
    assert (status["result"]["ok"], "error" in status["result"]) == (True, False)
    assert [step["name"] for step in status["result"]["steps"]][-1] == "query"
    assert status["result"]["serverVersion"].startswith("1")
    ((test_id, connector_id, ok, error),) = history(operator, namespace)
    assert (test_id, ok, error) == (body["metadata"]["uid"], 1, "")
    assert connector_id == connector["status"]["connectorId"]
    table = control_plane.kubectl_run("get", "conntest", "-n", namespace.name).stdout.splitlines()
    assert table[0].split() == ["NAME", "CONNECTOR", "OK", "LATENCY", "ERROR", "AGE"]
    assert table[1].split()[:3] == ["t", "c", "true"]
    waited = control_plane.kubectl_run("wait", "-n", namespace.name, "--for=condition=Complete", "connectortest/t")
    assert "condition met" in waited.stdout


async def test_the_version_that_serves_is_tested_and_not_what_the_secret_holds(
    namespace: Namespace, operator: OperatorProcess, database: Database, trust: Trust
) -> None:
    await namespace.secret("s", password=database.password)
    await namespace.connector("c", database.config, "s", caRef=await trust(namespace))
    await namespace.ready("c")
    await namespace.set_secret("s", password="not-yet-right")
    await ask(namespace, "t", connectorRef={"name": "c"})
    assert (await answer(namespace, "t"))["status"]["result"]["ok"] is True
    database.set_password(f"{PASSWORD}-another")
    await ask(namespace, "late", connectorRef={"name": "c"})
    body = await answer(namespace, "late")
    assert (condition(body, "Failed") or {})["reason"] == "AuthenticationFailed"


async def test_a_wrong_password(
    namespace: Namespace, operator: OperatorProcess, database: Database, trust: Trust
) -> None:
    await namespace.secret("s", password=f"{PASSWORD}-wrong")
    connector = {"config": database.config, "secretRef": {"name": "s"}, "caRef": await trust(namespace)}
    await ask(namespace, "t", connector=connector)
    body = await answer(namespace, "t")
    assert kstatus(body) == "Failed"
    assert body["status"]["result"]["ok"] is False
    assert {
        type_: (condition(body, type_) or {}).get("reason") for type_ in ("Ready", "Stalled", "Failed")
    } == dict.fromkeys(("Ready", "Stalled", "Failed"), "AuthenticationFailed")
    ((_, connector_id, ok, error),) = history(operator, namespace)
    assert (connector_id, ok, error) == (None, 0, body["status"]["result"]["error"])


async def test_a_spec_that_is_not_applied(
    namespace: Namespace, operator: OperatorProcess, database: Database, trust: Trust
) -> None:
    await namespace.secret("s", password=database.password)
    connector = {"config": database.config, "secretRef": {"name": "s"}, "caRef": await trust(namespace)}
    await ask(namespace, "t", connector=connector)
    assert (await answer(namespace, "t"))["status"]["result"]["ok"] is True
    assert await namespace.list("Connector") == []


@pytest.mark.parametrize(
    ("password", "labelled", "reason"),
    [("••••••••", True, "SecretKeyMissing"), (PASSWORD, False, "SecretNotLabelled")],
)
async def test_a_sentinel_and_a_secret_that_did_not_opt_in(
    namespace: Namespace, operator: OperatorProcess, sink: WebhookSink, password: str, labelled: bool, reason: str
) -> None:
    await namespace.secret("s", labelled, bearer_token=password)
    config = {"webhook": {"url": sink.url}}
    if reason == "SecretKeyMissing":  # even where a Connector has a value that could be kept
        await namespace.secret("real", bearer_token=PASSWORD)
        await namespace.connector("c", config, "real")
        await namespace.ready("c")
    await ask(namespace, "t", connector={"config": config, "secretRef": {"name": "s"}})
    body = await answer(namespace, "t")
    assert (condition(body, "Failed") or {})["reason"] == reason
    assert history(operator, namespace) == []


async def test_no_such_connector_and_one_that_serves_nothing(
    namespace: Namespace, operator: OperatorProcess, sink: WebhookSink
) -> None:
    await ask(namespace, "none", connectorRef={"name": "nobody"})
    body = await answer(namespace, "none")
    assert (condition(body, "Failed") or {})["reason"] == "ConnectorNotFound"
    await namespace.connector("c", {"webhook": {"url": sink.url}}, "missing")
    await namespace.ready("c", "False", "SecretNotFound")
    await ask(namespace, "nothing", connectorRef={"name": "c"})
    body = await answer(namespace, "nothing")
    assert (condition(body, "Failed") or {})["reason"] == "SecretNotFound"
    await ask(namespace, "message", connectorRef={"name": "c"}, message={"subject": "Hello", "severity": "warning"})
    await answer(namespace, "message")


async def test_a_message_through_a_type_that_cannot_send(
    namespace: Namespace, operator: OperatorProcess, sink: WebhookSink
) -> None:
    await namespace.connector("c", {"webhook": {"url": sink.url}})
    await namespace.ready("c")
    await ask(namespace, "t", connectorRef={"name": "c"}, message={"subject": "Hello"})
    body = await answer(namespace, "t")
    assert (condition(body, "Failed") or {})["reason"] == "InvalidConfig"
    assert "cannot send messages" in body["status"]["result"]["error"]
    assert "startedAt" not in body["status"]


async def test_of_more_than_twenty_the_newest_are_refused(
    namespace: Namespace, operator: OperatorProcess, silent: tuple[Silent, dict[str, Any]]
) -> None:
    server, config = silent
    connector = {"config": config, "timeout": "2m"}
    for number in range(24):
        await ask(namespace, f"t{number:02}", connector=connector)
    for number in range(20, 24):
        body = await answer(namespace, f"t{number}")
        assert (condition(body, "Failed") or {})["reason"] == "TooMany"
    for number in range(20):
        body = await namespace.wait("ConnectorTest", f"t{number:02}", lambda each: "startedAt" in each["status"])
        assert kstatus(body) == "InProgress"
    server.hang_up()
    for number in range(20):
        body = await answer(namespace, f"t{number:02}", patience=40)
        assert (condition(body, "Failed") or {})["reason"] == "ConnectionFailed"


async def test_what_is_answered_goes_when_its_time_has_come(
    namespace: Namespace, operator: OperatorProcess, sink: WebhookSink, client: KubeClient
) -> None:
    connector = {"config": {"webhook": {"url": sink.url}}}
    await ask(namespace, "short", connector=connector, ttlSecondsAfterFinished=1)
    await ask(namespace, "long", connector=connector)
    await answer(namespace, "long")
    async with asyncio.timeout(20):
        while [each["metadata"]["name"] for each in await namespace.list("ConnectorTest")] != ["long"]:
            await asyncio.sleep(0.05)


async def test_a_question_cannot_be_changed(namespace: Namespace, operator: OperatorProcess, sink: WebhookSink) -> None:
    await ask(namespace, "t", connector={"config": {"webhook": {"url": sink.url}}})
    await answer(namespace, "t")
    for spec in (
        {"ttlSecondsAfterFinished": 1},
        {"connector": {"timeout": "1s"}},
        {"connector": None, "connectorRef": {"name": "c"}},
    ):
        with pytest.raises(ApiError, match="a question cannot be changed"):
            await namespace.patch("ConnectorTest", "t", {"spec": spec})
    await namespace.patch("ConnectorTest", "t", {"metadata": {"labels": {"a": "b"}}})
    for spec, words in (
        ({}, "exactly one of connectorRef and connector"),
        ({"connectorRef": {"name": "c"}, "connector": {"config": {"webhook": {}}}}, "exactly one"),
        ({"message": {"subject": "s"}, "connector": {"config": {"webhook": {}}}}, "name it in connectorRef"),
        ({"connector": {"config": {"webhook": {"bearer_token": "x"}}}}, "secrets do not belong in config"),
        ({"connector": {"config": {"webhook": {}, "postgresql": {}}}}, "must have at most 1"),
    ):
        with pytest.raises(ApiError, match=words):
            await ask(namespace, "wrong", **spec)


async def test_a_restart(
    client: KubeClient,
    own_operator: Callable[..., OperatorProcess],
    namespace: Namespace,
    sink: WebhookSink,
    silent: tuple[Silent, dict[str, Any]],
    installed: Path,
    tmp_path: Path,
) -> None:
    """What is answered costs nothing and still goes; what is not is asked again; an old deletion is made up for."""
    server, config = silent
    async with FaultyProxy(client, lambda _: None) as proxy:
        operator = own_operator(kubeconfig=proxy.kubeconfig(installed, tmp_path / "proxied"))
        await asyncio.to_thread(operator.start)
        for name, ttl in (("answered", 600), ("expired", 3)):
            connector = {"config": {"webhook": {"url": sink.url}}}
            await ask(namespace, name, connector=connector, ttlSecondsAfterFinished=ttl)
            await answer(namespace, name)
        await ask(namespace, "open", connector={"config": config, "timeout": "2m"})
        body = await namespace.wait("ConnectorTest", "open", lambda each: "startedAt" in each["status"])
        assert (kstatus(body), condition(body, "Reconciling") is not None) == ("InProgress", True)
        await asyncio.to_thread(operator.stop)
        before = await namespace.get("ConnectorTest", "answered")
        asked = server.connections
        proxy.calls.clear()
        await asyncio.to_thread(operator.start)
        async with asyncio.timeout(20):
            while server.connections == asked:
                await asyncio.sleep(0.05)
            while "expired" in [each["metadata"]["name"] for each in await namespace.list("ConnectorTest")]:
                await asyncio.sleep(0.05)
        assert await namespace.get("ConnectorTest", "answered") == before
        assert [call for call in proxy.calls if "/connectortests/answered" in call] == []
        await asyncio.to_thread(operator.stop)


async def test_a_secret_that_names_its_targets(
    namespace: Namespace, operator: OperatorProcess, silent: tuple[Silent, dict[str, Any]]
) -> None:
    server, config = silent
    await namespace.secret("s", password=PASSWORD)
    annotations = {"honeyframe.io/targets": "db.example.com:5432"}
    await namespace.patch("Secret", "s", {"metadata": {"annotations": annotations}})
    await ask(namespace, "t", connector={"config": config, "secretRef": {"name": "s"}})
    body = await answer(namespace, "t")
    assert (condition(body, "Failed") or {})["reason"] == "TargetNotAllowed"
    assert server.connections == 0


async def test_a_wrong_password_is_tried_once_however_often_it_is_asked(
    namespace: Namespace, operator: OperatorProcess, database: Database, trust: Trust
) -> None:
    await namespace.secret("s", password=f"{PASSWORD}-wrong")
    connector = {"config": database.config, "secretRef": {"name": "s"}, "caRef": await trust(namespace)}
    for name in ("first", "second", "third"):
        await ask(namespace, name, connector=connector)
        body = await answer(namespace, name)
        assert (condition(body, "Failed") or {})["reason"] == "AuthenticationFailed"
    steps = {each["name"]: each for each in body["status"]["result"]["steps"]}
    assert "passed" not in steps["connect"], "nothing was dialled again"
