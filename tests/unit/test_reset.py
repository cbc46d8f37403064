"""Where the vault's secret is lost: everything begins anew, no number twice, and nothing that opens is taken away."""

import secrets
from datetime import UTC, datetime
from typing import Any

import pytest
from sqlalchemy import func, insert, select, update

from honeyframe_connectors.errors import Reason, Stalled, Waiting
from honeyframe_connectors.store.database import Database
from honeyframe_connectors.store.tables import (
    audit_log,
    connector_secret_history,
    data_connectors,
    install,
    login_refusals,
)
from honeyframe_connectors.vault.keyring import Keyring
from honeyframe_connectors.vault.reset import Lost, lost, reset
from honeyframe_connectors.vault.rewrap import rewrap
from tests.support.stores import TUNING, accept, make, opened

LOST, NEW, THIRD = secrets.token_bytes(32), secrets.token_hex(32).encode(), secrets.token_bytes(32)
SECRETS = {"password": b"correct-horse"}
NOW = datetime.now(UTC)


async def count(database: Database, table: Any) -> int:
    found: int = await database.read(lambda c: c.execute(select(func.count()).select_from(table)).scalar_one())
    return found


async def test_every_row_begins_anew(url: str) -> None:
    async with opened(url, Keyring(LOST)) as (database, vault):
        row = await accept(vault, await accept(vault, await make(vault), SECRETS), {"password": b"second"})
        row = await vault.update(
            row, observed={"uid": "u"}, pending={"content": "c"}, held="f" * 64, revoked=True, forced=True,
            handled_rollback_at="2026-01-01T00:00:00Z", deletion_policy="Retain",
        )  # fmt: skip
        bare = await make(vault, "bare")
        gone = await vault.update(await accept(vault, await make(vault, "gone"), SECRETS), deleted_at=NOW)
        refusal = {"namespace_uid": "n", "target": "t", "secret_mac": "m", "attempts": 1, "message": "no"}
        await database.write(
            lambda c: c.execute(insert(login_refusals), {**refusal, "refused_at": NOW, "next_at": NOW})
        )
    database = Database(url)
    await database.open()
    told = await lost(database, Keyring(NEW))
    assert await count(database, connector_secret_history) == 3, "to look changes nothing"
    assert await reset(database, Keyring(NEW)) == told
    assert [(each.name, each.versions, each.held, each.rebuilt) for each in told] == [
        ("bare", 0, False, True),
        ("gone", 1, False, True),
        ("warehouse", 2, True, True),
    ]
    assert await count(database, connector_secret_history) == await count(database, login_refusals) == 0
    await database.close()
    with pytest.raises(Waiting, match="another secret"):
        async with opened(url, Keyring(LOST)):
            pass
    async with opened(url, Keyring(NEW)) as (database, vault):
        rows = {each.id: each for each in await vault.rows("cluster-1")}
        assert set(rows) == {row.id, bare.id, gone.id}
        anew = rows[row.id]
        assert vault.opens(anew)
        assert (anew.serving_version, anew.last_version, anew.config, anew.owner) == (None, 2, {}, row.owner)
        nothing = (anew.observed, anew.pending, anew.held, anew.secret_name, anew.config_mac, anew.secret_mac)
        assert nothing == (None,) * 6
        assert (anew.revoked, anew.forced) == (False, False)
        assert (anew.handled_rollback_at, anew.deletion_policy) == ("2026-01-01T00:00:00Z", "Retain")
        assert rows[gone.id].deleted_at is not None
        again = await accept(vault, anew, SECRETS)
        assert again.serving_version == 3, "no number is used twice"
        assert (await vault.serving(again, TUNING)).secrets == SECRETS
        actions = await database.read(lambda c: c.scalars(select(audit_log.c.action)).all())
        assert actions.count("connector.reset") == 3


async def test_a_number_that_was_lowered_by_hand_is_not_used_again(url: str) -> None:
    async with opened(url, Keyring(LOST)) as (database, vault):
        await accept(vault, await make(vault), SECRETS, floor=6)
        lowered = update(data_connectors).values(last_version=0)
        await database.write(lambda connection: connection.execute(lowered))
        await reset(database, Keyring(NEW))
    async with opened(url, Keyring(NEW)) as (_, vault):
        (row,) = await vault.rows("cluster-1")
        assert row.last_version == 7


@pytest.mark.parametrize("keyring", [Keyring(LOST), Keyring(NEW, [LOST])], ids=["alone", "beside another"])
async def test_while_the_secret_is_there_it_refuses(url: str, keyring: Keyring) -> None:
    async with opened(url, Keyring(LOST)) as (database, vault):
        row = await accept(vault, await make(vault), SECRETS)
        for act in (lost, reset):
            with pytest.raises(Stalled, match="vault rewrap") as told:
                await act(database, keyring)
            assert told.value.reason is Reason.INVALID_CONFIG
        assert await vault.load(row.id) == row


async def test_where_there_is_no_vault_it_refuses(url: str) -> None:
    database = Database(url)
    await database.open()
    with pytest.raises(Stalled, match="no vault"):
        await reset(database, Keyring(NEW))
    await database.close()


async def test_what_a_given_secret_opens_stays(url: str) -> None:
    """The exchange was not finished when the older secret was lost."""
    async with opened(url, Keyring(LOST)) as (_, vault):
        old = await accept(vault, await make(vault, "old"), SECRETS)
    async with opened(url, Keyring(NEW, [LOST])) as (_, vault):
        new = await accept(vault, await make(vault, "new"), SECRETS)
    async with opened(url, Keyring(THIRD, [NEW])) as (database, vault):
        assert [each.connector_id for each in await reset(database, Keyring(THIRD, [NEW]))] == [old.id]
        assert await vault.load(new.id) == new
        assert (await vault.serving(new, TUNING)).secrets == SECRETS
        (checks,) = await database.read(lambda c: c.scalars(select(install.c.checks)).all())
        assert set(checks) == set(vault.wrapping), "the lost one lets nobody in any more"
        assert (await rewrap(database, vault.wrapping)).left == 0
        with pytest.raises(Stalled):
            await reset(database, Keyring(THIRD, [NEW]))


async def test_a_row_that_the_platform_keeps_stays_and_is_named(url: str) -> None:
    async with opened(url, Keyring(LOST)) as (database, vault):
        row = await accept(vault, await make(vault), SECRETS)
        theirs = update(data_connectors).values(managed_by="platform")
        await database.write(lambda connection: connection.execute(theirs))
        found = select(data_connectors)
        before = await database.read(lambda connection: connection.execute(found).all())
        assert await reset(database, Keyring(NEW)) == [
            Lost(row.id, "analytics", "warehouse", versions=1, held=False, rebuilt=False)
        ]
        assert await database.read(lambda connection: connection.execute(found).all()) == before


async def test_a_check_value_that_was_damaged_costs_no_row(url: str) -> None:
    async with opened(url, Keyring(LOST)) as (database, vault):
        row = await accept(vault, await make(vault), SECRETS)
        await database.write(lambda connection: connection.execute(update(install).values(checks={})))
        assert await reset(database, Keyring(LOST)) == []
    async with opened(url, Keyring(LOST)) as (_, vault):
        assert await vault.load(row.id) == row


async def test_a_row_that_was_changed_by_hand_is_no_lost_one(url: str) -> None:
    async with opened(url, Keyring(LOST)) as (database, vault):
        await make(vault, "lost")
        row = await accept(vault, await make(vault), SECRETS)
        change = update(data_connectors).where(data_connectors.c.id == row.id).values(wrapped_keys=b"no format of ours")
        await database.write(lambda connection: connection.execute(change))
        assert [each.name for each in await reset(database, Keyring(NEW))] == ["lost"]
        assert await count(database, connector_secret_history) == 1
