"""What goes wrong around the operator, and that nothing is lost by it."""

import asyncio
import sqlite3
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from hack.cluster import ControlPlane
from hack.operator_process import ROOT, OperatorProcess, install_namespaced
from hack.postgres import PostgresServer
from hack.webhook_sink import WebhookSink
from honeyframe_operator.kube import KubeClient
from tests.cluster.conftest import PASSWORD, Database
from tests.support.cluster import Namespace, condition
from tests.support.proxy import FaultyProxy

Own = Callable[..., OperatorProcess]


def vault_rows(operator: OperatorProcess, namespace: str) -> list[dict[str, Any]]:
    with sqlite3.connect(operator.directory / "honeyframe.db") as connection:
        connection.row_factory = sqlite3.Row
        found = connection.execute("select * from data_connectors where project = ? order by created_at", (namespace,))
        return [dict(each) for each in found]


def has_tables(operator: OperatorProcess) -> bool:
    """Whether the store was made yet; a kill may come before."""
    with sqlite3.connect(operator.directory / "honeyframe.db") as connection:
        return bool(connection.execute("select 1 from sqlite_master where name = 'data_connectors'").fetchall())


def release(operator: OperatorProcess) -> None:
    """Let the next start lead at once: a killed one did not release its cluster's row, which runs out after 15 s."""
    with sqlite3.connect(operator.directory / "honeyframe.db") as connection:
        if has_tables(operator):
            connection.execute("update clusters set released = 1")


async def webhook(namespace: Namespace, name: str, sink: WebhookSink, **spec: Any) -> None:
    await namespace.secret(f"s-{name}", bearer_token=PASSWORD)
    await namespace.connector(name, {"webhook": {"url": sink.url}}, f"s-{name}", **spec)


async def test_the_database_is_down_at_the_start_and_in_the_middle(
    own_operator: Own, namespace: Namespace, sink: WebhookSink, tmp_path: Path
) -> None:
    home = Path(tempfile.mkdtemp(prefix="honeyframe-store-"))  # pytest's own are closed to the user postgres
    with PostgresServer.start(home) as store:
        store.create_role("vault", "store-password")
        store.create_database("vault", owner="vault")
        url_file = tmp_path / "url"
        url_file.write_text(f"postgresql://vault:store-password@127.0.0.1:{store.port}/vault?sslmode=require\n")
        store.stop()
        operator = own_operator("--database-file", str(url_file)).start()
        await webhook(namespace, "c", sink, interval="1s")
        body = await namespace.ready("c", "False", "VaultUnavailable")
        assert condition(body, "Reconciling") is not None
        assert "store-password" not in operator.log_file.read_text()
        store.restart()
        first = (await namespace.ready("c"))["status"]
        store.stop()
        body = await namespace.ready("c", "False", "VaultUnavailable")
        assert body["status"]["servedVersion"] == 1, "what serves is still named"
        store.restart()
        body = await namespace.ready("c")
        assert (body["status"]["connectorId"], body["status"]["servedVersion"]) == (first["connectorId"], 1)


async def test_an_empty_second_cluster_on_the_same_database(
    own_operator: Own, namespace: Namespace, sink: WebhookSink
) -> None:
    operator = own_operator("--cluster-id", "first").start()
    await webhook(namespace, "c", sink)
    first = (await namespace.ready("c"))["status"]
    operator.stop()
    second = own_operator("--cluster-id", "second").start()
    await namespace.patch(
        "Connector", "c", {"metadata": {"annotations": {"reconcile.fluxcd.io/requestedAt": "2027-01-01T00:00:00Z"}}}
    )
    body = await namespace.ready("c", "False", "NameConflict")
    assert "first" in condition(body, "Ready")["message"]
    (row,) = vault_rows(second, namespace.name)
    assert (row["id"], row["deleted_at"]) == (first["connectorId"], None), "nothing is deleted"


async def test_the_crds_are_deleted_and_made_again(
    own_operator: Own, namespace: Namespace, sink: WebhookSink, control_plane: ControlPlane
) -> None:
    operator = own_operator().start()
    await webhook(namespace, "c", sink)
    first = (await namespace.ready("c"))["status"]
    await asyncio.to_thread(control_plane.kubectl_run, "delete", "-f", str(ROOT / "crds"), "--wait=true")
    async with asyncio.timeout(20):
        while vault_rows(operator, namespace.name)[0]["deleted_at"] is None:
            await asyncio.sleep(0.1)
    await asyncio.to_thread(control_plane.kubectl_run, "apply", "-f", str(ROOT / "crds"))
    await asyncio.to_thread(
        control_plane.kubectl_run, "wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"
    )
    async with asyncio.timeout(20):
        while True:  # the API server serves a new CRD a moment after it is established
            try:
                await namespace.connector("c", {"webhook": {"url": sink.url}}, "s-c")
                break
            except Exception:  # noqa: BLE001 - it is asked until it answers
                await asyncio.sleep(0.2)
    again = (await namespace.ready("c"))["status"]
    assert (again["connectorId"], again["servedVersion"]) == (first["connectorId"], 1), "nothing is purged"
    assert operator.poll() is None


async def test_crds_installed_after_the_operator_started(
    own_operator: Own, namespace: Namespace, sink: WebhookSink, control_plane: ControlPlane
) -> None:
    await asyncio.to_thread(control_plane.kubectl_run, "delete", "-f", str(ROOT / "crds"), "--wait=true")
    operator = own_operator().start(wait=False)
    async with asyncio.timeout(20):
        while "kubectl apply -f crds/" not in operator.log_file.read_text():
            await asyncio.sleep(0.05)
    await asyncio.to_thread(control_plane.kubectl_run, "apply", "-f", str(ROOT / "crds"))
    await asyncio.to_thread(
        control_plane.kubectl_run, "wait", "--for=condition=Established", "crd", "--all", "--timeout=60s"
    )
    async with asyncio.timeout(20):
        while await asyncio.to_thread(operator.get, "/readyz") != "ok":
            await asyncio.sleep(0.1)
    await webhook(namespace, "c", sink)
    await namespace.ready("c")


async def test_the_api_server_is_restarted(
    own_operator: Own, namespace: Namespace, sink: WebhookSink, control_plane: ControlPlane
) -> None:
    operator = own_operator().start()
    await webhook(namespace, "c", sink)
    await namespace.ready("c")
    pid = operator.pid
    await asyncio.to_thread(control_plane.stop_api_server)
    assert await asyncio.to_thread(operator.get, "/healthz") == "ok", "an outage of the API server restarts nobody"
    await asyncio.to_thread(control_plane.start_api_server)
    await namespace.secret("s-d", bearer_token=PASSWORD)
    await namespace.connector("d", {"webhook": {"url": sink.url}}, "s-d")
    await namespace.wait("Connector", "d", lambda b: (condition(b, "Ready") or {}).get("status") == "True", patience=60)
    assert operator.pid == pid


@pytest.fixture
async def proxied(
    client: KubeClient, installed: Path, tmp_path: Path
) -> AsyncIterator[Callable[[Any], Awaitable[tuple[FaultyProxy, Path]]]]:
    started: list[FaultyProxy] = []

    async def start(fault: Any) -> tuple[FaultyProxy, Path]:
        proxy = await FaultyProxy(client, fault).__aenter__()
        started.append(proxy)
        return proxy, proxy.kubeconfig(installed, tmp_path / "proxied")

    yield start
    for proxy in started:
        await proxy.__aexit__()


@pytest.fixture
async def stopped(proxied: Any, own_operator: Own) -> AsyncIterator[Own]:
    """As `own_operator`, but stopped while the proxy, which is in this loop, still answers: the Lease is let go."""
    made: list[OperatorProcess] = []

    def make(*flags: str, **fields: Any) -> OperatorProcess:
        made.append(own_operator(*flags, **fields))
        return made[-1]

    yield make
    for operator in made:
        await asyncio.to_thread(operator.stop)


@pytest.mark.parametrize("status", [409, 429, 500])
async def test_the_api_server_refuses_status_writes_for_a_while(
    proxied: Any, stopped: Own, namespace: Namespace, sink: WebhookSink, status: int
) -> None:
    left = 2

    def fault(request: web.Request) -> tuple[int, dict[str, str]] | None:
        nonlocal left
        if request.method == "PUT" and request.path.endswith("/status") and left:
            left -= 1
            return status, {"Retry-After": "1"} if status == 429 else {}
        return None

    _, kubeconfig = await proxied(fault)
    operator = stopped(kubeconfig=kubeconfig)
    await asyncio.to_thread(operator.start)
    await webhook(namespace, "c", sink)
    await namespace.ready("c")
    assert left == 0
    assert [row["last_version"] for row in vault_rows(operator, namespace.name)] == [1], "tried again, not made again"


async def test_a_watch_that_is_too_old(proxied: Any, stopped: Own, namespace: Namespace, sink: WebhookSink) -> None:
    refused: set[str] = set()

    def fault(request: web.Request) -> tuple[int, dict[str, str]] | None:
        if request.query.get("watch") == "true" and request.path not in refused:
            refused.add(request.path)
            return 410, {}
        return None

    _, kubeconfig = await proxied(fault)
    await asyncio.to_thread(stopped(kubeconfig=kubeconfig).start)
    await webhook(namespace, "c", sink)
    await namespace.ready("c")
    assert len(refused) >= 5, "connectors, catalogconfigs, secrets, configmaps, namespaces"


async def test_a_watch_that_stands_still_is_found_out(
    proxied: Any, stopped: Own, namespace: Namespace, sink: WebhookSink
) -> None:
    """Direct calls succeed and the watch does not advance: only then is the operator to be restarted."""
    hanging = asyncio.Event()

    def fault(request: web.Request) -> tuple[int, dict[str, str]] | None:
        if request.query.get("watch") == "true" and request.path.endswith("/connectors"):
            hanging.set()
            return 0, {}
        return None

    _, kubeconfig = await proxied(fault)
    operator = stopped("--resync", "1", "--stale-after", "2", kubeconfig=kubeconfig)
    await asyncio.to_thread(operator.start)
    await asyncio.wait_for(hanging.wait(), 20)
    assert await asyncio.to_thread(operator.get, "/healthz") == "ok"
    await webhook(namespace, "c", sink)
    async with asyncio.timeout(30):
        while await asyncio.to_thread(operator.get, "/healthz") == "ok":
            await asyncio.sleep(0.1)


async def test_a_namespaced_operator_under_roles_only(
    own_operator: Own, namespace: Namespace, sink: WebhookSink, control_plane: ControlPlane
) -> None:
    kubeconfig = await asyncio.to_thread(install_namespaced, control_plane, namespace.name)
    operator = own_operator(
        "--watch-namespaces", namespace.name, "--cluster-id", "c1", "--namespace", namespace.name,
        "--default-org", "acme", kubeconfig=kubeconfig,
    )  # fmt: skip
    await asyncio.to_thread(operator.start)
    await webhook(namespace, "c", sink)
    await namespace.ready("c")
    await namespace.create("CatalogConfig", "cat", spec={"org": "acme"})
    await namespace.ready("cat", kind="CatalogConfig")
    assert "forbidden" not in operator.log_file.read_text().lower()
    assert [row["org"] for row in vault_rows(operator, namespace.name)] == ["acme"]


async def test_two_replicas_one_works_and_the_other_takes_over(
    own_operator: Own, namespace: Namespace, sink: WebhookSink
) -> None:
    first = own_operator("--identity", "one").start()
    second = own_operator("--identity", "two").start()
    assert await asyncio.to_thread(second.get, "/readyz") == "ok", "a standby is warm, and ready"
    await webhook(namespace, "c", sink)
    await namespace.ready("c")
    assert "honeyframe_leading 1.0" in await asyncio.to_thread(first.get, "/metrics")
    assert "honeyframe_leading 0.0" in await asyncio.to_thread(second.get, "/metrics")
    first.stop()  # lets go of the Lease
    await webhook(namespace, "d", sink)
    await namespace.ready("d")
    assert "honeyframe_leading 1.0" in await asyncio.to_thread(second.get, "/metrics")


async def test_killed_in_the_middle_of_a_first_commit(
    own_operator: Own, namespace: Namespace, database: Database, trust: Any
) -> None:
    operator = own_operator("--identity", "the-same")  # or each start would wait for the killed one's Lease
    ca = await trust(namespace)
    await namespace.secret("s", password=database.password)
    for number in range(30):
        await namespace.connector(f"c{number}", database.config, "s", caRef=ca)
    for stop in (operator.kill, operator.stop, operator.kill):
        await asyncio.to_thread(operator.start, wait=False)
        await namespace.wait("Connector", "c0", lambda _: True)
        async with asyncio.timeout(30):
            while "leading" not in operator.log_file.read_text() or operator.get("/metrics") == "":
                await asyncio.sleep(0.02)
        await asyncio.to_thread(stop)
        release(operator)
        for row in vault_rows(operator, namespace.name) if has_tables(operator) else []:
            assert (row["serving_version"] is None) == (row["last_version"] == 0), (
                "the row is the old one or the new one"
            )
    await asyncio.to_thread(operator.start)
    for number in range(30):
        body = await namespace.ready(f"c{number}")
        assert body["status"]["servedVersion"] == 1
    rows = vault_rows(operator, namespace.name)
    assert [row["last_version"] for row in rows] == [1] * 30
