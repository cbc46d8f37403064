"""The cluster's row: who holds it commits, and nobody else does."""

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, func, insert, select, text, update

from hack.postgres import PostgresServer
from honeyframe_connectors.api.kinds import now
from honeyframe_connectors.errors import Reason, Waiting
from honeyframe_connectors.store.database import Change, Database, Fenced
from honeyframe_connectors.store.tables import audit_log, clusters
from honeyframe_connectors.vault.clusters import Heartbeat, Held, Leadership, heartbeats
from tests.support.stores import postgresql_url

Open = Callable[[], Any]


@pytest.fixture
async def another(url: str) -> AsyncIterator[Open]:
    """Opens the same store as another process does."""
    opened: list[Database] = []

    async def open_() -> Database:
        opened.append(Database(url))
        await opened[-1].open()
        return opened[-1]

    yield open_
    for each in opened:
        await each.close()


def entry(action: str) -> Change:
    return Change(insert(audit_log), {"at": now(), "action": action, "subject": "s", "detail": {}})


async def written(database: Database) -> list[str]:
    return await database.read(lambda connection: list(connection.scalars(select(audit_log.c.action))))


async def age(database: Database, seconds: float) -> None:
    """Let the rows look as if they had been written earlier."""

    def change(connection: Connection) -> None:
        written = connection.scalars(select(clusters.c.renewed_at)).one()
        connection.execute(update(clusters), {"renewed_at": written - timedelta(seconds=seconds)})

    await database.write(change, guarded=False)


async def test_one_leads_and_the_other_says_why_it_does_not(another: Open) -> None:
    first, second = Leadership(await another(), "c"), Leadership(await another(), "c")
    await first.take()
    first.fence()
    with pytest.raises(Held, match=rf"another process \({first.process_id}.*--cluster-id"):
        await second.take()
    with pytest.raises(Waiting, match="led by another process"):
        second.fence()
    await first.renew()
    await Leadership(await another(), "d").take()


async def test_what_was_released_is_taken_at_once(another: Open) -> None:
    database = await another()
    first, second = Leadership(database, "c"), Leadership(await another(), "c")
    await first.take()
    await first.release()
    await second.take()
    with pytest.raises(Waiting):
        first.fence()
    with pytest.raises(Fenced):
        await database.apply(entry("late"))
    with pytest.raises(Held):
        await first.renew()


async def test_a_frozen_leader_commits_nothing_once_another_leads(another: Open) -> None:
    database, successor = await another(), await another()
    frozen, second = Leadership(database, "c"), Leadership(successor, "c")
    await frozen.take()
    await database.apply(entry("first"))
    await age(successor, 14)
    with pytest.raises(Held):
        await second.take()
    await age(successor, 1.5)
    await second.take()
    results = await asyncio.gather(
        *(database.apply(entry("late")) for _ in range(20)),
        database.write(lambda connection: connection.execute(insert(audit_log), entry("late").values)),
        return_exceptions=True,
    )
    assert all(isinstance(each, Fenced) for each in results)
    await successor.apply(entry("second"))
    assert sorted(await written(successor)) == ["first", "second"]


async def test_a_leader_that_was_away_goes_on_if_nobody_took_over(another: Open) -> None:
    database = await another()
    leadership = Leadership(database, "c")
    await leadership.take()
    await age(database, 60)
    await database.apply(entry("first"))
    await leadership.renew()
    (heartbeat,) = await heartbeats(database)
    assert heartbeat.fresh
    assert heartbeat.process_id == leadership.process_id


async def test_a_leader_without_a_store_stops_by_its_own_clock(another: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    moment = 1000.0
    database = await another()
    leadership = Leadership(database, "c", clock=lambda: moment)
    await leadership.take()

    async def refuse(*_: Any, **__: Any) -> None:
        raise Waiting(Reason.VAULT_UNAVAILABLE, "the store is away")

    monkeypatch.setattr(database, "write", refuse)
    moment += 13
    leadership.fence()
    with pytest.raises(Waiting, match="away"):
        await leadership.renew()
    leadership.fence()
    moment += 1
    with pytest.raises(Waiting, match="away") as told:
        leadership.fence()
    assert told.value.reason is Reason.VAULT_UNAVAILABLE
    monkeypatch.undo()
    await leadership.renew()
    leadership.fence()


async def test_a_taker_waits_for_what_was_let_through(postgres: PostgresServer) -> None:
    """Between the check and the commit the row cannot be taken, however old it is; SQLite has one writer anyhow."""
    url = postgresql_url(postgres)
    database, successor = Database(url), Database(url)
    await database.open()
    await successor.open()
    first, second = Leadership(database, "c"), Leadership(successor, "c")
    await first.take()
    await age(successor, 60)
    loop, checked = asyncio.get_running_loop(), asyncio.Event()
    waiting = text(
        "select count(*) from pg_stat_activity where wait_event_type = 'Lock' and datname = current_database()"
    )

    def slow(connection: Connection) -> None:
        loop.call_soon_threadsafe(checked.set)
        while not connection.scalar(waiting):  # until the taker waits for us
            connection.execute(text("select pg_stat_clear_snapshot()"))
        connection.execute(insert(audit_log), entry("in time").values)

    writing = asyncio.ensure_future(database.write(slow))
    await checked.wait()
    await second.take()
    await writing
    assert await written(successor) == ["in time"]
    with pytest.raises(Fenced):
        await database.apply(entry("late"))
    await database.close()
    await successor.close()


async def test_many_take_at_once_and_one_gets_it(another: Open) -> None:
    candidates = [Leadership(await another(), "c") for _ in range(4)]
    results = await asyncio.gather(*(each.take() for each in candidates), return_exceptions=True)
    assert sum(result is None for result in results) == 1
    assert sum(isinstance(result, Held) for result in results) == 3
    database = await another()
    assert await database.read(lambda connection: connection.scalar(select(func.count()).select_from(clusters))) == 1


def test_fresh_is_what_may_not_be_taken() -> None:
    assert Heartbeat("c", "p", 15.0, released=False).fresh
    assert not Heartbeat("c", "p", 15.1, released=False).fresh
    assert not Heartbeat("c", "p", 0.0, released=True).fresh
