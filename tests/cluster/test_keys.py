"""The platform's secret is exchanged, leaks, or is lost, under an operator that is at work."""

import asyncio
import secrets
import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hack.operator_process import OperatorProcess
from hack.webhook_sink import WebhookSink
from honeyframe_connectors.registry import default_registry
from honeyframe_connectors.store.database import Database
from honeyframe_connectors.vault.keyring import Keyring
from honeyframe_connectors.vault.rekey import Rekeyed, rekey
from honeyframe_connectors.vault.reset import reset
from honeyframe_connectors.vault.vault import Vault
from tests.cluster.conftest import PASSWORD
from tests.support.cluster import Namespace, condition

Own = Callable[..., OperatorProcess]


class Secret:
    """A file with a secret of the platform."""

    def __init__(self, path: Path) -> None:
        self.path = path
        path.write_text(secrets.token_hex(32))


def database_of(operator: OperatorProcess) -> Database:
    return Database(f"sqlite:///{operator.directory}/honeyframe.db")


def wrapped_under(operator: OperatorProcess, namespace: Namespace) -> set[bytes]:
    """The ids of the keys that a namespace's rows are under."""
    with sqlite3.connect(operator.directory / "honeyframe.db") as connection:
        statement = "select substr(wrapped_keys, 5, 8) from data_connectors where project = ?"
        return {found for (found,) in connection.execute(statement, (namespace.name,))}


async def start(operator: OperatorProcess, secret: Secret, *older: Secret) -> None:
    """Start it anew with other secrets."""
    await asyncio.to_thread(operator.stop)
    operator.secret_file = secret.path
    if older:
        operator.env["HONEYFRAME_OLDER_SECRET_FILES"] = ",".join(str(each.path) for each in older)
    else:
        operator.env.pop("HONEYFRAME_OLDER_SECRET_FILES", None)
    await asyncio.to_thread(operator.start)


async def fill(namespace: Namespace, sink: WebhookSink) -> None:
    """Connectors that serve, one of them suspended since."""
    await namespace.secret("s", bearer_token=PASSWORD)
    for name in ("a", "b", "asleep"):
        await namespace.connector(name, {"webhook": {"url": sink.url}}, "s")
    for name in ("a", "b", "asleep"):
        await namespace.ready(name)
    await namespace.patch("Connector", "asleep", {"spec": {"suspend": True}})
    await namespace.ready("asleep")


async def all_serve(namespace: Namespace, version: int = 1) -> None:
    for name in ("a", "b", "asleep"):
        body = await namespace.ready(name)
        assert body["status"]["servedVersion"] == version


async def test_exchanged_with_and_without_the_old_one(
    own_operator: Own, namespace: Namespace, sink: WebhookSink, tmp_path: Path
) -> None:
    old, new = Secret(tmp_path / "old"), Secret(tmp_path / "new")
    operator = own_operator()
    await start(operator, old)
    await fill(namespace, sink)
    (before,) = wrapped_under(operator, namespace)

    await start(operator, new)
    await namespace.connector("no-row", {"webhook": {"url": sink.url}}, "s")
    await namespace.connector("no-row-asleep", {"webhook": {"url": sink.url}}, "s", suspend=True)
    for name in ("a", "b", "asleep", "no-row", "no-row-asleep"):
        body = await namespace.ready(name, "False", "VaultUnavailable")
        assert "--older-secret-files" in condition(body, "Ready")["message"]  # type: ignore[index]
        assert name.startswith("no-row") or body["status"]["servedVersion"] == 1, "what serves is still named"
    assert wrapped_under(operator, namespace) == {before}

    await start(operator, new, old)
    await all_serve(namespace)
    await namespace.ready("no-row")
    async with asyncio.timeout(20):
        while before in wrapped_under(operator, namespace):  # in the background
            await asyncio.sleep(0.05)

    await start(operator, new)
    await all_serve(namespace)
    await namespace.ready("no-row-asleep", "Unknown", "Suspended")
    await namespace.set_secret("s", bearer_token=f"{PASSWORD}-2")
    for name in ("a", "b"):
        await namespace.wait("Connector", name, lambda body: body["status"].get("servedVersion") == 2)


async def test_a_row_under_a_secret_that_is_not_given_says_so_until_it_is_mended(
    own_operator: Own, namespace: Namespace, sink: WebhookSink, tmp_path: Path
) -> None:
    """The new secret is admitted, but a row came back out of a backup."""
    old, new = Secret(tmp_path / "old"), Secret(tmp_path / "new")
    operator = own_operator()
    await start(operator, old)
    await fill(namespace, sink)
    await asyncio.to_thread(operator.stop)
    with sqlite3.connect(operator.directory / "honeyframe.db") as connection:
        backup = dict(connection.execute("select id, wrapped_keys from data_connectors").fetchall())
    await start(operator, new, old)
    async with asyncio.timeout(20):
        while wrapped_under(operator, namespace) & {each[4:12] for each in backup.values()}:
            await asyncio.sleep(0.05)
    await asyncio.to_thread(operator.stop)

    def put(values: dict[str, bytes]) -> dict[str, bytes]:
        with sqlite3.connect(operator.directory / "honeyframe.db") as connection:
            there = dict(connection.execute("select id, wrapped_keys from data_connectors").fetchall())
            connection.executemany("update data_connectors set wrapped_keys = ?2 where id = ?1", values.items())
        return there

    mended = put(backup)
    await start(operator, new)
    for name in ("a", "b", "asleep"):
        body = await namespace.ready(name, "False", "VaultUnavailable")
        assert "not given" in condition(body, "Ready")["message"]  # type: ignore[index]
    put(mended)
    await all_serve(namespace)


async def on_vault(operator: OperatorProcess, secret: Secret, work: Callable[[Vault], Any]) -> Any:
    database = database_of(operator)
    vault = Vault(database, Keyring.read(secret.path))
    await vault.open()
    try:
        return await work(vault)
    finally:
        await database.close()


async def test_after_a_leak_nothing_is_rotated(
    own_operator: Own, namespace: Namespace, sink: WebhookSink, tmp_path: Path
) -> None:
    secret = Secret(tmp_path / "secret")
    operator = own_operator()
    await start(operator, secret)
    await fill(namespace, sink)

    async def work(vault: Vault) -> Rekeyed:
        return await rekey(vault.database, vault.wrapping, default_registry())

    result = await on_vault(operator, secret, work)
    assert result.failures == ()
    ours = [(each.name, each.secret_name) for each in result.to_rotate if each.project == namespace.name]
    assert ours == [("a", "s"), ("asleep", "s"), ("b", "s")]
    token = "2027-01-01T00:00:00Z"
    annotations = {"metadata": {"annotations": {"reconcile.fluxcd.io/requestedAt": token}}}
    for restart in (False, True):
        if restart:
            await start(operator, secret)
            annotations["metadata"]["annotations"]["reconcile.fluxcd.io/requestedAt"] = token = "2027-01-02T00:00:00Z"
        for name in ("a", "b"):
            await namespace.patch("Connector", name, annotations)
            body = await namespace.wait(
                "Connector",
                name,
                lambda body: body["status"].get("lastHandledReconcileAt") == token,  # noqa: B023
            )
            assert body["status"]["servedVersion"] == 1
        await all_serve(namespace)
    await namespace.set_secret("s", bearer_token=f"{PASSWORD}-2")
    for name in ("a", "b"):
        await namespace.wait("Connector", name, lambda body: body["status"].get("servedVersion") == 2)


async def test_a_lost_secret_is_made_good_from_the_live_ones(
    own_operator: Own, namespace: Namespace, sink: WebhookSink, tmp_path: Path
) -> None:
    lost, new = Secret(tmp_path / "lost"), Secret(tmp_path / "new")
    operator = own_operator()
    await start(operator, lost)
    await fill(namespace, sink)
    await start(operator, new)
    before = {}
    for name in ("a", "b", "asleep"):
        before[name] = (await namespace.ready(name, "False", "VaultUnavailable"))["status"]["connectorId"]
    lost.path.unlink()
    database = database_of(operator)
    await database.open()
    gone = await reset(database, Keyring.read(new.path))
    await database.close()
    ours = [(each.name, each.versions) for each in gone if each.project == namespace.name]
    assert ours == [("a", 1), ("asleep", 1), ("b", 1)]
    for name in ("a", "b"):  # by the operator that runs
        body = await namespace.ready(name)
        assert (body["status"]["connectorId"], body["status"]["servedVersion"]) == (before[name], 2)
    await namespace.patch("Connector", "asleep", {"spec": {"suspend": False}})
    body = await namespace.ready("asleep")
    assert (body["status"]["connectorId"], body["status"]["servedVersion"]) == (before["asleep"], 2)
