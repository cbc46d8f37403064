"""Keys are wrapped anew and nothing else changes, whatever happens in the middle."""

import asyncio
import secrets
from collections.abc import Iterator
from typing import Any

import pytest
from sqlalchemy import select, update

from honeyframe_connectors.errors import Waiting
from honeyframe_connectors.store.database import Database
from honeyframe_connectors.store.tables import connector_secret_history, data_connectors, install
from honeyframe_connectors.vault import rewrap as module
from honeyframe_connectors.vault.keyring import Keyring
from honeyframe_connectors.vault.rewrap import forget_older, rewrap
from honeyframe_connectors.vault.rows import ConnectorRow
from honeyframe_connectors.vault.vault import Vault
from tests.support.stores import TUNING, accept, make, opened

OLD, NEW, NEWEST = secrets.token_bytes(32), secrets.token_hex(32).encode(), secrets.token_bytes(40)
SECRETS = {"password": b"correct-horse"}


@pytest.fixture(autouse=True)
def small_batches(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_NEXT", module._NEXT.limit(3))


async def rows_of(database: Database) -> list[Any]:
    return list(await database.read(lambda c: c.execute(select(data_connectors).order_by(data_connectors.c.id)).all()))


async def fill(url: str, count: int) -> list[ConnectorRow]:
    async with opened(url, Keyring(OLD)) as (_, vault):
        return [await accept(vault, await make(vault, f"c{number}"), SECRETS) for number in range(count)]


async def test_only_the_wrap_is_another(url: str) -> None:
    rows = await fill(url, 7)
    async with opened(url, Keyring(NEW, [OLD])) as (database, vault):
        before = await rows_of(database)
        told: list[tuple[int, int]] = []
        result = await rewrap(database, vault.wrapping, lambda done, total: told.append((done, total)))
        assert (result.done, result.left, result.failures) == (7, 0, ())
        assert told == [(0, 7), (3, 7), (6, 7), (7, 7)]
        for old, new in zip(before, await rows_of(database), strict=True):
            assert old.wrapped_keys != new.wrapped_keys
            assert {**old._mapping, "wrapped_keys": b""} == {**new._mapping, "wrapped_keys": b""}
        assert (await rewrap(database, vault.wrapping)).done == 0, "a second time there is nothing to do"
    async with opened(url, Keyring(NEW)) as (_, vault):
        for row in rows:
            fresh = await vault.load(row.id)
            assert fresh is not None
            assert (await vault.serving(fresh, TUNING)).secrets == SECRETS
            assert vault.mac(fresh, "secret", b"secret") == row.secret_mac, "nothing looks rotated"


class Killed(Exception):
    pass


@pytest.mark.parametrize("at", ["read", "write"])
async def test_killed_between_any_two_batches_it_goes_on(url: str, at: str, monkeypatch: pytest.MonkeyPatch) -> None:
    await fill(url, 7)
    ends: Iterator[int] = iter(range(1, 20))
    done = 0
    for _ in range(20):
        async with opened(url, Keyring(NEW, [OLD])) as (database, vault):
            real, left = getattr(database, at), next(ends)

            async def dying(work: Any, real: Any = real) -> Any:
                nonlocal left
                left -= 1
                if left == 0:
                    raise Killed
                return await real(work)

            monkeypatch.setattr(database, at, dying)
            try:
                result = await rewrap(database, vault.wrapping)
            except Killed:
                continue
            assert (result.left, result.failures) == (0, ())
            done += 1
            break
    assert done == 1
    async with opened(url, Keyring(NEW)) as (database, vault):
        assert all(vault.opens(row) for row in await vault.rows("cluster-1"))


async def test_an_operator_that_is_at_work_loses_no_write(url: str) -> None:
    await fill(url, 12)
    async with opened(url, Keyring(NEW, [OLD])) as (database, vault):
        operator = Vault(Database(url), Keyring(NEW, [OLD]))
        await operator.open()

        async def work(row: ConnectorRow) -> ConnectorRow:
            for number in range(5):
                row = await accept(operator, row, {"password": str(number).encode()})
                row = await operator.update(row, observed={"round": number})
            return row

        rows = await operator.rows("cluster-1")
        result, *changed = await asyncio.gather(rewrap(database, vault.wrapping), *map(work, rows))
        assert (await rewrap(database, vault.wrapping)).left == 0
        assert result.failures == ()
        await operator.database.close()
    async with opened(url, Keyring(NEW)) as (_, vault):
        for row in changed:
            fresh = await vault.load(row.id)
            assert fresh is not None
            assert (fresh.revision, fresh.last_version, fresh.observed) == (row.revision, 6, {"round": 4})
            assert (await vault.serving(fresh, TUNING)).secrets == {"password": b"4"}


async def test_two_at_once_do_each_row_once(url: str) -> None:
    await fill(url, 12)
    async with opened(url, Keyring(NEW, [OLD])) as (one, vault), opened(url, Keyring(NEW, [OLD])) as (other, _):
        results = await asyncio.gather(rewrap(one, vault.wrapping), rewrap(other, vault.wrapping))
        assert sum(result.done for result in results) == 12
        assert (await rewrap(one, vault.wrapping)).left == 0


async def test_keys_that_another_process_gave_meanwhile_stay(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    (row,) = await fill(url, 1)
    async with opened(url, Keyring(NEW, [OLD])) as (database, vault):
        real = module._prepared

        def slow(connection: Any, *arguments: Any) -> Any:
            batch = real(connection, *arguments)
            if batch.changes:
                theirs = update(data_connectors).values(wrapped_keys=b"theirs")
                with database._engine.begin() as other:
                    other.execute(theirs)
            return batch

        monkeypatch.setattr(module, "_prepared", slow)
        result = await rewrap(database, vault.wrapping)
        assert (result.done, result.left) == (0, 1)
        (found,) = await rows_of(database)
        assert found.wrapped_keys == b"theirs"
        assert result.failures == ()
        assert row.id == found.id


TAMPERED = {
    "wrapped_keys": "another row's",
    "row_mac": "0" * 64,
    "project": "mine",
    "serving_version": None,
    "held": "f" * 64,
}


@pytest.mark.parametrize("column", TAMPERED)
async def test_a_row_that_was_changed_is_named_and_left(url: str, column: str) -> None:
    rows = await fill(url, 5)
    victim = rows[2]
    value = rows[0].wrapped_keys if column == "wrapped_keys" else TAMPERED[column]
    async with opened(url, Keyring(NEW, [OLD])) as (database, vault):
        change = update(data_connectors).where(data_connectors.c.id == victim.id).values({column: value})
        await database.write(lambda connection: connection.execute(change))
        before = {each.id: each for each in await rows_of(database)}[victim.id]
        result = await rewrap(database, vault.wrapping)
        assert (result.done, result.left) == (4, 1)
        (failure,) = result.failures
        assert (failure.connector_id, failure.name) == (victim.id, victim.name)
        assert "does not open" in failure.error
        assert {each.id: each for each in await rows_of(database)}[victim.id] == before
        assert await forget_older(database, vault.wrapping) == [], "a row still needs it"
        assert not vault.opens(next(row for row in await vault.rows("cluster-1") if row.id == victim.id))


async def test_a_row_whose_secret_is_not_given_is_named(url: str) -> None:
    await fill(url, 2)
    async with opened(url, Keyring(NEW, [OLD])) as (_, vault):
        await make(vault, "new")
    async with opened(url, Keyring(NEWEST, [NEW])) as (database, vault):
        result = await rewrap(database, vault.wrapping)
        assert (result.done, result.left) == (1, 2)
        assert all("not given" in each.error for each in result.failures)


async def test_an_older_secret_is_forgotten_once_nothing_needs_it(url: str) -> None:
    await fill(url, 2)
    async with opened(url, Keyring(NEW, [OLD])) as (database, vault):
        old_id = list(vault.wrapping)[1]
        assert await forget_older(database, vault.wrapping) == [], "rows are under it"
        await rewrap(database, vault.wrapping)
        assert await forget_older(database, vault.wrapping) == [old_id]
        (checks,) = await database.read(lambda c: c.scalars(select(install.c.checks)).all())
        assert set(checks) == {vault.key_id}
    with pytest.raises(Waiting, match="another secret"):
        async with opened(url, Keyring(OLD)):
            pass
    async with opened(url, Keyring(NEW, [OLD])) as (_, vault):
        assert len(await vault.rows("cluster-1")) == 2


async def test_no_version_is_touched(url: str) -> None:
    await fill(url, 4)
    history = select(connector_secret_history).order_by(connector_secret_history.c.connector_id)
    async with opened(url, Keyring(NEW, [OLD])) as (database, vault):
        before = await database.read(lambda connection: connection.execute(history).all())
        await rewrap(database, vault.wrapping)
        assert await database.read(lambda connection: connection.execute(history).all()) == before
