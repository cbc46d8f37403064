"""Rows as manifests that `validate` finds right, with no secret in them, in bounded memory."""

import os
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest
import yaml
from sqlalchemy import insert
from typer.testing import CliRunner

from honeyframe_connectors.api.kinds import now
from honeyframe_connectors.backfill.export import Exported, Wanted, converted, export
from honeyframe_connectors.backfill.report import Outcome, Report
from honeyframe_connectors.backfill.secrets import backfill_secrets
from honeyframe_connectors.cli.__main__ import app
from honeyframe_connectors.store.tables import data_connectors
from honeyframe_connectors.vault.content import config_mac, secret_mac
from reconcilers.secret_values import pick
from tests.support.older import (
    PLANTED,
    REGISTRY,
    ROWS,
    SECRET,
    URL_TOKEN,
    OlderRow,
    is_sqlite,
    make_older_install,
    sql,
    store,
)
from tests.support.stores import accept, make, sqlite_url

BULLETS = "••••••••"
ROOT = Path(__file__).parents[2]


async def exported(url: str, wanted: Wanted | None = None, *, backfilled: bool = True) -> list[Exported]:
    async with store(url) as (database, vault):
        await vault.open()
        if backfilled:
            await backfill_secrets(database, vault, REGISTRY, Report(lambda _: None), dry_run=False)
        return [each async for each in export(database, vault, REGISTRY, wanted or Wanted())]


def documents(each: Exported) -> list[Any]:
    return list(yaml.safe_load_all(each.manifests))


def validates(tmp_path: Path, found: list[Exported]) -> None:
    path = tmp_path / "exported.yaml"
    path.write_text("".join(each.manifests for each in found))
    result = CliRunner().invoke(app, ["validate", "-f", str(path)])
    assert result.exit_code == 0, result.output


@pytest.mark.parametrize("backfilled", [True, False])
async def test_a_connector_that_adopts_its_row_and_a_stub_of_its_secret(
    url: str, tmp_path: Path, backfilled: bool
) -> None:
    made = make_older_install(url)
    found = await exported(url, backfilled=backfilled)
    text_ = "".join(each.manifests for each in found) + repr(found)
    assert PLANTED not in text_
    assert URL_TOKEN not in text_
    validates(tmp_path, found)
    connector, secret = documents(found[0])
    assert connector == {
        "apiVersion": "honeyframe.io/v1beta1",
        "kind": "Connector",
        "metadata": {
            "name": "production-postgres",
            "namespace": "default",
            "annotations": {"honeyframe.io/adopt": made[0]},
        },
        "spec": {
            "displayName": "Production Postgres",
            "config": {
                "postgresql": {
                    "host": "db.example.com",
                    "port": 5432,
                    "database": "analytics",
                    "username": "honeyframe_ro",
                    "sslmode": "require",
                    "pool_size": 10,
                }
            },
            "secretRef": {"name": "production-postgres"},
        },
    }
    assert secret == {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {
            "name": "production-postgres",
            "namespace": "default",
            "labels": {"honeyframe.io/credentials": "true"},
        },
        "stringData": {"password": BULLETS},
    }
    assert ("backfill secrets" in found[0].manifests) == (not backfilled)
    hook, hook_secret = documents(found[1])
    assert hook["spec"]["config"] == {"webhook": {}}
    assert hook["spec"]["secretRef"] == {"name": "alerts", "keys": {"url": "url"}}
    assert hook_secret["stringData"] == {"bearer_token": BULLETS, "url": BULLETS}
    assert (found[2].manifests, found[2].line.outcome) == ("", Outcome.FAILED)
    foreign, foreign_secret = documents(found[3])
    assert "annotations" not in foreign["metadata"]
    assert (foreign["spec"]["secretRef"], foreign_secret["stringData"]) == ({"name": "sealed-elsewhere"}, {})
    assert "a format that is not ours" in found[3].manifests
    (trusting,) = documents(found[4])
    assert "secretRef" not in trusting["spec"]


async def test_applied_with_the_real_values_it_is_what_serves(url: str) -> None:
    """By the very functions by which a reconcile compares: no rotation when it is adopted."""
    nulls = OlderRow("nulls", "pg", {"host": "h", "database": "a", "username": "b", "search_path": None, "uri": ""})
    headers = OlderRow("headers", "webhook", {"url": "https://h.example", "headers": {"X!Key": "v", "Y": "w"}})
    rows = (*ROWS[:2], nulls, headers)
    make_older_install(url, rows)
    found = await exported(url)
    async with store(url) as (_, vault):
        await vault.open()
        for each, older in zip(found, rows, strict=True):
            connector, *secret = documents(each)
            ((name, declared),) = connector["spec"]["config"].items()
            ref = connector["spec"].get("secretRef", {})
            paths = ref.get("keys", {})
            by_key = {key: path for path, key in paths.items()}
            data = {key: real(older, by_key.get(key, key)) for document in secret for key in document["stringData"]}
            values = pick(REGISTRY[name], paths, data, "secret") if secret else {}
            row = await vault.load(connector["metadata"]["annotations"]["honeyframe.io/adopt"])
            assert row is not None
            assert row.config_mac == config_mac(vault, row, REGISTRY[name], declared, None)
            assert row.secret_mac == secret_mac(vault, row, values)
            assert row.config == declared


def real(row: OlderRow, path: str) -> bytes:
    field, _, entry = path.partition(".")
    value = (row.config or {})[field]
    return (value[entry] if entry else value).encode()


async def test_what_a_type_does_not_know_or_take_is_left_out_and_named(url: str, tmp_path: Path) -> None:
    config = {
        "host": "db.example.com",
        "port": "5433",
        "database": "a",
        "username": "b",
        "sslmode": "prefer",
        "passwd": PLANTED,
        "x\n- evil: yes": 1,
        "search_path": f"password={PLANTED}",
        "statement_timeout": None,
    }
    make_older_install(url, rows=[OlderRow("a", "rds", config)])
    found = await exported(url)
    validates(tmp_path, found)
    (connector,) = documents(found[0])
    block = {"host": "db.example.com", "port": 5433, "database": "a", "username": "b"}
    assert connector["spec"]["config"] == {"postgresql": block}
    comments = [line for line in found[0].manifests.splitlines() if line.startswith("#")]
    assert comments[1:] == [
        '# left out, for type postgresql has no such field: "passwd", "x?- evil: yes"',
        '# left out, for type postgresql does not take the value: "sslmode"',
        '# left out, for a password seems to be in the value: "search_path"',
        "# its adoption is a rotation, for this config is not the one that serves",
    ]
    assert PLANTED not in found[0].manifests


async def test_names_become_valid_and_stay_unique(url: str, tmp_path: Path) -> None:
    names = ["Ünïcode Café", "a b", "a-b", "A_B", "生产", "x" * 255, "ok.name", "-"]
    make_older_install(url, rows=[OlderRow(name, "pg", {"host": "h"}) for name in names])
    found = await exported(url)
    validates(tmp_path, found)
    given = {documents(each)[0]["spec"].get("displayName", each.name): each.name for each in found}
    assert len(set(given.values())) == len(names)
    assert given["Ünïcode Café"] == "unicode-cafe"
    assert given["a-b"] == "a-b"
    assert given["ok.name"] == "ok.name"
    assert given["a b"].startswith("a-b-")
    assert given["A_B"].startswith("a-b-")
    assert given["生产"].startswith("connector")
    assert [each.name for each in await exported(url)] == [each.name for each in found]
    assert all(converted(name) == converted(converted(name)) for name in names)


async def test_a_name_that_two_orgs_have_is_given_once(url: str, tmp_path: Path) -> None:
    rows = [OlderRow("warehouse", "pg", {"host": "h"}, extra={"org_id": org}) for org in ("acme", "beta")]
    make_older_install(url, rows=rows, more=", org_id TEXT")
    first, second = await exported(url)
    assert first.name == "warehouse"
    assert second.name.startswith("warehouse-")
    assert documents(second)[0]["spec"]["displayName"] == "warehouse"
    validates(tmp_path, [first, second])


async def test_headers_have_keys_that_a_secret_may_have(url: str, tmp_path: Path) -> None:
    headers = {"X-Key": PLANTED, "X!Key": PLANTED, "X~Key": PLANTED}
    make_older_install(url, rows=[OlderRow("a", "webhook", {"url": "https://h.example", "headers": headers})])
    found = await exported(url)
    validates(tmp_path, found)
    connector, secret = documents(found[0])
    keys = connector["spec"]["secretRef"]["keys"]
    assert set(keys) == {"url", "headers.X-Key", "headers.X!Key", "headers.X~Key"}
    assert (
        set(keys.values()) == set(secret["stringData"]) == {"url", "headers.X-Key", "headers.X_Key", "headers.X_Key_2"}
    )


async def test_filters_and_the_operators_own(url: str) -> None:
    more = ", org VARCHAR(63), project VARCHAR(253), description TEXT, output_schemas "
    more += "TEXT" if is_sqlite(url) else "TEXT[]"
    schemas = '["public", "marts"]' if is_sqlite(url) else "{public,marts}"
    rows = [
        OlderRow("one", "pg", {"host": "h"}, extra={"org": "acme", "project": "analytics"}),
        OlderRow("two", "pg", {"host": "h"}, extra={"org": "acme", "project": "ops"}),
        OlderRow(
            "three",
            "pg",
            {"host": "h"},
            extra={"org": "beta", "project": "ops", "description": "Read-only", "output_schemas": schemas},
        ),
    ]
    make_older_install(url, rows=rows, more=more)
    async with store(url) as (_, vault):
        await vault.open()
        await accept(vault, await make(vault), {"password": PLANTED.encode()}, ca=b"a certificate")
        gone = await make(vault, "gone", uid="uid-2")
        await vault.update(gone, deleted_at=now())

    async def names(wanted: Wanted) -> list[str]:
        return sorted(each.name for each in await exported(url, wanted))

    assert await names(Wanted()) == ["one", "three", "two"]
    assert await names(Wanted(org="acme")) == ["one", "two"]
    assert await names(Wanted(project="ops")) == ["three", "two"]
    assert await names(Wanted(everything=True, project="analytics")) == ["one", "warehouse"]
    (own,) = [each for each in await exported(url, Wanted(everything=True)) if each.name == "warehouse"]
    connector, secret = documents(own)
    assert "annotations" not in connector["metadata"]
    assert secret["stringData"] == {"password": BULLETS}
    assert "spec.caRef" in own.manifests
    (three,) = await exported(url, Wanted(org="beta"))
    spec = documents(three)[0]["spec"]
    assert (spec["description"], spec["outputSchemas"]) == ("Read-only", ["public", "marts"])
    assert documents(three)[0]["metadata"]["namespace"] == "ops"


async def test_a_project_that_is_no_namespace_is_said(url: str) -> None:
    rows = [OlderRow("a", "pg", {"host": "h"}, extra={"project_id": "Data Team"})]
    make_older_install(url, rows=rows, more=", project_id TEXT")
    (found,) = await exported(url)
    assert found.namespace == "data-team"
    assert "project Data Team is no name of a namespace" in found.manifests


async def test_a_row_that_does_not_open_is_named(url: str) -> None:
    make_older_install(url, rows=ROWS[:1])
    await exported(url)
    sql(url, "UPDATE honeyframe.data_connectors SET name = 'renamed'")
    (found,) = await exported(url)
    assert found.line.outcome is Outcome.FAILED
    assert "does not open" in found.line.what
    assert "its secrets do not open: add the keys that it has" in found.manifests


MEASURED = """
import sys
from pathlib import Path
from honeyframe_connectors.cli.__main__ import app
try:
    app()
finally:
    (peak,) = [line.split()[1] for line in Path("/proc/self/status").read_text().splitlines() if line[:6] == "VmHWM:"]
    print(peak, file=sys.stderr)
"""


async def add(url: str, rows: Iterable[int]) -> None:
    """Rows of 4 KiB each."""
    moment = now()
    values = [
        {
            "id": f"{number:036d}",
            "org": "acme",
            "project": "ops",
            "name": f"Connector {number}",
            "display_name": "",
            "type": "rds",
            "category": "",
            "config": {"host": "h", "password": PLANTED, "unknown": "x" * 4096},
            "managed_by": "platform",
            "revision": "0",
            "created_at": moment,
            "updated_at": moment,
        }
        for number in rows
    ]
    async with store(url) as (database, vault):
        await vault.open()
        await database.write(lambda connection: connection.execute(insert(data_connectors), values))


async def test_ten_thousand_rows_in_bounded_memory(url: str, tmp_path: Path) -> None:
    """All of them would be 40 MiB and more; what grows is one name a row."""

    def peak_of_an_export(rows: int) -> int:
        """Bytes, of the command's process, its drivers' own included."""
        output = tmp_path / "manifests.yaml"
        with output.open("w") as file:
            options = ["--secret-file", str(secret), "--database-file", str(database)]
            command = [sys.executable, "-c", MEASURED, "export", *options]
            env = {**os.environ, "PYTHONPATH": os.pathsep.join(["operator", "."])}
            ran = subprocess.run(
                command, env=env, cwd=ROOT, stdout=file, stderr=subprocess.PIPE, text=True, check=False
            )
        assert ran.returncode == 0, ran.stderr
        assert output.read_text().count("\nkind: Connector\n") == rows
        return int(ran.stderr.splitlines()[-1]) * 1024

    secret, database = tmp_path / "secret", tmp_path / "database-url"
    secret.write_bytes(SECRET)
    database.write_text(url)
    make_older_install(url, rows=())
    await add(url, range(10))
    few = peak_of_an_export(10)
    await add(url, range(10, 10_000))
    assert peak_of_an_export(10_000) - few < 10 * 2**20


def test_the_folder_has_a_file_a_connector_and_nothing_is_overwritten(tmp_path: Path) -> None:
    url = sqlite_url(tmp_path)
    make_older_install(url)
    secret = tmp_path / "secret"
    secret.write_text("0123456789abcdef-planted-but-random-enough-XYZ")
    folder = tmp_path / "git"
    options = ["--database", url, "--secret-file", str(secret)]
    result = CliRunner().invoke(app, ["export", *options, "-d", str(folder)])
    assert result.exit_code == 1, result.output  # one type is unknown
    assert "sap (netweaver): its type is not known here" in result.stderr
    assert result.stdout == ""
    files = sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*.yaml"))
    names = ("alerts", "production-postgres", "sealed-elsewhere", "trusting")
    assert files == [f"default/{name}.yaml" for name in names]
    assert CliRunner().invoke(app, ["validate", "-f", str(folder)]).exit_code == 0
    again = CliRunner().invoke(app, ["export", *options, "-d", str(folder)])
    assert again.exit_code == 2
    assert "nothing is overwritten" in again.stderr
