"""Plaintext secrets of an older install go into the vault, and nothing else is touched."""

import asyncio
import json
import secrets
import sqlite3
from pathlib import Path

import pytest
from sqlalchemy import make_url, select, text

from hack.postgres import PostgresServer
from honeyframe_connectors.backfill import secrets as backfill
from honeyframe_connectors.backfill.report import Line, Outcome, Report
from honeyframe_connectors.backfill.secrets import backfill_secrets
from honeyframe_connectors.connector_type import Mark, marked
from honeyframe_connectors.store.tables import audit_log, connector_secret_history, data_connectors
from honeyframe_connectors.vault import content
from tests.support.older import (
    FOREIGN,
    PLANTED,
    POSTGRESQL_CONFIG,
    REGISTRY,
    ROWS,
    URL_TOKEN,
    OlderRow,
    connected,
    dump,
    make_older_install,
    older_columns,
    sql,
    store,
)
from tests.support.stores import OWNER, postgresql_url

TUNING = marked(REGISTRY["postgresql"].config, Mark.TUNING)


async def run(url: str, *, dry_run: bool = False) -> list[Line]:
    lines: list[Line] = []
    async with store(url) as (database, vault):
        await backfill_secrets(database, vault, REGISTRY, Report(lines.append), dry_run=dry_run)
    return lines


async def test_known_types_are_taken_in_and_the_rest_is_left(url: str) -> None:
    made = make_older_install(url)
    before = older_columns(url)
    lines = await run(url)
    assert [(line.outcome, line.what) for line in lines] == [
        (Outcome.DONE, "password moved into the vault"),
        (Outcome.DONE, "bearer_token, url moved into the vault"),
        (Outcome.LEFT, "its type is not known here"),
        (Outcome.LEFT, "its secrets are sealed in a format that is not ours"),
        (Outcome.DONE, "in the vault, without secrets"),
    ]
    assert all(made[number] in line.subject and ROWS[number].name in line.subject for number, line in enumerate(lines))
    assert PLANTED not in repr(lines)
    assert URL_TOKEN not in repr(lines)

    after = older_columns(url)
    assert [row[:3] for row in after] == [row[:3] for row in before]
    clean = {key: value for key, value in POSTGRESQL_CONFIG.items() if key != "password"}
    assert [row[3] for row in after] == [clean, {}, *(row.config for row in ROWS[2:])]
    assert [after[2], after[3]] == [before[2], before[3]]
    assert after[3][4] == FOREIGN
    assert all(PLANTED not in repr(row) for row in (after[0], after[1]))

    async with store(url) as (database, vault):
        await vault.open()
        row = await vault.load(made[0])
        assert row is not None
        assert (row.serving_version, row.last_version, row.type) == (1, 1, "rds")
        version = await vault.serving(row, TUNING)
        assert (version.config, version.secrets) == (clean, {"password": PLANTED.encode()})
        (kept,) = await vault.history(made[0])
        assert (kept.number, kept.test_status, kept.reason) == (1, "skipped", "taken in from plaintext")
        # What a reconcile of the exported Connector comes to.
        assert row.config_mac == content.config_mac(
            vault, row, REGISTRY["postgresql"], {**clean, "pool_size": 99}, None
        )
        assert row.secret_mac == content.secret_mac(vault, row, {"password": PLANTED.encode()})
        assert kept.secret_mac == row.secret_mac
        hook = await vault.load(made[1])
        assert hook is not None
        assert set((await vault.serving(hook, frozenset())).secrets) == {"url", "bearer_token"}
        assert await vault.rows(OWNER.cluster_id) == []
        managed = await database.read(lambda c: set(c.scalars(select(data_connectors.c.managed_by))))
        assert managed == {"platform"}
        copies = await database.read(
            lambda c: c.execute(
                select(data_connectors.c.connection_secrets_enc, connector_secret_history.c.secrets_enc).join(
                    connector_secret_history
                )
            ).all()
        )
        assert len(copies) == 3
        assert all(copy == kept for copy, kept in copies)
        assert await database.read(lambda c: set(c.scalars(select(audit_log.c.action)))) == {"connector.taken_in"}


async def test_again_does_nothing(url: str) -> None:
    make_older_install(url)
    await run(url)
    before = dump(url)
    lines = await run(url)
    assert [line.outcome for line in lines] == [
        Outcome.ALREADY,
        Outcome.ALREADY,
        Outcome.LEFT,
        Outcome.LEFT,
        Outcome.ALREADY,
    ]
    assert dump(url) == before


async def test_a_dry_run_prints_the_same_and_changes_nothing_not_even_the_tables(url: str) -> None:
    make_older_install(url)
    before = dump(url)
    rehearsed = await run(url, dry_run=True)
    assert dump(url) == before
    assert await run(url) == rehearsed
    before = dump(url)
    assert [line.outcome for line in await run(url, dry_run=True)].count(Outcome.ALREADY) == 3
    assert dump(url) == before


async def test_a_row_does_not_open_with_an_edited_host(url: str) -> None:
    made = make_older_install(url)
    await run(url)
    sql(url, "UPDATE honeyframe.data_connectors SET config = '{\"host\": \"evil\"}' WHERE name LIKE 'Prod%'")
    async with store(url) as (_, vault):
        await vault.open()
        row = await vault.load(made[0])
        assert row is not None
        with pytest.raises(Exception, match="does not open"):
            await vault.serving(row, TUNING)


@pytest.mark.parametrize(
    ("row", "outcome", "what"),
    [
        (OlderRow("a", "pg", {"password": "••••••••"}), Outcome.FAILED, "password holds bullets instead of a value"),
        (OlderRow("a", "pg", None), Outcome.DONE, "without secrets"),
        (OlderRow("a", "pg", {"password": "", "uri": None}), Outcome.DONE, "without secrets"),
        (OlderRow("a", "pg", {"password": 12345}), Outcome.DONE, "password moved"),
        (OlderRow("a", "webhook", {"headers": {"X-Key": PLANTED, "Y": ""}}), Outcome.DONE, "headers.X-Key moved"),
        (OlderRow("a", "pg", ["password", PLANTED]), Outcome.FAILED, "no JSON object"),  # type: ignore[arg-type]
        (OlderRow("a", "", {"password": PLANTED}), Outcome.LEFT, "not known"),
        (OlderRow("a\n\x1b[31mb", "pg", {"password": PLANTED}), Outcome.DONE, "password moved"),
        (OlderRow("a", "pg", {"password": PLANTED}, b"HFV\x01" + bytes(40)), Outcome.FAILED, "its keys are gone"),
        (OlderRow("a", "pg", {"password": PLANTED}, b"other"), Outcome.LEFT, "plaintext beside it: password"),
    ],
)
async def test_odd_rows(url: str, row: OlderRow, outcome: Outcome, what: str) -> None:
    make_older_install(url, rows=[row])
    (line,) = await run(url)
    assert line.outcome is outcome
    assert what in line.what
    assert PLANTED not in str(line)
    assert str(line).isprintable()


async def test_a_password_that_is_a_number_is_its_digits(url: str) -> None:
    (row_id,) = make_older_install(url, rows=[OlderRow("a", "pg", {"password": 12345})])
    await run(url)
    async with store(url) as (_, vault):
        await vault.open()
        row = await vault.load(row_id)
        assert row is not None
        assert (await vault.serving(row, TUNING)).secrets == {"password": b"12345"}


async def test_plaintext_that_the_platform_writes_later_is_named(url: str) -> None:
    make_older_install(url, rows=ROWS[:1])
    await run(url)
    sql(
        url,
        "UPDATE honeyframe.data_connectors SET config = CAST(:config AS JSONB)",
        {"config": json.dumps({"password": PLANTED})},
    )
    (line,) = await run(url)
    assert line.outcome is Outcome.FAILED
    assert "it is in the vault, and its config holds plaintext beside it: password" in line.what


@pytest.mark.parametrize("ids", ["text", "uuid", "number"])
async def test_many_rows_go_page_by_page_and_an_interrupted_run_goes_on(
    url: str, ids: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(backfill, "_PAGE", backfill._PAGE.limit(3))
    monkeypatch.setattr(backfill, "PAGE", 3)
    rows = [OlderRow(f"row-{number}", "pg", {"password": f"{PLANTED}{number}"}) for number in range(6)]
    make_older_install(url, rows=rows, ids=ids)
    lines: list[Line] = []
    seen: list[tuple[int, int]] = []

    def stop(line: Line) -> None:
        lines.append(line)
        if len(lines) == 2:
            raise KeyboardInterrupt

    async with store(url) as (database, vault):
        with pytest.raises(KeyboardInterrupt):
            await backfill_secrets(database, vault, REGISTRY, Report(stop), dry_run=False)
    lines = []
    async with store(url) as (database, vault):
        await backfill_secrets(
            database, vault, REGISTRY, Report(lines.append), dry_run=False, progress=lambda *at: seen.append(at)
        )
    assert [line.outcome for line in lines] == [Outcome.ALREADY] * 3 + [Outcome.DONE] * 3
    assert seen == [(3, 6), (6, 6), (6, 6)]
    assert PLANTED not in repr(older_columns(url))


async def test_an_edit_that_the_platform_makes_meanwhile_is_not_lost(postgres: PostgresServer) -> None:
    url = postgresql_url(postgres)
    (row_id,) = make_older_install(url, rows=ROWS[:1])
    async with store(url) as (database, vault):
        await vault.open()
        with connected(url) as connection:
            later = json.dumps({**POSTGRESQL_CONFIG, "password": "edited-meanwhile"})
            edit = text("UPDATE honeyframe.data_connectors SET config = CAST(:config AS JSONB)")
            connection.execute(edit, {"config": later})
            lines: list[Line] = []
            task = asyncio.create_task(backfill_secrets(database, vault, REGISTRY, Report(lines.append), dry_run=False))
            waiting = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND datname = :name"
            while not sql(url, waiting, {"name": make_url(url).database})[0][0]:
                await asyncio.sleep(0.01)
        await task
        row = await vault.load(row_id)
        assert row is not None
        assert (await vault.serving(row, TUNING)).secrets == {"password": b"edited-meanwhile"}
    assert [line.outcome for line in lines] == [Outcome.DONE]


async def test_another_secret_changes_nothing(url: str) -> None:
    make_older_install(url)
    await run(url)
    before = dump(url)
    for dry_run in (True, False):
        async with store(url, secrets.token_bytes(32)) as (database, vault):
            with pytest.raises(Exception, match="another secret"):
                await backfill_secrets(database, vault, REGISTRY, Report(lambda _: None), dry_run=dry_run)
    assert dump(url) == before


async def test_the_sqlite_file_holds_no_plaintext_afterwards(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("honeyframe_connectors.store.database.SQLITE_TIMEOUT", 0.1)
    url = f"sqlite:///{tmp_path}/store/honeyframe.db"
    make_older_install(url, rows=[OlderRow(f"row-{n}", "pg", {"password": f"{PLANTED}-{n}" * 50}) for n in range(200)])
    assert PLANTED.encode() in (tmp_path / "store/honeyframe.db").read_bytes()
    async with store(url) as (database, vault):
        await backfill_secrets(database, vault, REGISTRY, Report(lambda _: None), dry_run=False)
        assert await database.compact()
        for path in (tmp_path / "store").iterdir():
            assert PLANTED.encode() not in path.read_bytes(), path
    other = sqlite3.connect(tmp_path / "store/honeyframe.db", isolation_level=None)
    other.execute("BEGIN")
    other.execute("SELECT * FROM data_connectors").fetchone()
    async with store(url) as (database, _):
        assert not await database.compact()  # a reader keeps the log
    other.close()
