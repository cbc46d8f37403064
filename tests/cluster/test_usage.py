"""What uses a Connector, from the platform's tables to `kubectl get connectors`."""

import asyncio
import secrets
import sqlite3
from collections.abc import Callable

from hack.cluster import ControlPlane
from hack.operator_process import OperatorProcess
from hack.webhook_sink import WebhookSink
from tests.support.cluster import Body, Namespace


def execute(operator: OperatorProcess, statement: str, *values: object) -> int:
    with sqlite3.connect(operator.directory / "honeyframe.db", timeout=20) as connection:
        return connection.execute(statement, values).rowcount


def use(operator: OperatorProcess, table: str, body: Body, name: str, moment: str | None) -> None:
    execute(
        operator,
        f"insert into {table} (id, org, project, name, connector_id, last_used_at) values (?, ?, ?, ?, ?, ?)",  # noqa: S608
        secrets.token_hex(8),
        "default",
        body["metadata"]["namespace"],
        name,
        body["status"]["connectorId"],
        moment,
    )


async def counted(operator: OperatorProcess, result: str, times: int) -> None:
    """Wait until usage was counted once more so many times."""
    line = f'honeyframe_usage_counts_total{{result="{result}"}} '

    def number() -> float:
        text = operator.get("/metrics")
        return float(text.split(line)[1].split("\n")[0]) if line in text else 0.0

    goal = await asyncio.to_thread(number) + times
    async with asyncio.timeout(20):
        while await asyncio.to_thread(number) < goal:
            await asyncio.sleep(0.05)


async def test_usage_is_shown_and_costs_nothing_while_it_stays(
    namespace: Namespace,
    own_operator: Callable[..., OperatorProcess],
    sink: WebhookSink,
    control_plane: ControlPlane,
) -> None:
    operator = own_operator("--usage-interval", "0.2")
    await asyncio.to_thread(operator.start)
    for name in ("used", "idle"):
        await namespace.connector(name, {"webhook": {"url": sink.url}})
        body = await namespace.ready(name)
    assert body["status"]["usage"] == {"datasets": 0, "agentTools": 0}
    await namespace.patch("Connector", "idle", {"spec": {"suspend": True}})
    used = await namespace.get("Connector", "used")
    use(operator, "datasets", used, "orders", "2026-03-01 12:07:00.000000")
    use(operator, "datasets", used, "customers", None)
    use(operator, "agent_tools", used, "search", "2026-03-01 11:00:00.000000")
    body = await namespace.wait("Connector", "used", lambda each: each["status"]["usage"]["datasets"] == 2)
    assert body["status"]["usage"] == {
        "datasets": 2,
        "agentTools": 1,
        "lastUsedAt": "2026-03-01T12:00:00Z",
        "recent": [
            {"kind": "dataset", "name": "orders", "lastUsedAt": "2026-03-01T12:00:00Z"},
            {"kind": "agentTool", "name": "search", "lastUsedAt": "2026-03-01T11:00:00Z"},
            {"kind": "dataset", "name": "customers"},
        ],
    }
    table = control_plane.kubectl_run("get", "connectors", "-n", namespace.name).stdout.splitlines()
    assert table[0].split()[5:8] == ["DATASETS", "TOOLS", "LAST-USED"]
    rows = {row.split()[0]: row.split() for row in table[1:]}
    assert (rows["used"][5:7], rows["used"][7][-1]) == (["2", "1"], "d")
    assert rows["idle"][5:7] == ["0", "0"]

    use(operator, "agent_tools", await namespace.get("Connector", "idle"), "answer", None)
    await namespace.wait("Connector", "idle", lambda each: each["status"]["usage"]["agentTools"] == 1)

    before = await namespace.get("Connector", "used")
    execute(operator, "update datasets set last_used_at = '2026-03-01 12:14:59.000000' where name = 'orders'")
    await counted(operator, "ok", 3)
    assert await namespace.get("Connector", "used") == before, "within a quarter of an hour"

    await asyncio.to_thread(operator.stop)
    objects = {name: await namespace.get("Connector", name) for name in ("used", "idle")}
    await asyncio.to_thread(operator.start)
    await counted(operator, "ok", 3)
    after = {name: await namespace.get("Connector", name) for name in objects}
    assert after == objects, "a restart writes nothing"

    await asyncio.to_thread(operator.stop)
    use(operator, "datasets", used, "late", "2026-03-02 12:00:00.000000")
    await asyncio.to_thread(operator.start)
    await namespace.wait("Connector", "used", lambda each: each["status"]["usage"]["datasets"] == 3)
    await asyncio.to_thread(operator.stop)


async def test_a_platform_table_with_other_columns_harms_no_connector(
    namespace: Namespace, own_operator: Callable[..., OperatorProcess], sink: WebhookSink
) -> None:
    operator = own_operator("--usage-interval", "0.2")
    await asyncio.to_thread(operator.start)
    await namespace.connector("c", {"webhook": {"url": sink.url}})
    await namespace.ready("c")
    use(operator, "datasets", await namespace.get("Connector", "c"), "orders", None)
    await namespace.wait("Connector", "c", lambda each: each["status"]["usage"]["datasets"] == 1)
    execute(operator, "alter table agent_tools rename column name to title")
    await counted(operator, "failed", 3)
    assert operator.log_file.read_text().count("usage cannot be counted") == 1
    await asyncio.to_thread(operator.stop)
    await asyncio.to_thread(operator.start)
    await counted(operator, "failed", 2)
    await namespace.connector("d", {"webhook": {"url": sink.url}})
    assert "usage" not in (await namespace.ready("d"))["status"]
    await namespace.patch("Connector", "c", {"spec": {"description": "looked at again"}})
    body = await namespace.ready("c")
    assert body["status"]["usage"]["datasets"] == 1, "as it was shown last"
    await asyncio.to_thread(operator.stop)
