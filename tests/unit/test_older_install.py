"""A table that the platform made before us: our migrations meet it, its rows stay and can be read."""

import secrets

import pytest
from sqlalchemy import select

from honeyframe_connectors.errors import Reason, Stalled, Waiting
from honeyframe_connectors.store.database import Database
from honeyframe_connectors.store.tables import connector_secret_history, data_connectors, orgs
from honeyframe_connectors.vault.keyring import Keyring
from tests.support.older import (
    FOREIGN,
    PLANTED,
    ROWS,
    OlderRow,
    add_older_row,
    dump,
    is_sqlite,
    make_older_install,
    older_columns,
    sql,
)
from tests.support.stores import OWNER, accept, make, opened

KEYRING = Keyring(secrets.token_bytes(32))


@pytest.mark.parametrize("ids", ["text", "uuid", "number"])
async def test_rows_stay_as_they_are_and_can_be_read(url: str, ids: str) -> None:
    made = make_older_install(url, ids=ids)
    before = older_columns(url)
    async with opened(url, KEYRING) as (database, vault):
        assert older_columns(url) == before
        found = await database.read(
            lambda connection: connection.execute(select(data_connectors).order_by(data_connectors.c.name)).all()
        )
        assert {each.id for each in found} == set(made)
        assert {(each.managed_by, each.org, each.project, each.deleted_at) for each in found} == {
            ("platform", "default", "default", None)
        }
        assert {each.display_name for each in found} == {row.name for row in ROWS}
        assert [each.connection_secrets_enc for each in found if each.name == "sealed-elsewhere"] == [FOREIGN]
        assert len({each.revision for each in found}) == len(ROWS)
        assert all(each.created_at.year >= 2026 and each.created_at.tzinfo for each in found)
        # They are not the operator's, and nothing of its own work sees them.
        assert await vault.rows(OWNER.cluster_id) == []
        one = await database.read(
            lambda c: c.execute(select(data_connectors).where(data_connectors.c.id == made[0])).one()
        )
        assert one.config["password"] == PLANTED


async def test_the_platform_goes_on_writing_and_the_operator_beside_it(url: str) -> None:
    make_older_install(url, more=", owner_note TEXT NOT NULL, state TEXT NOT NULL DEFAULT 'new'", rows=())
    async with opened(url, KEYRING) as (database, vault):
        add_older_row(url, "later", OlderRow("later", "rds", {}, extra={"owner_note": "mine"}))
        row = await accept(vault, await make(vault), {"password": b"planted"})
        assert (await vault.serving(row, frozenset({"pool_size"}))).secrets == {"password": b"planted"}
        names = await database.read(
            lambda c: c.execute(select(data_connectors.c.name, data_connectors.c.managed_by)).all()
        )
        assert sorted(names) == [("later", "platform"), ("warehouse", "operator")]


async def test_two_orgs_of_the_platform_go_on_using_the_same_names(url: str) -> None:
    made = [OlderRow("warehouse", "rds", {}, extra={"org_id": org, "project_id": 7}) for org in (1, 2)]
    make_older_install(url, made, more=", org_id INTEGER NOT NULL, project_id INTEGER")
    async with opened(url, KEYRING) as (database, vault):
        for org in (1, 2):
            later = OlderRow("lake", "rds", {}, extra={"org_id": org, "project_id": 8 if org == 1 else None})
            add_older_row(url, f"later-{org}", later)
        ours = await make(vault)
        columns = (data_connectors.c.org, data_connectors.c.project, data_connectors.c.name)
        found = await database.read(lambda c: sorted(map(tuple, c.execute(select(*columns)))))
        shown = await database.read(lambda c: set(c.scalars(select(data_connectors.c.display_name))))
    assert found == sorted(
        [
            ("1", "7", "warehouse"),
            ("2", "7", "warehouse"),
            ("1", "8", "lake"),
            ("2", "default", "lake"),
            (ours.owner.org, ours.owner.project, "warehouse"),
        ]
    )
    assert shown == {"warehouse", "lake"}


async def test_the_name_of_a_platforms_row_is_taken_and_the_words_say_how_to_get_it(url: str) -> None:
    made = make_older_install(
        url,
        rows=[OlderRow("warehouse", "rds", {"password": PLANTED}, extra={"org_id": "acme", "project_id": "analytics"})],
        more=", org_id VARCHAR(20), project_id VARCHAR(20)",
    )
    async with opened(url, KEYRING) as (_, vault):
        with pytest.raises(Stalled) as told:
            await make(vault)
    assert told.value.reason is Reason.NAME_CONFLICT
    assert "the platform itself keeps it" in told.value.message
    assert f'honeyframe.io/adopt: "{made[0]}"' in told.value.message
    assert PLANTED not in told.value.message


async def test_two_rows_of_one_name_are_named_and_nothing_is_changed(url: str) -> None:
    make_older_install(url, rows=[OlderRow("twice", "rds", {}), OlderRow("twice", "webhook", {})])
    before = dump(url)
    database = Database(url)
    with pytest.raises(Waiting, match=r"name 'twice'; rename"):
        await database.open()
    await database.close()
    assert dump(url) == before


@pytest.mark.parametrize("ids", ["number", "serial"])
async def test_the_operators_rows_get_the_next_numbers(url: str, ids: str) -> None:
    make_older_install(url, ids=ids, rows=ROWS)
    if ids == "serial" and not is_sqlite(url):
        sql(url, "SELECT setval('honeyframe.data_connectors_id_seq', 5)")
    async with opened(url, KEYRING) as (_, vault):
        first = await accept(vault, await make(vault), {"password": b"planted"})
        second = await make(vault, "lake", uid="uid-2")
        assert [first.id, second.id] == ["6", "7"]
        assert await vault.load("6") == first
        assert [each.number for each in await vault.history("6")] == [1]


@pytest.mark.parametrize("blob", ["TEXT", "VARCHAR(4000)"])
async def test_a_blob_column_of_text(url: str, blob: str) -> None:
    foreign = OlderRow("sealed", "rds", {}, extra={"connection_secrets_enc": "enc:v1:\\x00"})
    make_older_install(url, rows=[foreign], blob=blob)
    async with opened(url, KEYRING) as (database, vault):
        row = await accept(vault, await make(vault), {"password": b"planted"})
        found = await database.read(
            lambda c: dict(c.execute(select(data_connectors.c.id, data_connectors.c.connection_secrets_enc)).all())
        )
        blobs = await database.read(lambda c: c.scalars(select(connector_secret_history.c.secrets_enc)).all())
    assert found.pop(row.id) == blobs[0]
    assert list(found.values()) == [b"enc:v1:\\x00"]


async def test_a_column_that_cannot_be_shared_is_named(url: str) -> None:
    if is_sqlite(url):
        pytest.skip("SQLite's columns take anything")
    make_older_install(url, more=", revision INTEGER NOT NULL DEFAULT 1")
    database = Database(url)
    with pytest.raises(Waiting, match=r"column revision is of type INTEGER.*database of its own"):
        await database.open()
    await database.close()


async def test_something_else_of_that_name_is_named(url: str) -> None:
    make_older_install(url, rows=(), ids="number")
    sql(url, "ALTER TABLE honeyframe.data_connectors DROP COLUMN config")
    database = Database(url)
    with pytest.raises(Waiting, match="no column config"):
        await database.open()
    await database.close()


async def test_the_platforms_other_tables_are_met_too(url: str) -> None:
    made = make_older_install(url, rows=ROWS[:2])
    history = "id SERIAL PRIMARY KEY, blob TEXT NOT NULL, connector_id VARCHAR(36)"
    cascade = "REFERENCES honeyframe.data_connectors (id) ON DELETE CASCADE"
    for statement in (
        "CREATE TABLE honeyframe.orgs (id SERIAL PRIMARY KEY, name TEXT NOT NULL, catalog_config JSONB)",
        "CREATE TABLE honeyframe.audit_log (id SERIAL PRIMARY KEY, actor TEXT NOT NULL)",
        f"CREATE TABLE honeyframe.connector_secret_history ({history} {cascade})",
        "INSERT INTO honeyframe.orgs (name) VALUES ('acme')",
    ):
        sql(url, statement)
    for blob in "xy":
        values = {"id": made[0], "blob": blob}
        sql(url, "INSERT INTO honeyframe.connector_secret_history (connector_id, blob) VALUES (:id, :blob)", values)
    async with opened(url, KEYRING) as (database, vault):
        row = await accept(vault, await make(vault), {"password": b"planted"})
        kept = await database.read(
            lambda c: c.execute(
                select(connector_secret_history.c.connector_id, connector_secret_history.c.version)
            ).all()
        )
        assert sorted(kept) == sorted([(made[0], 1), (made[0], 2), (row.id, 1)])
        last = await database.read(
            lambda c: c.scalar(select(data_connectors.c.last_version).where(data_connectors.c.id == made[0]))
        )
        assert last == 2
        assert await database.read(lambda c: c.execute(select(orgs.c.name, orgs.c.engine_profile)).all()) == [
            ("acme", "dbt")
        ]
