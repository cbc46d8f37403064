"""Two real control planes on one database: who leads, and whose row is whose when clusters come and go."""

import asyncio
import contextlib
import json
import os
import secrets
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from sqlalchemy.engine import make_url

from hack.cluster import ControlPlane
from hack.files import write_private
from hack.operator_process import ROOT, OperatorProcess, install
from hack.postgres import PostgresServer
from hack.webhook_sink import WebhookSink
from honeyframe_operator.kube import ApiError, KubeClient
from tests.cluster.conftest import LOOPBACK, PASSWORD
from tests.support.cluster import Namespace, condition, request
from tests.support.stores import postgresql_url

GUIDE = ROOT / "docs/how-to/a-cluster-rebuilt-from-git.md"
TAKEOVER = 45.0
"""Seconds of patience where a row must first run out."""

_ROWS = (
    "select json_build_object('id', id, 'name', name, 'project', project, 'cluster_id', cluster_id, "
    "'namespace_uid', namespace_uid, 'deleted_at', deleted_at, 'purge_at', purge_at, "
    "'kept', extract(epoch from purge_at - deleted_at)) from honeyframe.data_connectors order by created_at, id"
)
_AUDITED = "select json_build_object('action', action, 'subject', subject) from honeyframe.audit_log order by id"


@dataclass
class Store:
    """The database that the clusters share, and the secret that opens it."""

    server: PostgresServer
    url: str
    directory: Path

    @property
    def flags(self) -> tuple[str, str]:
        return ("--database-file", str(self.directory / "url"))

    @property
    def secret_file(self) -> Path:
        return self.directory / "jwt-secret"

    def rows(self, project: str) -> list[dict[str, Any]]:
        """The rows of a namespace, the oldest first."""
        return [each for each in self._json(_ROWS) if each["project"] == project]

    def audited(self, project: str) -> list[str]:
        """What the audit log says of a namespace's connectors, the oldest first."""
        return [each["action"] for each in self._json(_AUDITED) if f"/{project}/" in each["subject"]]

    def _json(self, statement: str) -> list[dict[str, Any]]:
        lines = self.server.psql(statement, str(make_url(self.url).database)).splitlines()
        return [json.loads(line) for line in lines]

    def run(self, command: str) -> subprocess.CompletedProcess[str]:
        """A command of the guide, as an administrator types it in the operator's pod."""
        words = command.split()
        assert words[0] == "honeyframe"
        environment = {
            **os.environ,
            "PYTHONPATH": os.pathsep.join([str(ROOT), str(ROOT / "operator")]),
            "HONEYFRAME_DATABASE_FILE": str(self.directory / "url"),
            "HONEYFRAME_SECRET_FILE": str(self.secret_file),
        }
        return subprocess.run(
            [sys.executable, "-m", "honeyframe_connectors.cli", *words[1:]],
            env=environment, capture_output=True, text=True, check=False,
        )  # fmt: skip


@pytest.fixture
def store(postgres: PostgresServer, tmp_path: Path) -> Store:
    url = postgresql_url(postgres)
    found = Store(postgres, url, tmp_path)
    write_private(tmp_path / "url", url)
    write_private(found.secret_file, secrets.token_hex(32))
    return found


@pytest.fixture(scope="module")
def green_plane() -> Iterator[ControlPlane]:
    with ControlPlane.start(log=lambda _: None) as plane:
        yield plane


@pytest.fixture(scope="module")
def green_installed(green_plane: ControlPlane) -> Path:
    return install(green_plane)


@pytest_asyncio.fixture
async def green_namespace(green_plane: ControlPlane, namespace: Namespace) -> AsyncIterator[Namespace]:
    """On the other control plane, a namespace of the same name and another uid."""
    client = await KubeClient.login(green_plane.kubeconfig)
    yield await make_namespace(client, namespace.name)
    await client.close()


Start = Callable[..., OperatorProcess]


@pytest.fixture
def start(
    installed: Path, green_installed: Path, shared_operator: OperatorProcess, store: Store, tmp_path: Path
) -> Iterator[Start]:
    """Operators of two clusters on one store."""
    shared_operator.stop()
    with contextlib.ExitStack() as stack:

        def run(name: str, *flags: str, green: bool = False) -> OperatorProcess:
            kubeconfig = green_installed if green else installed
            process = OperatorProcess(
                kubeconfig, tmp_path / name, (*LOOPBACK, *store.flags, *flags), secret_file=store.secret_file
            )
            return stack.enter_context(process).start()

        yield run


async def make_namespace(client: KubeClient, name: str) -> Namespace:
    async with asyncio.timeout(60):
        while True:
            try:
                await client.post(
                    "/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}}
                )
            except ApiError as error:
                if error.status != 409:
                    raise
                await asyncio.sleep(0.2)  # the one before is still going
            else:
                return Namespace(client, name)


async def declare(namespace: Namespace, sink: WebhookSink, name: str = "c", value: str = PASSWORD, **spec: Any) -> None:
    """What Git holds: a Connector and its Secret."""
    await namespace.secret(f"s-{name}", bearer_token=value)
    await namespace.connector(name, {"webhook": {"url": sink.url}}, f"s-{name}", **spec)


async def until(so: Callable[[], bool], patience: float = 20.0) -> None:
    async with asyncio.timeout(patience):
        while not await asyncio.to_thread(so):
            await asyncio.sleep(0.1)


def leads(operator: OperatorProcess) -> bool:
    return "honeyframe_leading 1.0" in operator.get("/metrics")


def metric(operator: OperatorProcess, name: str) -> float:
    return float(operator.get("/metrics").split(f"\n{name} ")[1].split()[0])


def halted(operator: OperatorProcess) -> str:
    """What the log says of rows that are kept for a week."""
    return "".join(line for line in operator.log_file.read_text().splitlines() if "kept for a week" in line)


async def cluster_id(client: KubeClient) -> str:
    uid: str = (await client.get("/api/v1/namespaces/kube-system"))["metadata"]["uid"]
    return uid


def from_guide(start: str, **values: str) -> str:
    """The guide's command that begins so, with its placeholders filled."""
    commands = [line.strip() for line in GUIDE.read_text().splitlines() if line.strip().startswith(start)]
    assert len(commands) == 1, commands
    command = commands[0]
    for placeholder, value in values.items():
        command = command.replace(placeholder, value)
    return command


async def test_blue_and_green(
    start: Start, store: Store, namespace: Namespace, green_namespace: Namespace, sink: WebhookSink
) -> None:
    """Both run for a while; the rows change hands when blue was stopped in order."""
    blue = start("blue")
    await declare(namespace, sink)
    first = (await namespace.ready("c"))["status"]
    green = start("green", green=True)
    assert leads(blue)
    assert leads(green), "another cluster, another row of clusters"
    await declare(green_namespace, sink)
    body = await green_namespace.ready("c", "False", "NameConflict")
    old = await cluster_id(namespace.client)
    assert f"honeyframe vault claim --from-cluster {old}" in condition(body, "Ready")["message"]
    command = from_guide("honeyframe vault claim --from-cluster OLD", OLD=old)
    refused = await asyncio.to_thread(store.run, command)
    assert (refused.returncode, "is at work" in refused.stderr) == (2, True)
    blue.stop()
    claimed = await asyncio.to_thread(store.run, command)
    assert (claimed.returncode, claimed.stderr) == (0, "claimed: 1, not: 0\n"), claimed.stderr
    status = (await green_namespace.ready("c"))["status"]
    assert (status["connectorId"], status["servedVersion"]) == (first["connectorId"], 1)
    (row,) = store.rows(namespace.name)
    assert (row["cluster_id"], row["deleted_at"]) == (await cluster_id(green_namespace.client), None)
    assert store.audited(namespace.name) == [
        "connector.created", "connector.accepted", "connector.claimed", "connector.moved",
        "connector.found",
    ]  # fmt: skip
    blue.start()
    token = {"reconcile.fluxcd.io/requestedAt": "2027-01-01T00:00:00Z"}
    await namespace.patch("Connector", "c", {"metadata": {"annotations": token}})
    body = await namespace.ready("c", "False", "NameConflict")
    assert store.rows(namespace.name) == [row], "who comes back late ends nothing"


async def test_a_cluster_rebuilt_from_git(
    start: Start, store: Store, namespace: Namespace, green_namespace: Namespace, sink: WebhookSink
) -> None:
    """The old cluster is gone without a word, and what it had is in Git: names and values, other uids."""
    blue = start("blue")
    await declare(namespace, sink)
    await declare(namespace, sink, "dropped")
    first = (await namespace.ready("c"))["status"]
    await namespace.ready("dropped")
    await namespace.set_secret("s-c", bearer_token=f"{PASSWORD}-2")
    await namespace.wait("Connector", "c", lambda body: body["status"].get("servedVersion") == 2)
    old = await cluster_id(namespace.client)
    blue.kill()
    start("green", green=True)
    await declare(green_namespace, sink, value=f"{PASSWORD}-2")
    await green_namespace.ready("c", "False", "NameConflict")
    dry = await asyncio.to_thread(store.run, from_guide("honeyframe vault claim --dry-run", OLD=old))
    assert dry.returncode in (0, 2)
    command = from_guide("honeyframe vault claim --from-cluster OLD", OLD=old)
    await until(lambda: store.run(command).returncode == 0, patience=TAKEOVER)
    status = (await green_namespace.ready("c"))["status"]
    assert (status["connectorId"], status["servedVersion"]) == (first["connectorId"], 2)
    await green_namespace.set_secret("s-c", bearer_token=f"{PASSWORD}-3")
    await green_namespace.wait("Connector", "c", lambda body: body["status"].get("servedVersion") == 3)
    await until(lambda: {row["name"]: row["deleted_at"] is None for row in store.rows(namespace.name)} == {
        "c": True, "dropped": False,
    })  # fmt: skip
    purged = await asyncio.to_thread(store.run, from_guide("honeyframe vault purge --deleted"))
    assert (purged.returncode, "/dropped  " in purged.stdout) == (0, True)
    assert [row["name"] for row in store.rows(namespace.name)] == ["c"]


async def test_an_operator_on_a_cloned_etcd_does_not_lead(
    start: Start, store: Store, namespace: Namespace, green_namespace: Namespace, sink: WebhookSink
) -> None:
    original = start("original")
    await declare(namespace, sink)
    await namespace.ready("c")
    clone = start("clone", "--cluster-id", await cluster_id(namespace.client), green=True)
    await declare(green_namespace, sink, "d")
    await until(lambda: "is led by another process" in clone.log_file.read_text())
    assert "--cluster-id" in clone.log_file.read_text()
    assert clone.get("/readyz") == "ok", "a standby is ready"
    assert clone.get("/healthz") == "ok"
    assert (leads(original), leads(clone)) == (True, False)
    body = await green_namespace.get("Connector", "d")
    assert "connectorId" not in (body.get("status") or {})
    assert [row["name"] for row in store.rows(namespace.name)] == ["c"]
    original.kill()
    await until(lambda: leads(clone), patience=TAKEOVER)
    await green_namespace.ready("d")


async def test_a_frozen_leader_commits_nothing_when_it_thaws(
    start: Start, store: Store, namespace: Namespace, green_namespace: Namespace, sink: WebhookSink
) -> None:
    frozen = start("frozen")
    await declare(namespace, sink)
    await namespace.ready("c")
    os.kill(frozen.pid, signal.SIGSTOP)
    try:
        successor = start("successor", "--cluster-id", await cluster_id(namespace.client), green=True)
        await declare(green_namespace, sink, "d")
        await namespace.set_secret("s-c", bearer_token=f"{PASSWORD}-2")
        await until(lambda: leads(successor), patience=TAKEOVER)
        await green_namespace.ready("d")
        before = store.audited(namespace.name)
    finally:
        os.kill(frozen.pid, signal.SIGCONT)
    await until(lambda: "is led by another process" in frozen.log_file.read_text())
    assert (leads(frozen), leads(successor)) == (False, True)
    assert store.audited(namespace.name) == before
    successor.stop()
    await until(lambda: leads(frozen))
    await namespace.wait("Connector", "c", lambda b: (condition(b, "Ready") or {}).get("status") == "True")


async def test_the_crds_are_deleted(
    start: Start, store: Store, namespace: Namespace, sink: WebhookSink, control_plane: ControlPlane
) -> None:
    operator = start("operator", "--purge-after", "1s")
    for name in ("a", "b"):
        await declare(namespace, sink, name)
    before = {name: (await namespace.ready(name))["status"]["connectorId"] for name in ("a", "b")}
    await asyncio.to_thread(control_plane.kubectl_run, "delete", "crd", "connectors.honeyframe.io")
    await until(lambda: all(row["deleted_at"] for row in store.rows(namespace.name)))
    assert [row["kept"] for row in store.rows(namespace.name)] == [7 * 86_400] * 2
    await until(lambda: f"{namespace.name}/b" in halted(operator))
    assert "honeyframe vault purge --deleted" in halted(operator)
    assert metric(operator, "honeyframe_purges_halted") >= 2
    await asyncio.to_thread(control_plane.kubectl_run, "apply", "-f", str(ROOT / "crds"))
    await asyncio.to_thread(
        control_plane.kubectl_run, "wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"
    )
    for name in ("a", "b"):
        async with asyncio.timeout(20):
            while True:  # the API server serves a new CRD a moment after it is established
                try:
                    await namespace.connector(name, {"webhook": {"url": sink.url}}, f"s-{name}")
                    break
                except ApiError:
                    await asyncio.sleep(0.2)
        status = (await namespace.ready(name))["status"]
        assert (status["connectorId"], status["servedVersion"]) == (before[name], 1)
    assert [(row["deleted_at"], row["purge_at"]) for row in store.rows(namespace.name)] == [(None, None)] * 2
    assert "connector.purged" not in store.audited(namespace.name)


async def test_a_namespace_made_again_by_another_tenant(
    start: Start, store: Store, namespace: Namespace, client: KubeClient, sink: WebhookSink
) -> None:
    start("operator")
    await declare(namespace, sink)
    first = (await namespace.ready("c"))["status"]
    await request(client, "DELETE", f"/api/v1/namespaces/{namespace.name}")
    again = await make_namespace(client, namespace.name)
    await declare(again, sink)  # by the same name and even with the same values: it is another's all the same
    status = (await again.ready("c"))["status"]
    assert status["connectorId"] != first["connectorId"]
    assert status["servedVersion"] == 1
    await again.connector("d", {"webhook": {"url": sink.url}}, "s-c", annotations={
        "honeyframe.io/adopt": first["connectorId"]
    })  # fmt: skip
    await again.ready("d", "False", "NameConflict")
    old, new = store.rows(namespace.name)
    assert (old["id"], old["deleted_at"] is not None) == (first["connectorId"], True)
    assert (new["deleted_at"], new["namespace_uid"] != old["namespace_uid"]) == (None, True)


async def test_purged_in_its_time_or_retained(
    start: Start, store: Store, namespace: Namespace, sink: WebhookSink
) -> None:
    operator = start("operator", "--purge-after", "1s")
    await declare(namespace, sink, "c")
    await declare(namespace, sink, "kept", deletionPolicy="Retain")
    await namespace.ready("c")
    kept = (await namespace.ready("kept"))["status"]
    await namespace.delete("Connector", "kept")
    await until(lambda: len([row for row in store.rows(namespace.name) if row["deleted_at"]]) == 1)
    await namespace.delete("Connector", "c")
    await until(lambda: [row["name"] for row in store.rows(namespace.name)] == ["kept"], patience=TAKEOVER)
    assert store.rows(namespace.name)[0]["purge_at"] is None
    assert metric(operator, "honeyframe_rows_purged_total") >= 1
    assert [action for action in store.audited(namespace.name) if action != "connector.accepted"] == [
        "connector.created", "connector.created", "connector.deleted", "connector.deleted", "connector.purged",
    ]  # fmt: skip
    await namespace.connector("kept", {"webhook": {"url": sink.url}}, "s-kept")
    assert (await namespace.ready("kept"))["status"]["connectorId"] == kept["connectorId"]


async def test_a_renamed_connector_takes_its_row_along(
    start: Start, store: Store, namespace: Namespace, sink: WebhookSink
) -> None:
    start("operator")
    await declare(namespace, sink, "old")
    first = (await namespace.ready("old"))["status"]
    await namespace.connector(
        "new", {"webhook": {"url": sink.url}}, "s-old", annotations={"honeyframe.io/adopt": first["connectorId"]}
    )
    body = await namespace.wait("Connector", "new", lambda b: condition(b, "Reconciling") is not None)
    assert "delete connector old" in condition(body, "Ready")["message"]
    await namespace.delete("Connector", "old")
    status = (await namespace.ready("new"))["status"]
    assert (status["connectorId"], status["servedVersion"]) == (first["connectorId"], 1)
    (row,) = store.rows(namespace.name)
    assert (row["name"], row["deleted_at"], row["purge_at"]) == ("new", None, None)
    assert store.audited(namespace.name)[-2:] == ["connector.deleted", "connector.adopted"]
