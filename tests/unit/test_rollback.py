"""Bringing a version back: once, tested, never forced, and what the Secret has is held back."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import update

from honeyframe_connectors.errors import Reason, Refused
from honeyframe_connectors.store.tables import connector_secret_history
from tests.support.stores import sqlite_url
from tests.support.told import NO, SILENT, Bench, connectors_on, told_bench

ROLLBACK = "honeyframe.io/rollback-to"
AT = "2026-11-25T10:00:{:02}Z"


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """Version 1 has good-one, version 2 has better; it serves, and the Secret has it."""
    async with told_bench(sqlite_url(tmp_path)) as found:
        await found.look()
        found.cluster.put(b"better")
        await found.look()
        yield found


def roll_back(bench: Bench, to: object, second: int = 1) -> None:
    bench.annotate(ROLLBACK, f"{to}@{AT.format(second)}")


async def test_a_version_is_brought_back_and_the_secret_held_back(bench: Bench) -> None:
    roll_back(bench, 1)
    found = await bench.look()
    assert await bench.serving() == ("h", "good-one")
    assert (found["Ready"]["status"], found["CredentialsInSync"]["reason"]) == ("True", "RotationHeld")
    assert bench.credentials["summary"] == "3 (held)"
    newest = bench.credentials["history"][0]
    assert (newest["version"], newest["testStatus"], newest["restoredFrom"]) == (3, "rollback", 1)
    assert bench.status["lastHandledRollbackAt"] == AT.format(1)


async def test_what_is_held_comes_in_by_nothing_but_other_values(bench: Bench) -> None:
    roll_back(bench, 1)
    await bench.look()
    logins = bench.type.dialled.count(("h", "better"))
    bench.annotate("reconcile.fluxcd.io/requestedAt", AT.format(30))
    await bench.look()
    bench.annotate("honeyframe.io/force-rotation", "0123456789abcdef")
    await bench.look()
    bench.type.answers["good-one"] = NO  # what serves fails: no reason to try what is held
    bench.later(301)
    await bench.look()
    bench.later(90_000)
    await bench.look()
    del bench.type.answers["good-one"]
    bench.cluster.put(None)
    await bench.look()
    bench.cluster.put(b"better")
    bench.edit(secretRef=None)
    await bench.look()
    bench.edit(secretRef={"name": "renamed"})
    await bench.look()
    bench.edit(secretRef={"name": "renamed", "keys": {"password": "password", "user": "user"}})
    bench.cluster.put(b"better", user=b"somebody")
    await bench.look()
    assert bench.type.dialled.count(("h", "better")) == logins
    assert await bench.serving() == ("h", "good-one")
    bench.edit(secretRef={"name": "renamed"})
    bench.cluster.put(b"best")
    await bench.look()
    assert await bench.serving() == ("h", "best")
    bench.cluster.put(b"better")
    await bench.look()
    assert await bench.serving() == ("h", "better"), "other values ended the hold"


async def test_a_hold_ends_by_rolling_to_what_is_held(bench: Bench) -> None:
    roll_back(bench, 1)
    await bench.look()
    roll_back(bench, 2, 2)
    found = await bench.look()
    assert (bench.credentials["state"], found["CredentialsInSync"]["status"]) == ("InSync", "True")
    assert await bench.serving() == ("h", "better")


async def test_a_token_is_handled_once(bench: Bench) -> None:
    roll_back(bench, 1)
    await bench.look()
    bench.cluster.put(b"best")
    await bench.look()
    await bench.look()
    assert await bench.serving() == ("h", "best")
    roll_back(bench, 2, 0)  # an older manifest
    await bench.look()
    assert await bench.serving() == ("h", "best")
    bench.resource = replace(bench.resource, status={**bench.status, "lastHandledRollbackAt": None})
    roll_back(bench, 1)
    await bench.look()
    assert await bench.serving() == ("h", "best"), "the row knows it too"


async def test_a_restored_database_runs_no_token_again(bench: Bench) -> None:
    roll_back(bench, 1)
    await bench.look()
    bench.cluster.put(b"best")
    await bench.look()
    assert bench.connectors.ledger is not None
    (row,) = bench.connectors.ledger.of("ns", "c")
    await bench.connectors._rows.update(row, handled_rollback_at=None)
    await bench.look()
    assert await bench.serving() == ("h", "best")
    assert bench.status["lastHandledRollbackAt"] == AT.format(1)


@pytest.mark.parametrize("answer", [NO, SILENT])
async def test_one_that_does_not_pass_is_told_once_and_changes_nothing(bench: Bench, answer: Refused) -> None:
    bench.type.answers["good-one"] = answer
    roll_back(bench, 1)
    found = await bench.look()
    assert found["Ready"]["status"] == found["CredentialsInSync"]["status"] == "True"
    assert [reason for reason, _ in bench.news] == ["RollbackRejected"]
    bench.type.answers.clear()
    bench.later(700)
    await bench.look()
    assert await bench.serving() == ("h", "better")
    assert len(bench.news) == 1


@pytest.mark.parametrize(("to", "says"), [(7, "it is not kept: the history has 2, 1"), (9999999, "not kept")])
async def test_a_version_that_is_not_there(bench: Bench, to: int, says: str) -> None:
    roll_back(bench, to)
    assert (await bench.look())["Ready"]["status"] == "True"
    assert says in bench.news[0][1]


@pytest.mark.parametrize("token", ["1", "@2026-11-25T10:00:00Z", "0@2026-11-25T10:00:00Z", "1@now", "1@2026-11-25", ""])
async def test_what_is_no_token_does_nothing(bench: Bench, token: str) -> None:
    bench.annotate(ROLLBACK, token)
    await bench.look()
    assert bench.news == []
    assert await bench.serving() == ("h", "better")


async def test_a_version_of_another_destination(bench: Bench) -> None:
    bench.config(host="moved")
    await bench.look()
    assert await bench.serving() == ("moved", "better")
    logins = list(bench.type.dialled)
    roll_back(bench, 1)
    await bench.look()
    assert bench.news[0][0] == "RollbackRejected"
    assert "accepted" in bench.news[0][1]
    assert bench.type.dialled == logins, "refused before anything was dialled"


async def test_to_the_version_that_serves_only_holds(bench: Bench) -> None:
    bench.type.answers["bad"] = NO
    bench.cluster.put(b"bad")
    await bench.look()
    roll_back(bench, 2)
    await bench.look()
    assert (bench.credentials["summary"], bench.status["servedVersion"]) == ("2 (held)", 2)
    assert "pending" not in bench.credentials


async def test_a_refused_config_edit_does_not_block_the_way_back(bench: Bench) -> None:
    bench.type.answers["typo"] = Refused(Reason.TARGET_NOT_FOUND, "no such database")
    bench.config(database="typo")
    await bench.look()
    roll_back(bench, 1)
    found = await bench.look()
    assert await bench.serving() == ("h", "good-one")
    assert (found["Ready"]["reason"], found["CredentialsInSync"]["reason"]) == ("TargetNotFound", "RotationHeld")
    del bench.type.answers["typo"]
    bench.later(3601)
    found = await bench.look()
    assert found["Ready"]["status"] == "True"
    assert (bench.credentials["state"], bench.credentials["history"][0]["restoredFrom"]) == ("Held", 1)


async def test_while_held_a_config_edit_does_not_go_elsewhere(bench: Bench) -> None:
    roll_back(bench, 1)
    await bench.look()
    bench.config(database="other")
    assert (await bench.look())["Ready"]["status"] == "True"
    assert await bench.serving() == ("h", "good-one")
    bench.config(host="listener")
    found = await bench.look()
    assert (found["Ready"]["reason"], found["CredentialsInSync"]["reason"]) == ("TargetChanged", "RotationHeld")
    assert all(host == "h" for host, _ in bench.type.dialled)


async def test_while_the_secret_is_gone_what_served_is_held(bench: Bench) -> None:
    bench.cluster.put(None)
    await bench.look()
    roll_back(bench, 1)
    await bench.look()
    assert await bench.serving() == ("h", "good-one")
    bench.cluster.put(b"better")
    found = await bench.look()
    assert found["CredentialsInSync"]["reason"] == "RotationHeld"


async def test_a_revoked_one_is_not_rolled_back(bench: Bench) -> None:
    bench.cluster.labelled, bench.cluster.version = False, 9
    roll_back(bench, 1)
    await bench.look()
    assert bench.news[0][0] == "RollbackRejected"
    assert bench.credentials["state"] == "Revoked"


async def test_suspended_it_waits_and_the_newest_acts(bench: Bench) -> None:
    bench.edit(suspend=True)
    roll_back(bench, 7)
    await bench.look()
    roll_back(bench, 1, 2)
    await bench.look()
    assert bench.news == []
    assert await bench.serving() == ("h", "better")
    bench.edit(suspend=False)
    await bench.look()
    assert await bench.serving() == ("h", "good-one")


async def test_a_blob_that_was_tampered_with_is_not_brought_back(bench: Bench) -> None:
    database = bench.connectors.vault._database
    changed = update(connector_secret_history).where(connector_secret_history.c.version == 1)
    await database.write(lambda connection: connection.execute(changed.values(config={"host": "listener"})))
    roll_back(bench, 1)
    assert (await bench.look())["Ready"]["status"] == "True"
    assert "does not open" in bench.news[0][1]
    assert await bench.serving() == ("h", "better")
    assert all(host == "h" for host, _ in bench.type.dialled)


async def test_a_hold_survives_a_restart_and_being_made_again(bench: Bench) -> None:
    roll_back(bench, 1)
    await bench.look()
    again = connectors_on(bench.connectors.vault._database, bench.type, bench.cluster)
    again.clock = again.logins.clock = lambda: bench.now
    await again.load("cluster")
    bench.connectors = again
    bench.resource = replace(bench.resource, uid="made-again", status={})
    await bench.look()
    found = await bench.look()
    assert found["CredentialsInSync"]["reason"] == "RotationHeld"
    assert await bench.serving() == ("h", "good-one")
