"""A CatalogConfig, from its manifest to the org's row and back."""

import asyncio
import json
import sqlite3
from typing import Any

import pytest

from hack.operator_process import OperatorProcess
from honeyframe_operator.kube import ApiError
from tests.support.cluster import Namespace, condition, request
from tests.support.kstatus import kstatus


@pytest.fixture
async def org(namespace: Namespace) -> str:
    """The org of this test's namespace: its own."""
    name = f"org-{namespace.name}"
    await label(namespace, name)
    return name


async def label(namespace: Namespace, org: str) -> None:
    await request(
        namespace.client,
        "PATCH",
        f"/api/v1/namespaces/{namespace.name}",
        {"metadata": {"labels": {"honeyframe.io/org": org}}},
        "application/merge-patch+json",
    )


def rows(operator: OperatorProcess, statement: str, *values: str) -> list[tuple[Any, ...]]:
    with sqlite3.connect(operator.directory / "honeyframe.db") as connection:
        return connection.execute(statement, values).fetchall()


def org_row(operator: OperatorProcess, org: str) -> tuple[Any, str]:
    ((catalog, engine),) = rows(operator, "select catalog_config, engine_profile from orgs where name = ?", org)
    return json.loads(catalog), engine


async def test_declared(namespace: Namespace, operator: OperatorProcess, org: str) -> None:
    adapters = [{"adapter": "dbt", "instanceName": "w", "config": {"manifest": "m.json"}}, {"adapter": "native"}]
    await namespace.create("CatalogConfig", "c", spec={"org": org, "adapters": adapters, "engineProfile": "native"})
    body = await namespace.ready("c", kind="CatalogConfig")
    assert kstatus(body) == "Current"
    assert (body["status"]["adapterNames"], body["status"]["engineProfile"]) == ("w, native", "native")
    catalog, engine = org_row(operator, org)
    assert catalog == [
        {"adapter": "dbt", "instance_name": "w", "config": {"manifest": "m.json"}},
        {"adapter": "native"},
    ]
    assert engine == "native"
    await namespace.patch("CatalogConfig", "c", {"spec": {"adapters": [], "engineProfile": None}})
    body = await namespace.ready("c", kind="CatalogConfig")
    assert org_row(operator, org) == ([{"adapter": "dbt"}], "native"), "dbt alone; the engine is left alone"
    audit = [
        json.loads(detail)
        for (detail,) in rows(
            operator,
            "select detail from audit_log where action = 'catalog.config.updated' and subject = ? order by id",
            org,
        )
    ]
    assert [len(entry["after"]["adapters"]) for entry in audit] == [2, 1]
    assert audit[1]["before"] == audit[0]["after"]


async def test_deleted(namespace: Namespace, operator: OperatorProcess, org: str) -> None:
    await namespace.create(
        "CatalogConfig", "c", spec={"org": org, "adapters": [{"adapter": "native"}], "engineProfile": "native"}
    )
    await namespace.ready("c", kind="CatalogConfig")
    await namespace.create("CatalogConfig", "d", spec={"org": org, "adapters": [{"adapter": "saphana"}]})
    body = await namespace.ready("d", "False", "Conflict", kind="CatalogConfig")
    assert f"{namespace.name}/c" in condition(body, "Ready")["message"]
    assert kstatus(body) == "Failed"
    await namespace.delete("CatalogConfig", "c")
    await namespace.ready("d", kind="CatalogConfig")
    assert org_row(operator, org) == ([{"adapter": "saphana"}], "native")
    await namespace.delete("CatalogConfig", "d")
    async with asyncio.timeout(10):
        while org_row(operator, org) != ([{"adapter": "dbt"}], "native"):
            await asyncio.sleep(0.05)


async def test_a_foreign_org(namespace: Namespace, operator: OperatorProcess, org: str) -> None:
    await namespace.create("CatalogConfig", "c", spec={"org": "foreign"})
    body = await namespace.ready("c", "False", "OrgMismatch", kind="CatalogConfig")
    assert org in condition(body, "Ready")["message"]
    assert rows(operator, "select * from orgs where name = 'foreign'") == []
    with pytest.raises(ApiError, match="org cannot be changed"):
        await namespace.patch("CatalogConfig", "c", {"spec": {"org": org}})
    await label(namespace, "foreign")
    await namespace.ready("c", kind="CatalogConfig")
