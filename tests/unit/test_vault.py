import asyncio
import base64
import logging
import secrets
import sqlite3
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import Connection, insert, select, text, update

from hack.postgres import PostgresServer
from honeyframe_connectors.errors import Reason, Stalled, Waiting
from honeyframe_connectors.store.database import Database
from honeyframe_connectors.store.tables import (
    audit_log,
    connector_secret_history,
    data_connectors,
    install,
    metadata,
    orgs,
)
from honeyframe_connectors.vault.keyring import Keyring
from honeyframe_connectors.vault.orgs import Orgs
from honeyframe_connectors.vault.rows import ConnectorRow
from honeyframe_connectors.vault.vault import RowChanged, Vault
from tests.support.stores import CONFIG, OWNER, TUNING, accept, make, opened, postgresql_url, sqlite_url

OLD, NEW = secrets.token_bytes(32), secrets.token_hex(32).encode()
PASSWORD = b"correct-horse-battery-staple\n\xff"
SECRETS = {"password": PASSWORD, "ssl_key": b"-----BEGIN planted key-----"}
NOW = datetime.now(UTC)


@pytest.fixture
async def store(url: str) -> AsyncIterator[tuple[Database, Vault]]:
    async with opened(url, Keyring(OLD)) as both:
        yield both


@pytest.fixture
def vault(store: tuple[Database, Vault]) -> Vault:
    return store[1]


@pytest.fixture
def database(store: tuple[Database, Vault]) -> Database:
    return store[0]


async def scalars(database: Database, column: Any) -> list[Any]:
    return list(await database.read(lambda connection: connection.scalars(select(column)).all()))


async def execute(database: Database, statement: Any) -> None:
    await database.write(lambda connection: connection.execute(statement))


async def does_not_open(vault: Vault, row: ConnectorRow) -> None:
    """Neither in this process, which has its keys in memory, nor in one that reads it first."""
    for each in (vault, await another(vault)):
        with pytest.raises(Waiting) as told:
            await each.serving(row, TUNING)
        assert told.value.reason is Reason.VAULT_UNAVAILABLE
        assert not isinstance(told.value, RowChanged)
        assert PASSWORD[:10].decode() not in str(told.value)


async def another(vault: Vault) -> Vault:
    other = Vault(vault._database, Keyring(OLD))
    await other.open()
    return other


# --- versions ------------------------------------------------------------------------------------------------------


async def test_a_version_is_kept_and_opens_in_another_process(vault: Vault, database: Database) -> None:
    row = await make(vault)
    assert (row.serving_version, row.last_version, row.config) == (None, 0, {})
    row = await accept(vault, row, SECRETS, ca=b"a certificate")
    assert (row.serving_version, row.last_version, row.secret_name) == (1, 1, "warehouse")
    assert await vault.load(row.id) == row
    assert await vault.rows("cluster-1") == [row]
    assert await vault.rows("cluster-2") == []
    version = await (await another(vault)).serving(row, TUNING)
    assert (version.number, version.config, version.secrets, version.ca) == (1, CONFIG, SECRETS, b"a certificate")
    assert "battery" not in repr(version) + repr(row)
    assert await scalars(database, audit_log.c.action) == ["connector.created", "connector.accepted"]


async def test_numbers_are_never_used_twice(vault: Vault) -> None:
    row = await accept(vault, await make(vault), SECRETS)
    row = await accept(vault, row, {"password": b"second"}, floor=6)
    row = await accept(vault, row, {"password": b"third"}, floor=2)
    assert [each.number for each in await vault.history(row.id)] == [8, 7, 1]
    assert (await vault.serving(row, TUNING)).secrets == {"password": b"third"}
    assert all(each.at.tzinfo is UTC and each.test_status == "passed" for each in await vault.history(row.id))


async def test_a_tuning_field_changes_without_a_version(vault: Vault) -> None:
    row = await accept(vault, await make(vault), SECRETS)
    row = await vault.update(row, config={**CONFIG, "pool_size": 50})
    assert (await vault.serving(row, TUNING)).config["pool_size"] == 50


JSON = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["a", "b.c", "Ü"]), inner, max_size=3),
    max_leaves=6,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_any_config_and_any_bytes_come_back(url: str, data: st.DataObject) -> None:
    examples = data.draw(
        st.lists(
            st.tuples(
                st.dictionaries(st.sampled_from(["host", "port", "options"]), JSON, max_size=3),
                st.dictionaries(st.text(max_size=5).filter(lambda key: "\0" not in key), st.binary(max_size=40)),
            ),
            min_size=1,
            max_size=3,
        )
    )

    async def run() -> None:
        async with opened(url, Keyring(OLD)) as (_, vault):
            for config, values in examples:
                row = await accept(vault, await make(vault, secrets.token_hex(8)), values, config)
                assert (await vault.serving(row, TUNING)).secrets == values

    asyncio.run(run())


# --- what was changed by hand --------------------------------------------------------------------------------------

TEXT_CHANGES = {
    "cluster_id": "cluster-2",
    "namespace_uid": "namespace-uid-2",
    "org": "other",
    "project": "other",
    "name": "other",
    "serving_version": 1,
    "type": "webhook",
    "held": "0" * 64,
    "revoked": True,
    "secret_name": "other",
    "secret_mac": "0" * 64,
    "config_mac": "0" * 64,
    "config": {**CONFIG, "host": "evil.example.com"},
    "row_mac": "0" * 64,
}


@pytest.mark.parametrize("column", TEXT_CHANGES)
async def test_a_row_that_was_edited_does_not_open(vault: Vault, database: Database, column: str) -> None:
    row = await accept(vault, await accept(vault, await make(vault), SECRETS), {"password": b"second"})
    await execute(database, update(data_connectors).values({column: TEXT_CHANGES[column]}))
    await does_not_open(vault, row)


async def test_an_edited_row_is_nothing_that_is_sealed_anew(
    vault: Vault, database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    row = await vault.update(await accept(vault, await make(vault), SECRETS), observed={"uid": "uid-1"})
    other = await vault.update(await make(vault, "other"), observed={"uid": "uid-2"})
    edited = update(data_connectors).where(data_connectors.c.id == row.id).values(project="mine")
    await execute(database, edited)
    with caplog.at_level(logging.ERROR):
        rows = {each.id: each for each in await (await another(vault)).rows("cluster-1")}
    assert rows[other.id] == other, "one row that does not open keeps no other from being served"
    assert row.id in caplog.text
    assert rows[row.id].observed is None
    for use in (
        lambda: vault.load(row.id),
        lambda: accept(vault, rows[row.id], SECRETS),
        lambda: vault.update(rows[row.id], serving_version=None),
    ):
        with pytest.raises(Waiting, match="does not open"):
            await use()
    with pytest.raises(Waiting, match="does not open"):
        vault.mac(rows[row.id], "config", b"")
    gone = await vault.update(rows[row.id], deleted_at=NOW)
    assert gone.deleted_at == NOW, "what needs no key can still be noted"


async def test_what_belongs_to_another_row_or_version_does_not_open(vault: Vault, database: Database) -> None:
    row = await accept(vault, await accept(vault, await make(vault), SECRETS), {"password": b"second"})
    other = await accept(vault, await make(vault, "other"), {"password": b"of the other"})
    history, rows = connector_secret_history, data_connectors

    def blob_of(connection: Connection, row_id: str, version: int) -> bytes:
        found = connection.scalar(
            select(history.c.secrets_enc).where(history.c.connector_id == row_id, history.c.version == version)
        )
        assert isinstance(found, bytes)
        return found

    def put(connection: Connection, blob: bytes) -> None:
        where = (history.c.connector_id == row.id, history.c.version == 2)
        connection.execute(update(history).where(*where).values(secrets_enc=blob))

    own = await database.read(lambda connection: blob_of(connection, row.id, 2))
    for source in ((row.id, 1), (other.id, 1)):
        await database.write(lambda c, source=source: put(c, blob_of(c, *source)))  # type: ignore[misc]
        await does_not_open(vault, row)
    for place in (0, 3, 5, 13, len(own) // 2, len(own) - 1):
        changed = own[:place] + bytes([own[place] ^ 1]) + own[place + 1 :]
        await database.write(lambda c, changed=changed: put(c, changed))  # type: ignore[misc]
        await does_not_open(vault, row)
    await database.write(lambda connection: put(connection, own))
    assert (await vault.serving(row, TUNING)).secrets == {"password": b"second"}
    await execute(database, update(rows).where(rows.c.id == row.id).values(wrapped_keys=other.wrapped_keys))
    await does_not_open(vault, row)


async def test_a_last_version_that_was_lowered_overwrites_no_version(vault: Vault, database: Database) -> None:
    row = await accept(vault, await make(vault), SECRETS)
    await execute(database, update(data_connectors).values(last_version=0))
    lowered = await vault.load(row.id)
    assert lowered is not None
    with pytest.raises(Waiting, match="above its last_version") as told:
        await accept(vault, lowered, {"password": b"second"})
    assert told.value.reason is Reason.VAULT_UNAVAILABLE
    assert (await vault.serving(lowered, TUNING)).secrets == SECRETS


async def test_a_ca_that_is_no_text_is_a_sentence(vault: Vault) -> None:
    row = await make(vault)
    with pytest.raises(Stalled, match="not UTF-8") as told:
        await accept(vault, row, SECRETS, ca="# Certificación".encode("latin-1"))
    assert told.value.reason is Reason.CA_NOT_FOUND
    assert await vault.load(row.id) == row


async def test_another_ca_does_not_open(vault: Vault, database: Database) -> None:
    row = await accept(vault, await make(vault), SECRETS, ca=b"a certificate")
    for ca in ("an attacker's certificate", None):
        await execute(database, update(connector_secret_history).values(ca=ca))
        await does_not_open(vault, row)


@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    flips=st.lists(
        st.tuples(
            st.sampled_from(["wrapped_keys", "secrets_enc"]), st.floats(0, 1, exclude_max=True), st.integers(0, 7)
        ),
        min_size=4,
        max_size=4,
    )
)
def test_one_other_bit_and_it_does_not_open(tmp_path: Path, flips: list[tuple[str, float, int]]) -> None:
    path = tmp_path / f"{secrets.token_hex(4)}.db"

    async def run() -> None:
        async with opened(f"sqlite:///{path}", Keyring(OLD)) as (database, vault):
            row = await accept(vault, await make(vault), SECRETS)
            for column, place, bit in flips:
                table = data_connectors if column == "wrapped_keys" else connector_secret_history
                (blob,) = await scalars(database, table.c[column])
                changed = bytearray(blob)
                changed[int(place * len(blob))] ^= 1 << bit
                await execute(database, update(table).values({column: bytes(changed)}))
                fresh = await another(vault)
                with pytest.raises(Waiting, match="does not open"):
                    await fresh.serving(row, TUNING)
                await execute(database, update(table).values({column: blob}))
            assert (await vault.serving(row, TUNING)).secrets == SECRETS

    asyncio.run(run())


# --- nothing in the clear, nothing twice ---------------------------------------------------------------------------


def content(directory: Path) -> bytes:
    return b"".join(path.read_bytes() for path in directory.rglob("honeyframe.db*"))


async def test_no_secret_stands_in_any_column_or_file(store: tuple[Database, Vault], url: str, tmp_path: Path) -> None:
    database, vault = store
    row = await accept(vault, await make(vault), SECRETS)
    row = await accept(vault, row, {"password": PASSWORD, "token": b"another planted one"})
    await vault.update(row, observed={"seen": row.secret_mac})

    def dump(connection: Connection) -> bytes:
        everything = [
            value if isinstance(value, bytes) else repr(value).encode()
            for table in metadata.sorted_tables
            for found in connection.execute(select(table))
            for value in found
        ]
        return b"\0".join(everything)

    files = content(tmp_path)
    assert bool(files) == url.startswith("sqlite")
    everything = await database.read(dump) + files
    encoded = [base64.b64encode(bytes(shift) + PASSWORD)[4:-4] for shift in range(3)]
    for planted in (PASSWORD[:-2], PASSWORD.hex().encode(), *encoded, b"planted", OLD, OLD.hex().encode()):
        assert planted not in everything
    for key in vault._keys_of(row):
        assert key not in everything
        assert key.hex().encode() not in everything


async def test_a_nonce_never_repeats(vault: Vault, database: Database) -> None:
    async def rotate(name: str) -> None:
        row = await make(vault, name)
        for _ in range(10):
            row = await accept(vault, row, SECRETS)

    await asyncio.gather(*(rotate(f"c{number}") for number in range(20)))
    blobs = await scalars(database, connector_secret_history.c.secrets_enc)
    blobs += await scalars(database, data_connectors.c.wrapped_keys)
    assert len(blobs) == 220
    assert len({blob[12:24] for blob in blobs}) == 220


async def test_macs_are_the_row_s_own(vault: Vault) -> None:
    row, other = await make(vault), await make(vault, "other")
    macs = {vault.mac(row, "config", b"x"), vault.mac(row, "secret", b"x"), vault.mac(other, "config", b"x")}
    assert len(macs) == 3
    assert vault.mac(row, "config", b"x") in macs
    assert (await another(vault)).mac(row, "config", b"x") == vault.mac(row, "config", b"x")


# --- compare-and-set and names -------------------------------------------------------------------------------------


async def test_who_comes_second_writes_nothing(vault: Vault, database: Database) -> None:
    row = await make(vault)
    results = await asyncio.gather(*(accept(vault, row, SECRETS) for _ in range(8)), return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["ConnectorRow", *["RowChanged"] * 7]
    with pytest.raises(RowChanged):
        await vault.update(row, display_name="late")
    assert len(await vault.history(row.id)) == 1
    assert await scalars(database, audit_log.c.action) == ["connector.created", "connector.accepted"]


async def test_cancelled_it_is_the_old_row_or_the_new_one(vault: Vault) -> None:
    row = await accept(vault, await make(vault), {"password": b"0"})
    for number in range(1, 30):
        task = asyncio.create_task(accept(vault, row, {"password": str(number).encode()}))
        for _ in range(number % 4):
            await asyncio.sleep(0)
        task.cancel()
        await asyncio.wait({task})
        await vault.update(await make(vault, f"after-{number}"), display_name="the writer lives")
        fresh = await vault.load(row.id)
        assert fresh is not None
        version = await vault.serving(fresh, TUNING)
        assert version.number == fresh.serving_version == len(await vault.history(row.id))
        row = fresh


async def test_a_row_that_an_interrupted_call_made_is_found(vault: Vault) -> None:
    row = await make(vault)
    assert await make(vault) == row
    with pytest.raises(Stalled, match=f"for another object .*{row.id}"):
        await make(vault, uid="uid-2")


async def test_a_name_has_one_owner(vault: Vault, database: Database) -> None:
    row = await make(vault)
    for owner, whose in (
        (replace(OWNER, cluster_id="cluster-2"), "cluster cluster-1 keeps it"),
        (replace(OWNER, namespace_uid="namespace-uid-2"), "another namespace of this cluster"),
    ):
        with pytest.raises(Stalled, match=whose) as told:
            await make(vault, owner=owner)
        assert told.value.reason is Reason.NAME_CONFLICT
        assert "org acme, project analytics has a connector warehouse" in str(told.value)
    gone = await vault.update(row, deleted_at=NOW, audit="connector.deleted")
    second = await make(vault, owner=replace(OWNER, cluster_id="cluster-2"))
    with pytest.raises(Stalled, match="cluster cluster-2 keeps it"):
        await vault.update(gone, deleted_at=None)
    assert {each.id for each in await vault.rows("cluster-1")} == {row.id}
    values = {"id": "p", "org": "acme", "project": "analytics", "name": "theirs", "display_name": "", "type": "webhook"}
    values |= {"category": "messaging", "config": {}, "managed_by": "platform", "revision": "", "created_at": NOW}
    await execute(database, insert(data_connectors).values({**values, "updated_at": NOW}))
    with pytest.raises(Stalled, match="the platform itself keeps it"):
        await make(vault, "theirs")
    assert second.id != row.id


# --- keys ----------------------------------------------------------------------------------------------------------


async def test_a_new_key_comes_in_beside_the_old_one_only(url: str) -> None:
    async with opened(url, Keyring(OLD)) as (_, vault):
        row = await accept(vault, await make(vault), SECRETS)
        old_id = vault.key_id

    database = Database(url)
    stranger = Vault(database, Keyring(NEW))
    with pytest.raises(Waiting, match="another secret") as told:
        await stranger.open()
    assert told.value.reason is Reason.VAULT_UNAVAILABLE
    with pytest.raises(Waiting):
        await make(stranger, "other")
    with pytest.raises(Waiting):
        await Orgs(database).declare("acme", adapters=[], engine_profile=None, holder={})
    with pytest.raises(Waiting):
        stranger.mac(row, "config", b"")
    await database.close()

    async with opened(url, Keyring(NEW, [OLD])) as (both, vault):
        assert await scalars(both, orgs.c.name) == []
        assert (await vault.serving(row, TUNING)).secrets == SECRETS
        assert vault.key_id != old_id
        (checks,) = await scalars(both, install.c.checks)
        assert set(checks) == {old_id, vault.key_id}
        new = await accept(vault, await make(vault, "new"), SECRETS)

    async with opened(url, Keyring(NEW)) as (_, vault):
        assert (await vault.serving(new, TUNING)).secrets == SECRETS
        with pytest.raises(Waiting, match="not given"):
            await vault.serving(row, TUNING)
        assert {each.id for each in await vault.rows("cluster-1")} == {row.id, new.id}


@pytest.mark.parametrize("change", [lambda value: value[:-4] + "AAA=", lambda _: "no base64", lambda _: 5])
async def test_a_check_value_that_was_changed_admits_nobody(url: str, change: Callable[[str], object]) -> None:
    async with opened(url, Keyring(OLD)) as (database, _):
        (checks,) = await scalars(database, install.c.checks)
        changed = {key: change(value) for key, value in checks.items()}
        await execute(database, update(install).values(checks=changed))
    with pytest.raises(Waiting, match="another secret"):
        async with opened(url, Keyring(OLD)):
            pass


async def test_many_make_one_install(url: str) -> None:
    databases = [Database(url) for _ in range(4)]
    vaults = [Vault(database, Keyring(OLD)) for database in databases]
    await asyncio.gather(*(vault.open() for vault in vaults))
    await asyncio.gather(*(vault.open() for vault in vaults))
    assert len({vault.key_id for vault in vaults}) == 1
    assert len(await scalars(databases[0], install.c.install_id)) == 1
    await asyncio.gather(*(database.close() for database in databases))


async def test_it_opens_once_the_store_can_be_reached(postgres: PostgresServer) -> None:
    url = postgresql_url(postgres)
    name = url.rsplit("/", 1)[1].partition("?")[0]
    postgres.psql(f'ALTER ROLE "{name}" NOLOGIN')
    database = Database(url)
    vault = Vault(database, Keyring(OLD))
    with pytest.raises(Waiting, match="cannot be used"):
        await vault.open()
    postgres.psql(f'ALTER ROLE "{name}" LOGIN')
    await vault.open()
    await make(vault)
    await database.close()


def test_foreign_keys_cascade_on_sqlite(tmp_path: Path) -> None:
    async def run() -> None:
        async with opened(sqlite_url(tmp_path), Keyring(OLD)) as (database, vault):
            await accept(vault, await make(vault), SECRETS)
            await execute(database, text("DELETE FROM data_connectors"))

    asyncio.run(run())
    with sqlite3.connect(tmp_path / "store" / "honeyframe.db") as connection:
        assert connection.execute("SELECT count(*) FROM connector_secret_history").fetchone() == (0,)
    connection.close()
