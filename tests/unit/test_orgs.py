import asyncio
import secrets
from collections.abc import AsyncIterator
from typing import Any

import pytest
from sqlalchemy import select, update

from honeyframe_connectors.store.database import Database
from honeyframe_connectors.store.tables import audit_log, orgs
from honeyframe_connectors.vault.keyring import Keyring
from honeyframe_connectors.vault.orgs import Orgs
from tests.support.stores import opened

KEY = secrets.token_bytes(32)
DEFAULT = [{"adapter": "dbt"}]
ADAPTERS = [{"adapter": "saphana", "instanceName": "erp"}]
HOLDER = {"uid": "uid-1", "namespace": "analytics", "name": "catalog"}


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    async with opened(url, Keyring(KEY)) as (database, _):
        yield database


async def audited(database: Database) -> list[Any]:
    found = await database.read(lambda connection: connection.execute(select(audit_log)).all())
    assert {each.action for each in found} <= {"catalog.config.updated"}
    return [each.detail for each in found]


async def test_a_catalog_is_declared_and_released(database: Database) -> None:
    catalog = Orgs(database)
    assert await catalog.get("acme") is None
    for _ in range(2):
        row = await catalog.declare("acme", adapters=ADAPTERS, engine_profile="native", holder=HOLDER)
    assert await catalog.get("acme") == row
    await catalog.release("acme", "uid-1")
    await catalog.release("acme", "uid-1")
    (released,) = await catalog.all()
    assert (released.adapters, released.engine_profile, released.holder) == (DEFAULT, "native", None)
    first, second = await audited(database)
    assert first == {
        "before": {"adapters": DEFAULT, "engine_profile": "dbt"},
        "after": {"adapters": ADAPTERS, "engine_profile": "native"},
    }
    assert second == {"before": first["after"], "after": {"adapters": DEFAULT, "engine_profile": "native"}}


async def test_declaring_the_defaults_is_no_change(database: Database) -> None:
    row = await Orgs(database).declare("acme", adapters=DEFAULT, engine_profile=None, holder=HOLDER)
    assert (row.engine_profile, row.holder) == ("dbt", HOLDER)
    assert await audited(database) == []


async def test_no_engine_profile_leaves_the_engine(database: Database) -> None:
    catalog = Orgs(database)
    await catalog.declare("acme", adapters=DEFAULT, engine_profile="native", holder=HOLDER)
    row = await catalog.declare("acme", adapters=ADAPTERS, engine_profile=None, holder=HOLDER)
    assert row.engine_profile == "native"


async def test_who_does_not_hold_it_releases_nothing(database: Database) -> None:
    catalog = Orgs(database)
    await catalog.release("acme", "uid-1")
    assert await catalog.all() == []
    row = await catalog.declare("acme", adapters=ADAPTERS, engine_profile=None, holder=HOLDER)
    await catalog.release("acme", "another uid")
    assert await catalog.get("acme") == row
    assert len(await audited(database)) == 1


@pytest.mark.parametrize("kept", [None, [], {}])
async def test_no_adapters_are_the_default_ones(database: Database, kept: object) -> None:
    catalog = Orgs(database)
    await catalog.declare("acme", adapters=ADAPTERS, engine_profile=None, holder=HOLDER)
    await database.write(lambda connection: connection.execute(update(orgs).values(catalog_config=kept)))
    row = await catalog.get("acme")
    assert row is not None
    assert row.adapters == DEFAULT


async def test_two_processes_declare_a_new_org_at_once(url: str) -> None:
    async with opened(url, Keyring(KEY)) as (one, _), opened(url, Keyring(KEY)) as (other, _):
        for number in range(20):
            declared = (
                Orgs(database).declare(f"org-{number}", adapters=ADAPTERS, engine_profile=None, holder=HOLDER)
                for database in (one, other)
            )
            first, second = await asyncio.gather(*declared)
            assert first == second
        assert len(await audited(one)) == 20
