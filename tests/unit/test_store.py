import asyncio
import shutil
import tempfile
import threading
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy import BLANK_SCHEMA, Connection, delete, insert, select, text
from sqlalchemy.exc import StatementError

from hack.postgres import PostgresServer
from honeyframe_connectors.errors import Reason, Stalled, Waiting
from honeyframe_connectors.store.database import Database
from honeyframe_connectors.store.tables import SCHEMA, metadata, orgs
from tests.support.stores import PASSWORD, postgresql_url, sqlite_url

NOW = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=timezone(timedelta(hours=2)))
CLOSED_PORT = "postgresql://user:hunter2@127.0.0.1:1/db?password=hunter2"


@pytest.fixture
async def database(url: str) -> AsyncIterator[Database]:
    store = Database(url)
    await store.open()
    yield store
    await store.close()


@pytest.fixture
def own_server() -> Iterator[PostgresServer]:
    home = Path(tempfile.mkdtemp(prefix="honeyframe-store-"))  # pytest's own are closed to the user postgres
    with PostgresServer.start(home) as server:
        yield server
    shutil.rmtree(home)


def adds(name: str) -> Any:
    def work(connection: Connection) -> str:
        connection.execute(insert(orgs), {"name": name, "updated_at": NOW})
        return name

    return work


async def names(database: Database) -> set[str]:
    return set(await database.read(lambda connection: connection.scalars(select(orgs.c.name)).all()))


class Held:
    """A write that keeps the writer busy until it is let go, so that what is written meanwhile waits together."""

    def __init__(self) -> None:
        self.begun, self.go = threading.Event(), threading.Event()

    def __call__(self, _: Connection) -> None:
        self.begun.set()
        assert self.go.wait(10)

    async def hold(self, database: Database) -> "asyncio.Task[None]":
        task = asyncio.create_task(database.write(self))
        assert await asyncio.to_thread(self.begun.wait, 10)
        return task


async def test_the_migrations_make_what_the_tables_say(database: Database) -> None:
    def compare(connection: Connection) -> list[Any]:
        postgresql = connection.dialect.name == "postgresql"
        options = {
            "include_schemas": postgresql,
            "include_name": lambda name, kind, _: kind != "schema" or name == (SCHEMA if postgresql else None),
            "version_table_schema": SCHEMA if postgresql else None,
            "compare_server_default": True,
        }
        declared = metadata
        if not postgresql:
            declared = type(metadata)(naming_convention=metadata.naming_convention)
            for table in metadata.sorted_tables:
                table.to_metadata(declared, schema=None, referred_schema_fn=lambda *_: BLANK_SCHEMA)
        return list(compare_metadata(MigrationContext.configure(connection, opts=options), declared))

    assert await database.read(compare) == []


async def test_it_does_not_go_back(database: Database) -> None:
    def back(connection: Connection) -> None:
        config = Config()
        config.set_main_option("script_location", "honeyframe_connectors.store:migrations")
        config.set_main_option("path_separator", "os")
        config.attributes["connection"] = connection
        command.downgrade(config, "base")

    await database.write(adds("acme"))
    with pytest.raises(RuntimeError, match="only expand"):
        await database.write(back)
    assert await names(database) == {"acme"}


async def test_it_opens_again_and_after_a_newer_release(database: Database, url: str) -> None:
    version = f"{SCHEMA}.alembic_version" if url.startswith("postgresql") else "alembic_version"
    await database.write(lambda connection: connection.execute(text(f"UPDATE {version} SET version_num = '9999'")))  # noqa: S608 - the table's own name
    older = Database(url)
    await older.open()
    await older.write(adds("acme"))
    await older.close()
    assert await names(database) == {"acme"}


async def test_two_open_a_new_store_at_once(url: str) -> None:
    stores = [Database(url), Database(url)]
    await asyncio.gather(*(store.open() for store in stores))
    await asyncio.gather(*(store.close() for store in stores))


async def test_what_comes_first_runs_alone_and_may_keep_the_store_closed(url: str) -> None:
    def refuse(connection: Connection) -> None:
        adds("acme")(connection)
        raise Waiting(Reason.VAULT_UNAVAILABLE, "not admitted")

    store = Database(url)
    with pytest.raises(Waiting, match="not admitted"):
        await store.open(refuse)
    with pytest.raises(Waiting, match="not open"):
        await store.write(adds("acme"))
    await store.open()
    assert await names(store) == set()
    await store.close()


async def test_a_table_can_be_made_anew_without_a_cascade(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[Any] = []
    real = command.upgrade

    def upgrade(config: Any, revision: str) -> None:
        seen.append(config.attributes["connection"].exec_driver_sql("PRAGMA foreign_keys").scalar())
        real(config, revision)

    monkeypatch.setattr(command, "upgrade", upgrade)
    store = Database(sqlite_url(tmp_path))
    await store.open()
    assert seen == [0]
    pragmas = ("foreign_keys", "journal_mode", "synchronous", "secure_delete")
    found = await store.read(lambda c: [c.exec_driver_sql(f"PRAGMA {name}").scalar() for name in pragmas])
    assert found == [1, "wal", 1, 1]
    await store.close()


async def test_times_are_utc_with_their_zone(database: Database) -> None:
    await database.write(adds("acme"))
    moment = await database.read(lambda connection: connection.scalar(select(orgs.c.updated_at)))
    assert (moment, moment.tzinfo) == (NOW, UTC)
    with pytest.raises(StatementError, match="needs a zone"):
        await database.write(lambda c: c.execute(insert(orgs), {"name": "b", "updated_at": NOW.replace(tzinfo=None)}))


async def test_writes_that_wait_share_a_transaction_and_one_that_fails_fails_alone(database: Database) -> None:
    transactions: list[Any] = []

    def note(name: str) -> Any:
        def work(connection: Connection) -> None:
            transactions.append(connection.get_transaction())
            adds(name)(connection)

        return work

    def fail(connection: Connection) -> None:
        adds("never")(connection)
        raise ValueError("mine")

    held = Held()
    first = await held.hold(database)
    writes = [asyncio.create_task(database.write(note(name))) for name in "abc"]
    await asyncio.sleep(0)
    held.go.set()
    await asyncio.gather(first, *writes)
    assert len(transactions) == 3
    assert len(set(transactions)) == 1

    held = Held()
    first = await held.hold(database)
    writes = [asyncio.create_task(database.write(work)) for work in (adds("d"), fail, adds("a"), adds("e"))]
    await asyncio.sleep(0)
    held.go.set()
    results = await asyncio.gather(first, *writes, return_exceptions=True)
    assert [type(result).__name__ for result in results] == ["NoneType", "str", "ValueError", "IntegrityError", "str"]
    assert await names(database) == set("abcde")


async def test_a_write_cancelled_before_it_begins_does_not_run_and_one_begun_is_whole(database: Database) -> None:
    held = Held()
    begun = await held.hold(database)
    waiting, other = asyncio.create_task(database.write(adds("a"))), asyncio.create_task(database.write(adds("b")))
    await asyncio.sleep(0)
    begun.cancel()
    waiting.cancel()
    await asyncio.wait({begun, waiting})
    held.go.set()
    await other
    assert await names(database) == {"b"}


async def test_closing_finishes_what_was_begun(url: str) -> None:
    store = Database(url)
    await store.open()
    writes = [asyncio.create_task(store.write(adds(str(number)))) for number in range(20)]
    await asyncio.sleep(0)
    await asyncio.gather(store.close(), *writes)
    with pytest.raises(Waiting, match="not open"):
        await store.write(adds("late"))
    await store.open()
    assert len(await names(store)) == 20
    await store.close()


async def test_it_goes_and_comes_back(own_server: PostgresServer) -> None:
    store = Database(postgresql_url(own_server))
    await store.open()
    await store.write(adds("before"))
    own_server.stop()
    results = await asyncio.gather(
        *(store.write(adds(f"lost-{number}")) for number in range(50)), names(store), return_exceptions=True
    )
    for result in results:
        assert isinstance(result, Waiting)
        assert result.reason is Reason.VAULT_UNAVAILABLE
        assert PASSWORD not in str(result)
    own_server.restart()
    await store.write(adds("after"))
    assert await names(store) == {"before", "after"}
    await store.close()


async def test_a_connection_that_was_ended_costs_nobody_a_write(own_server: PostgresServer) -> None:
    store = Database(postgresql_url(own_server))
    await store.open()
    own_server.psql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename LIKE 'store%'")
    await store.write(adds("a"))
    assert await names(store) == {"a"}
    await store.close()


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "hunter2",
        "mysql://user:hunter2@host/db",
        "postgresql://user:pass@hunter2@host/db",
        "postgresql://user:pass@word/hunter2@host/db",
        "postgresql://user:pw@host:hunter2/db",
    ],
)
def test_a_url_that_cannot_be_read_is_not_told(bad: str) -> None:
    with pytest.raises(Stalled) as told:
        Database(bad)
    assert told.value.reason is Reason.INVALID_CONFIG
    assert "hunter2" not in str(told.value)


async def test_the_password_is_in_no_repr_or_error(tmp_path: Path) -> None:
    store = Database(CLOSED_PORT)
    with pytest.raises(Waiting) as told:
        await store.open()
    assert "hunter2" not in f"{store!r} {told.value} {told.value.__cause__} {store.place}"
    assert "127.0.0.1:1" in str(told.value)
    (tmp_path / "file").touch()
    with pytest.raises(Waiting, match="cannot be made"):
        await Database(f"sqlite:///{tmp_path}/file/store.db").open()
    (tmp_path / "none.db").write_bytes(b"no database at all" * 100)
    with pytest.raises(Waiting, match="not a database"):
        await Database(f"sqlite:///{tmp_path}/none.db").open()


async def test_a_value_that_the_store_cannot_hold_is_a_sentence(postgres: PostgresServer) -> None:
    store = Database(postgresql_url(postgres))
    await store.open()
    with pytest.raises(Stalled, match="cannot hold"):
        await store.write(adds("x" * 64))
    assert await store.write(lambda connection: connection.execute(delete(orgs)).rowcount) == 0
    await store.close()
