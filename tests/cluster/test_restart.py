"""A restart costs nothing, unless something that a Connector depends on is another."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import pytest

from hack.operator_process import OperatorProcess
from hack.webhook_sink import WebhookSink
from honeyframe_operator.kube import KubeClient
from tests.cluster.conftest import PASSWORD
from tests.support.cluster import Namespace
from tests.support.proxy import FaultyProxy


@pytest.fixture
async def proxy(client: KubeClient) -> AsyncIterator[FaultyProxy]:
    async with FaultyProxy(client, lambda _: None) as found:
        yield found


async def restarted(operator: OperatorProcess, proxy: FaultyProxy, namespace: Namespace, *flags: str) -> list[str]:
    """The calls on a namespace's single Secrets and status that a restart makes until all objects are known."""
    await asyncio.to_thread(operator.stop)
    proxy.calls.clear()
    operator.flags = (*operator.flags, *flags)
    await asyncio.to_thread(operator.start)
    ours = [call for call in proxy.calls if f"/namespaces/{namespace.name}/" in call]
    return [call for call in ours if "/secrets/" in call or call.endswith("/status")]


def remembered(operator: OperatorProcess, namespace: Namespace) -> int:
    """How many rows of a namespace know what they were made from."""
    with sqlite3.connect(operator.directory / "honeyframe.db") as connection:
        statement = "select count(*) from data_connectors where project = ? and observed is not null"
        count: int = connection.execute(statement, (namespace.name,)).fetchone()[0]
    return count


async def test_a_restart_costs_nothing(
    proxy: FaultyProxy,
    own_operator: Callable[..., OperatorProcess],
    namespace: Namespace,
    sink: WebhookSink,
    installed: Path,
    tmp_path: Path,
) -> None:
    operator = own_operator(kubeconfig=proxy.kubeconfig(installed, tmp_path / "proxied"))
    await asyncio.to_thread(operator.start)
    await namespace.secret("s", bearer_token=PASSWORD)
    for name in ("a", "b"):
        await namespace.connector(name, {"webhook": {"url": sink.url}}, "s")
    await namespace.connector("missing", {"webhook": {"url": sink.url}}, "nope")
    for name in ("a", "b"):
        await namespace.ready(name)
    await namespace.ready("missing", "False", "SecretNotFound")
    await namespace.connector("last", {"webhook": {"url": sink.url}}, "s")
    await namespace.ready("last")
    async with asyncio.timeout(20):
        while remembered(operator, namespace) < 4:  # what was observed is written behind the status
            await asyncio.sleep(0.05)
    calls = await restarted(operator, proxy, namespace)
    assert [call for call in calls if "nope" not in call] == []

    await asyncio.to_thread(operator.stop)
    await namespace.set_secret("s", bearer_token=f"{PASSWORD}-2")
    await asyncio.to_thread(operator.start)
    for name in ("a", "b", "last"):
        await namespace.wait("Connector", name, lambda body: body["status"].get("servedVersion") == 2)

    proxy.calls.clear()
    await restarted(operator, proxy, namespace, "--allow-target", "10.0.0.0/8")
    async with asyncio.timeout(20):
        while sum("/secrets/s" in call for call in proxy.calls) < 3:
            await asyncio.sleep(0.05)
    await asyncio.to_thread(operator.stop)
