"""What uses each connector: the counting on both stores, and what a status says of it."""

import secrets
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import Connection, insert, text
from sqlalchemy.dialects import postgresql, sqlite

from honeyframe_connectors.api.connector import Usage as UsageStatus
from honeyframe_connectors.errors import Waiting
from honeyframe_connectors.store.database import Database
from honeyframe_connectors.store.tables import agent_tools, datasets
from honeyframe_connectors.usage import RECENT, Usage, UsageCounter, statement
from honeyframe_connectors.vault.keyring import Keyring
from honeyframe_connectors.vault.vault import Vault
from reconcilers.connector_usage import UsageBoard
from tests.support.stores import OWNER, make, opened

KEY = secrets.token_bytes(32)
NOON = datetime(2026, 3, 1, 12, 0, tzinfo=UTC)


@pytest.fixture
async def store(url: str) -> AsyncIterator[tuple[Database, Vault]]:
    async with opened(url, Keyring(KEY)) as found:
        yield found


async def use(
    database: Database, table: Any, connector_id: str, *uses: tuple[str, datetime | None], owner: Any = OWNER
) -> None:
    rows = [
        {
            "id": secrets.token_hex(16),
            "org": owner.org,
            "project": owner.project,
            "name": name,
            "connector_id": connector_id,
            "last_used_at": moment,
        }
        for name, moment in uses
    ]
    await database.write(lambda connection: connection.execute(insert(table), rows))


async def test_counts_and_the_most_recent_of_each_connector(store: tuple[Database, Vault]) -> None:
    database, vault = store
    busy, idle, unused = [await make(vault, name, uid=name) for name in ("busy", "idle", "unused")]
    await use(database, datasets, busy.id, *((f"d{n:02}", NOON + timedelta(hours=n)) for n in range(12)))
    await use(database, agent_tools, busy.id, ("t-new", NOON + timedelta(days=3, minutes=29)), ("t-never", None))
    await use(database, datasets, idle.id, ("b", None), ("a", None))
    found = await UsageCounter(database).count(OWNER.cluster_id)
    assert unused.id not in found
    counted = found[busy.id]
    assert (counted.datasets, counted.agent_tools) == (12, 2)
    assert counted.last_used_at == NOON + timedelta(days=3, minutes=15), "in whole quarters of an hour"
    assert [each.name for each in counted.recent] == ["t-new", *(f"d{n:02}" for n in range(11, 2, -1))]
    assert len(counted.recent) == RECENT
    assert counted.recent[0].kind == "agentTool"
    assert found[idle.id].last_used_at is None
    assert [(each.name, each.last_used_at) for each in found[idle.id].recent] == [("a", None), ("b", None)]


async def test_within_a_quarter_of_an_hour_nothing_changes(store: tuple[Database, Vault]) -> None:
    database, vault = store
    row = await make(vault)
    await use(database, datasets, row.id, *((f"d{n:02}", NOON) for n in range(15)))
    counter = UsageCounter(database)
    before = await counter.count(OWNER.cluster_id)
    await database.write(
        lambda connection: connection.execute(
            datasets.update().where(datasets.c.name == "d14").values(last_used_at=NOON + timedelta(minutes=14))
        )
    )
    assert await counter.count(OWNER.cluster_id) == before
    assert [each.name for each in before[row.id].recent] == [f"d{n:02}" for n in range(10)]


async def test_no_other_tenants_rows_and_no_deleted_connectors(store: tuple[Database, Vault]) -> None:
    database, vault = store
    row, gone = await make(vault), await make(vault, "gone", uid="uid-2")
    other = await make(vault, "other", owner=replace(OWNER, cluster_id="cluster-2", project="theirs"))
    await vault.update(gone, deleted_at=NOON)
    for each in (row, gone, other):
        await use(database, datasets, each.id, ("ours", NOON))
    await use(database, datasets, row.id, ("org", NOON), owner=replace(OWNER, org="foreign"))
    await use(database, agent_tools, row.id, ("project", NOON), owner=replace(OWNER, project="foreign"))
    found = await UsageCounter(database).count(OWNER.cluster_id)
    assert found.keys() == {row.id}
    assert [each.name for each in found[row.id].recent] == ["ours"]


async def test_a_table_of_an_older_install_is_no_answer(store: tuple[Database, Vault], url: str) -> None:
    database, vault = store
    await make(vault)
    schema = "honeyframe." if url.startswith("postgresql") else ""
    await database.write(
        lambda connection: connection.execute(text(f"ALTER TABLE {schema}agent_tools RENAME COLUMN name TO title"))
    )
    with pytest.raises(Waiting, match="name"):
        await UsageCounter(database).count(OWNER.cluster_id)
    assert len(await vault.rows(OWNER.cluster_id)) == 1, "the store itself works"


async def test_odd_rows_of_the_platform_harm_nobody(store: tuple[Database, Vault], url: str) -> None:
    database, vault = store
    row = await make(vault)
    await use(database, datasets, row.id, ("a", NOON), ("b", None), ("c", None))
    schema = "honeyframe." if url.startswith("postgresql") else ""
    statements = [f"ALTER TABLE {schema}datasets ALTER COLUMN name DROP NOT NULL"] if schema else []
    never, far = ("'infinity'", "'20000-01-01'") if schema else ("'nonsense'", "'never'")
    statements += [
        f"UPDATE {schema}datasets SET last_used_at = {never} WHERE name = 'b'",  # noqa: S608
        f"UPDATE {schema}datasets SET last_used_at = {far} WHERE name = 'c'",  # noqa: S608
        f"UPDATE {schema}datasets SET name = {'NULL' if schema else 7} WHERE name = 'c'",  # noqa: S608
    ]
    for statement_ in statements:
        await database.write(lambda connection, statement_=statement_: connection.execute(text(statement_)))
    counted = (await UsageCounter(database).count(OWNER.cluster_id))[row.id]
    assert counted.datasets == 3
    assert {(each.name, each.last_used_at) for each in counted.recent} == {
        ("a", NOON),
        ("b", None),
        ("" if schema else "7", None),
    }
    board = UsageBoard(on=True)
    board.take({row.id: counted})
    UsageStatus.model_validate(board.shown(row.id, {})["usage"])


async def plan(database: Database, cluster_id: str) -> str:
    """How the store would run the one statement."""

    def explain(connection: Connection) -> str:
        name = connection.dialect.name
        dialect = postgresql.dialect() if name == "postgresql" else sqlite.dialect()
        options = {"literal_binds": True, "render_postcompile": True}
        compiled = statement(name).params(cluster=cluster_id).compile(dialect=dialect, compile_kwargs=options)
        if name == "postgresql":
            return "\n".join(connection.scalars(text(f"EXPLAIN (VERBOSE) {escaped(compiled)}")))
        sql = escaped(compiled).replace("honeyframe.", "")
        return "\n".join(row[3] for row in connection.execute(text(f"EXPLAIN QUERY PLAN {sql}")))

    return await database.read(explain)


def escaped(compiled: Any) -> str:
    return str(compiled).replace("%%", "%").replace(":", "\\:")


async def platform_rows(database: Database, connectors: int, references: int) -> None:
    """A platform's install: most references are of its own connectors, which no operator keeps."""
    rows = [
        {
            "id": secrets.token_hex(16),
            "org": OWNER.org,
            "project": OWNER.project,
            "name": f"d{number}",
            "connector_id": f"platform-{number % connectors}",
            "last_used_at": NOON,
        }
        for number in range(references)
    ]
    for table in (datasets, agent_tools):
        await database.write(lambda connection, table=table: connection.execute(insert(table), rows))


async def test_the_plan_reads_by_index_where_few_of_many_are_asked_for(store: tuple[Database, Vault], url: str) -> None:
    database, vault = store
    await platform_rows(database, connectors=2000, references=20_000)
    for number in range(5):
        row = await make(vault, f"c{number}", uid=f"uid-{number}")
        await use(database, datasets, row.id, ("d", NOON))
    await database.write(lambda connection: connection.execute(text("ANALYZE")))
    shown = await plan(database, OWNER.cluster_id)
    assert "ix_datasets_connector" in shown, shown
    assert "ix_agent_tools_connector" in shown, shown
    for table in ("datasets", "agent_tools"):
        assert f"Seq Scan on honeyframe.{table}" not in shown
        assert f"SCAN {table}" not in shown


async def test_the_plan_reads_each_table_once_where_all_are_asked_for(store: tuple[Database, Vault], url: str) -> None:
    if not url.startswith("postgresql"):
        pytest.skip("SQLite joins by index only")
    database, vault = store
    ids = [(await make(vault, f"c{number}", uid=f"uid-{number}")).id for number in range(300)]
    for table in (datasets, agent_tools):
        for row_id in ids:
            await use(database, table, row_id, *((f"d{n}", NOON) for n in range(10)))
    await database.write(lambda connection: connection.execute(text("ANALYZE")))
    shown = await plan(database, OWNER.cluster_id)
    assert "SubPlan" not in shown, f"nothing is run once a connector: {shown}"
    assert shown.count("Hash Join") + shown.count("Merge Join") == 2, shown
    assert "Nested Loop" not in shown


def test_a_board_that_is_off_says_nothing() -> None:
    board = UsageBoard()
    assert board.shown("id", {"usage": {"datasets": 1}}) == {}
    assert board.differs("id", {"usage": {"datasets": 1}}), "what stands there goes"


def test_a_board_shows_the_last_count_and_until_then_what_stands_there() -> None:
    board = UsageBoard(on=True)
    old = {"usage": {"datasets": 7, "agentTools": 0}}
    assert (board.shown("id", old), board.shown("id", {})) == (old, {})
    usage = Usage(1, 0, 1_900_000, f'[["dataset", "{"n" * 300}", 1900000]]')
    assert board.take({"id": usage, "other": usage}) == {"id", "other"}
    shown = board.shown("id", old)
    assert UsageStatus.model_validate(shown["usage"]).recent[0].name == "n" * 253
    assert (board.differs("id", old), board.differs("id", shown)) == (True, False)
    assert board.shown("nobody", {}) == {"usage": {"datasets": 0, "agentTools": 0}}
    assert board.take({"id": usage}) == {"other"}
    assert board.take({"id": replace(usage, datasets=2)}) == {"id"}
