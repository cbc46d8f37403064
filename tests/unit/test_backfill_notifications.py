"""The notification settings of an older install become messaging connectors, sealed from the start."""

from typing import Any

import pytest
from sqlalchemy import select

from honeyframe_connectors.backfill.notifications import backfill_notifications
from honeyframe_connectors.backfill.report import Line, Outcome, Report
from honeyframe_connectors.store.tables import data_connectors
from honeyframe_connectors.vault import content
from tests.support.older import (
    PLANTED,
    REGISTRY,
    URL_TOKEN,
    dump,
    make_older_install,
    sql,
    store,
)

SETTINGS = [
    ("acme", "notif_slack_webhook_url", f"https://hooks.slack.example/{URL_TOKEN}"),
    ("acme", "notif_webhook_url", '"https://alerts.example.com/in"'),
    ("acme", "notif_webhook_auth", f"Bearer {PLANTED}"),
    ("acme", "notif_webhook_headers", '{"X-Team": "data"}'),
    ("acme", "notif_smtp_host", "smtp.example.com"),
    ("acme", "notif_smtp_port", "587"),
    ("acme", "notif_smtp_user", "mailer"),
    ("acme", "notif_smtp_password", PLANTED),
    ("acme", "notif_smtp_from", "honeyframe@example.com"),
    ("acme", "notif_smtp_to", "a@example.com, b@example.com"),
    ("acme", "notif_digest_hour", "7"),
    ("acme", "theme", "dark"),
    ("beta", "notif_slack_webhook_url", f"https://hooks.slack.example/{URL_TOKEN}-2"),
    ("beta", "notif_slack_enabled", "false"),
    ("beta", "notif_smtp_host", "smtp.example.com"),
]
OURS = "org VARCHAR(63), key VARCHAR(128), value TEXT"


def make_settings(url: str, columns: str = OURS, rows: Any = SETTINGS) -> None:
    make_older_install(url, rows=())
    sql(url, f"CREATE TABLE honeyframe.app_config ({columns})")
    for org, key, value in rows:
        values = {"org": org, "key": key, "value": value}
        sql(url, "INSERT INTO honeyframe.app_config VALUES (:org, :key, :value)", values)


async def run(url: str, *, dry_run: bool = False, remove: bool = False) -> list[Line]:
    lines: list[Line] = []
    async with store(url) as (database, vault):
        await backfill_notifications(
            database,
            vault,
            REGISTRY,
            Report(lines.append),
            project="ops",
            default_org="default",
            dry_run=dry_run,
            remove=remove,
        )
    return lines


def settings(url: str) -> set[tuple[str, str]]:
    return {tuple(row) for row in sql(url, "SELECT org, key FROM honeyframe.app_config")}


async def test_each_channel_becomes_a_row_with_its_secrets_in_the_vault(url: str) -> None:
    make_settings(url)
    lines = await run(url)
    stay = "its settings stay in app_config (--remove takes them away)"
    assert [(line.outcome, line.subject, line.what) for line in lines] == [
        (Outcome.DONE, "acme/ops/slack-notifications (slack_webhook)", f"made, url in the vault; {stay}"),
        (
            Outcome.DONE,
            "acme/ops/webhook-notifications (webhook)",
            f"made, bearer_token, headers.X-Team, url in the vault; {stay}",
        ),
        (Outcome.DONE, "acme/ops/smtp-notifications (smtp_email)", f"made, password in the vault; {stay}"),
        (Outcome.LEFT, "acme app_config", "no setting of a channel, left in app_config: notif_digest_hour"),
        (Outcome.LEFT, "beta/ops/slack-notifications (slack_webhook)", "turned off by notif_slack_enabled"),
        (
            Outcome.FAILED,
            "beta/ops/smtp-notifications (smtp_email)",
            "from_address is missing: set notif_smtp_from in the platform",
        ),
    ]
    assert settings(url) == {(org, key) for org, key, _ in SETTINGS}
    async with store(url) as (database, vault):
        await vault.open()
        rows = await database.read(lambda c: c.execute(select(data_connectors)).all())
        by_type = {row.type: row for row in rows}
        assert {(row.managed_by, row.org, row.project, row.category) for row in rows} == {
            ("platform", "acme", "ops", "messaging")
        }
        assert PLANTED not in repr(rows)
        assert URL_TOKEN not in repr(rows)
        opened = {}
        for type_, row in by_type.items():
            loaded = await vault.load(row.id)
            assert loaded is not None
            opened[type_] = (await vault.serving(loaded, frozenset())).secrets
            assert loaded.secret_mac == content.secret_mac(vault, loaded, opened[type_])
        assert opened == {
            "slack_webhook": {"url": f"https://hooks.slack.example/{URL_TOKEN}".encode()},
            "webhook": {
                "url": b"https://alerts.example.com/in",
                "bearer_token": PLANTED.encode(),
                "headers.X-Team": b"data",
            },
            "smtp_email": {"password": PLANTED.encode()},
        }
        assert by_type["smtp_email"].config == {
            "host": "smtp.example.com",
            "port": 587,
            "username": "mailer",
            "from_address": "honeyframe@example.com",
            "to_addresses": ["a@example.com", "b@example.com"],
        }


async def test_again_makes_nothing_and_removes_only_what_has_a_row(url: str) -> None:
    make_settings(url)
    await run(url)
    before = dump(url)
    outcomes = [line.outcome for line in await run(url)]
    assert outcomes == [Outcome.ALREADY] * 3 + [Outcome.LEFT] * 2 + [Outcome.FAILED]
    assert dump(url) == before
    lines = await run(url, remove=True)
    assert all("removed from app_config" in line.what for line in lines[:3])
    assert settings(url) == {
        ("acme", "notif_digest_hour"),
        ("acme", "theme"),
        ("beta", "notif_slack_webhook_url"),
        ("beta", "notif_slack_enabled"),
        ("beta", "notif_smtp_host"),
    }
    assert len(await run(url)) == 3


@pytest.mark.parametrize("remove", [True, False])
async def test_a_dry_run_prints_the_same_and_changes_nothing(url: str, remove: bool) -> None:
    make_settings(url)
    before = dump(url)
    rehearsed = await run(url, dry_run=True, remove=remove)
    assert dump(url) == before
    assert await run(url, remove=remove) == rehearsed


async def test_a_connector_of_that_name_that_is_somebody_elses_stays(url: str) -> None:
    make_settings(url)
    async with store(url) as (_, vault):
        await vault.open()
    sql(
        url,
        "INSERT INTO honeyframe.data_connectors (id, name, type, config, org, project) "
        "VALUES ('mine', 'slack-notifications', 'slack_webhook', '{}', 'acme', 'ops')",
    )
    line = (await run(url, remove=True))[0]
    assert (line.outcome, "rename it" in line.what) == (Outcome.FAILED, True)
    assert ("acme", "notif_slack_webhook_url") in settings(url)


async def test_settings_of_a_table_without_orgs_and_with_json(url: str) -> None:
    make_settings(url, "key TEXT, value JSONB", ())
    values = {"key": "notif_slack_webhook_url", "value": f'"https://x.example/{URL_TOKEN}"'}
    sql(url, "INSERT INTO honeyframe.app_config VALUES (:key, CAST(:value AS JSONB))", values)
    (line,) = await run(url, remove=True)
    assert (line.outcome, line.subject) == (Outcome.DONE, "default/ops/slack-notifications (slack_webhook)")
    assert await run(url) == []


async def test_settings_of_orgs_that_are_numbers_or_none(url: str) -> None:
    make_settings(url, "org_id INTEGER, key TEXT, value TEXT", ())
    for org in (7, None):
        values = {"org": org, "url": f"https://x.example/{URL_TOKEN}"}
        sql(url, "INSERT INTO honeyframe.app_config VALUES (:org, 'notif_slack_url', :url)", values)
    lines = await run(url)
    assert [line.subject.split("/")[0] for line in lines] == ["7", "default"]
    assert [line.outcome for line in await run(url, remove=True)] == [Outcome.ALREADY] * 2
    assert await run(url) == []


async def test_a_row_that_a_connector_has_taken_over_is_there_already(url: str) -> None:
    make_settings(url, rows=SETTINGS[:1])
    await run(url)
    sql(url, "UPDATE honeyframe.data_connectors SET managed_by = 'operator'")
    sql(url, "UPDATE honeyframe.connector_secret_history SET reason = ''")
    (line,) = await run(url)
    assert line.outcome is Outcome.ALREADY


async def test_settings_that_make_no_whole_are_named_without_their_values(url: str) -> None:
    make_settings(
        url,
        rows=[
            ("a", "notif_smtp_host", "h"),
            ("a", "notif_smtp_from", "f"),
            ("a", "notif_smtp_to", "t"),
            ("a", "notif_smtp_port", PLANTED),
            ("b", "notif_webhook_url", "https://u.example"),
            ("b", "notif_webhook_headers", PLANTED),
            ("c", "notif_webhook_url", ""),
        ],
    )
    lines = await run(url)
    assert [line.outcome for line in lines] == [Outcome.FAILED] * 3
    assert PLANTED not in repr(lines)
    assert [line.what.split(":")[0] for line in lines] == [
        "notif_smtp_port is no number",
        "notif_webhook_headers is no JSON object",
        "url is missing",
    ]
