"""The life of a credential: rotation whole and by halves, sentinel, force, refused logins, revocation, history."""

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import select

from honeyframe_connectors.errors import Reason, Refused, TryAgain
from honeyframe_connectors.store.tables import audit_log
from tests.support.stores import sqlite_url
from tests.support.told import NO, SILENT, Bench, connectors_on, told_bench

FORCE = "honeyframe.io/force-rotation"
BULLETS = "••••••••".encode()
GONE = Refused(Reason.TARGET_NOT_FOUND, "no such database")


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with told_bench(sqlite_url(tmp_path)) as found:
        await found.look()
        yield found


# --- whole and halves ---


async def test_a_new_credential_replaces_the_old_one(bench: Bench) -> None:
    bench.cluster.put(b"better")
    bench.cluster.reason = "quarterly"
    found = await bench.look()
    assert (found["Ready"]["status"], await bench.serving()) == ("True", ("h", "better"))
    history = bench.credentials["history"]
    assert [(each["version"], each["testStatus"], each.get("reason")) for each in history] == [
        (2, "passed", "quarterly"),
        (1, "passed", None),
    ]


async def test_a_refused_one_leaves_the_old_one_serving(bench: Bench) -> None:
    bench.type.answers["bad"] = NO
    bench.cluster.put(b"bad")
    found = await bench.look()
    assert (found["Ready"]["status"], found["CredentialsInSync"]["reason"]) == ("True", "AuthenticationFailed")
    assert (bench.credentials["summary"], await bench.serving()) == ("1 (refused)", ("h", "good-one"))


async def test_a_bad_config_does_not_hold_back_a_new_password(bench: Bench) -> None:
    bench.type.answers["typo"] = GONE
    bench.config(database="typo")
    bench.cluster.put(b"better")
    found = await bench.look()
    assert (found["Ready"]["status"], found["Ready"]["reason"]) == ("False", "TargetNotFound")
    assert (found["CredentialsInSync"]["status"], await bench.serving()) == ("True", ("h", "better"))
    pending = bench.credentials["pending"]["id"]
    del bench.type.answers["typo"]
    bench.later(21)
    await bench.look()
    assert bench.credentials["state"] == "InSync"
    assert bench.status["servedVersion"] == 3
    assert pending


async def test_a_bad_password_does_not_hold_back_a_new_config(bench: Bench) -> None:
    bench.type.answers["bad"] = NO
    bench.config(database="other")
    bench.cluster.put(b"bad")
    found = await bench.look()
    assert (found["Ready"]["status"], found["CredentialsInSync"]["status"]) == ("True", "False")
    assert await bench.serving() == ("h", "good-one")
    assert bench.status["servedVersion"] == 2
    assert bench.type.dialled.count(("h", "bad")) == 1, "values just refused there are not dialled again for a half"


async def test_a_half_with_kept_values_goes_nowhere_else(bench: Bench) -> None:
    bench.type.answers["bad"] = NO
    bench.config(host="elsewhere")
    bench.cluster.put(b"bad")
    await bench.look()
    assert ("elsewhere", "good-one") not in bench.type.dialled
    assert await bench.serving() == ("h", "good-one")


async def test_kept_values_are_still_their_own_secrets(bench: Bench) -> None:
    """A config edit that names another Secret, whose values do not pass: the label of the first one still decides."""
    bench.type.answers["bad"] = NO
    bench.edit(config={"told": {"host": "h", "database": "other"}}, secretRef={"name": "t"})
    bench.cluster.put(b"bad")
    bench.cluster.reason = "of the values that did not pass"
    await bench.look()
    assert await bench.serving() == ("h", "good-one")
    assert bench.connectors.ledger is not None
    (row,) = bench.connectors.ledger.of("ns", "c")
    assert (row.serving_version, row.secret_name) == (2, "s")
    assert "reason" not in bench.credentials["history"][0]


async def test_an_invalid_config_does_not_hold_back_a_new_password(bench: Bench) -> None:
    bench.config(tls="often")
    bench.cluster.put(b"better")
    found = await bench.look()
    assert (found["ConfigValid"]["status"], found["Ready"]["status"]) == ("False", "False")
    assert (found["CredentialsInSync"]["status"], await bench.serving()) == ("True", ("h", "better"))


async def test_neither_half_passes(bench: Bench) -> None:
    bench.type.answers |= {"bad": NO, "typo": GONE}
    bench.config(database="typo")
    bench.cluster.put(b"bad")
    found = await bench.look()
    assert found["Ready"]["status"] == found["CredentialsInSync"]["status"] == "False"
    assert await bench.serving() == ("h", "good-one")
    assert bench.status["servedVersion"] == 1


# --- the sentinel ---


@pytest.mark.parametrize("bullets", [BULLETS, "••••".encode()])
async def test_bullets_keep_what_was_there(bench: Bench, bullets: bytes) -> None:
    bench.cluster.put(bullets, token=b"new-token")
    found = await bench.look()
    assert found["Ready"]["status"] == "True"
    assert await bench.serving() == ("h", "good-one")
    assert bench.status["servedVersion"] == 2


async def test_bullets_go_nowhere_else(bench: Bench) -> None:
    bench.cluster.put(BULLETS)
    bench.config(host="listener")
    found = await bench.look()
    assert (found["Ready"]["status"], found["Ready"]["reason"]) == ("False", "TargetChanged")
    assert "Stalled" in found
    assert all(host == "h" for host, _ in bench.type.dialled)


async def test_bullets_are_not_sent_with_less_tls(bench: Bench) -> None:
    bench.config(tls=2)
    await bench.look()
    assert bench.status["servedVersion"] == 2
    bench.cluster.put(BULLETS)
    bench.config(tls=1)
    assert (await bench.look())["Ready"]["reason"] == "TargetChanged"
    bench.config(tls=3)
    assert (await bench.look())["Ready"]["status"] == "True"


async def test_bullets_in_a_first_secret(tmp_path: Path) -> None:
    async with told_bench(sqlite_url(tmp_path)) as bench:
        bench.cluster.put(BULLETS)
        found = await bench.look()
        assert (found["Ready"]["status"], found["Ready"]["reason"]) == ("False", "SecretKeyMissing")
        assert bench.type.logins == 0


# --- refused, unanswered, forced ---


async def test_when_a_refused_content_is_tried_again(bench: Bench) -> None:
    bench.type.answers["bad"] = NO
    bench.cluster.put(b"bad")
    moments = []
    start, logins = bench.now, bench.type.dialled.count(("h", "bad"))
    for _ in range(9000):
        await bench.look() if _ % 5 == 0 else None
        if bench.type.dialled.count(("h", "bad")) != logins:
            logins = bench.type.dialled.count(("h", "bad"))
            moments.append(bench.now - start)
        bench.later(1)
    assert moments == [0, 20, 140, 740, 4340, 7940]


async def test_the_budget_is_one_even_where_the_clock_runs(bench: Bench) -> None:
    """A refusal is noted a little later than its reconcile began; who comes on time for the one waits for the other."""
    bench.type.answers["bad"] = NO
    bench.cluster.put(b"bad")
    bench.connectors.logins.clock = lambda: bench.now + 0.3
    start, moments = bench.now, []
    for _ in range(90):
        before = bench.type.dialled.count(("h", "bad"))
        found = await bench.look()
        if bench.type.dialled.count(("h", "bad")) != before:
            moments.append(round(bench.now - start))
        bench.later(max(0.2, min(found["after"], 15.0)))
    assert moments == [0, 20, 140, 740]


async def test_the_first_login_of_what_serves_that_fails_lets_the_new_one_in(bench: Bench) -> None:
    bench.type.answers["better"] = NO  # the Secret is written before ALTER ROLE
    bench.cluster.put(b"better")
    await bench.look()
    bench.later(16)
    await bench.look()
    assert await bench.serving() == ("h", "good-one")
    bench.type.answers = {"good-one": NO}  # ALTER ROLE
    bench.later(15)
    await bench.look()
    await bench.look()
    assert await bench.serving() == ("h", "better")


async def test_alter_role_first(bench: Bench) -> None:
    bench.type.answers = {"good-one": NO}
    bench.later(301)
    assert (await bench.look())["Healthy"]["status"] == "False"
    bench.cluster.put(b"better")
    await bench.look()
    assert await bench.serving() == ("h", "better")


async def test_an_unanswered_one_is_no_refusal(bench: Bench) -> None:
    bench.type.answers["better"] = SILENT
    bench.cluster.put(b"better")
    await bench.look()
    assert bench.credentials["summary"] == "1 (unanswered)"
    bench.type.answers.clear()
    bench.later(7)
    await bench.look()
    assert await bench.serving() == ("h", "better")


async def test_force_lets_in_what_was_seen_and_nothing_else(bench: Bench) -> None:
    bench.type.answers["bad"] = NO
    bench.cluster.put(b"bad")
    await bench.look()
    seen = bench.credentials["pending"]["id"]
    bench.type.answers["worse"] = NO
    bench.cluster.put(b"worse")
    bench.annotate(FORCE, seen)
    await bench.look()
    assert await bench.serving() == ("h", "good-one"), "the id was of another content"
    bench.annotate(FORCE, bench.credentials["pending"]["id"])
    found = await bench.look()
    assert await bench.serving() == ("h", "worse")
    assert (found["Ready"]["status"], found["Ready"]["reason"]) == ("False", "RotationForced")
    assert (found["Healthy"]["status"], bench.credentials["summary"]) == ("False", "2 (forced)")
    assert bench.credentials["history"][0]["testStatus"] == "failed"
    bench.type.answers.clear()
    bench.later(3601)
    found = await bench.look()
    assert (found["Ready"]["status"], bench.credentials["state"]) == ("True", "InSync")


async def test_force_sends_no_kept_value_elsewhere(bench: Bench) -> None:
    bench.cluster.put(BULLETS)
    bench.config(host="listener")
    await bench.look()
    bench.annotate(FORCE, bench.credentials["pending"]["id"])
    await bench.look()
    assert await bench.serving() == ("h", "good-one")
    assert all(host == "h" for host, _ in bench.type.dialled)


async def test_fifty_connectors_with_one_wrong_password_log_in_as_one(bench: Bench) -> None:
    bench.type.answers["bad"] = NO
    bench.cluster.put(b"bad")
    others = [replace(bench.resource, name=f"c{number}", uid=f"uid-{number}", status={}) for number in range(50)]
    outcomes = await asyncio.gather(*(bench.connectors.reconcile(each) for each in others))
    assert bench.type.dialled.count(("h", "bad")) == 1
    for outcome in outcomes:
        ready = next(each for each in outcome.status["conditions"] if each["type"] == "Ready")
        assert ready["reason"] == "AuthenticationFailed"
    bench.later(21)
    await asyncio.gather(*(bench.connectors.reconcile(each) for each in others))
    assert bench.type.dialled.count(("h", "bad")) == 2


async def test_a_restart_does_not_forget_a_refused_login(bench: Bench) -> None:
    bench.type.answers["bad"] = NO
    bench.cluster.put(b"bad")
    await bench.look()
    again = connectors_on(bench.connectors.vault._database, bench.type, bench.cluster)
    again.clock = again.logins.clock = lambda: bench.now
    await again.load("cluster")
    other = replace(bench.resource, name="other", uid="other", status={})
    await again.reconcile(other)
    assert bench.type.dialled.count(("h", "bad")) == 1


async def test_another_tenant_is_not_held_back(bench: Bench) -> None:
    bench.type.answers["bad"] = NO
    bench.cluster.put(b"bad")
    await bench.look()
    bench.cluster.namespace = "another"
    await bench.connectors.reconcile(replace(bench.resource, namespace="other", uid="other", status={}))
    assert bench.type.dialled.count(("h", "bad")) == 2


# --- targets and revocation ---


async def test_a_secret_says_where_it_goes(bench: Bench) -> None:
    bench.cluster.targets, bench.cluster.version = "h:1, *.corp:443", 2
    assert (await bench.look())["Ready"]["status"] == "True"
    bench.config(host="listener")
    found = await bench.look()
    assert (found["Ready"]["status"], found["Ready"]["reason"]) == ("False", "TargetNotAllowed")
    assert all(host == "h" for host, _ in bench.type.dialled)
    assert bench.status["servedVersion"] == 1, "what serves goes where it may"


async def test_other_targets_revoke_what_serves_and_give_it_back(bench: Bench) -> None:
    bench.cluster.targets, bench.cluster.version = "elsewhere:1", 2
    found = await bench.look()
    assert (found["Ready"]["status"], found["Ready"]["reason"]) == ("False", "TargetNotAllowed")
    assert "servedVersion" not in bench.status
    assert bench.credentials["state"] == "Revoked"
    bench.cluster.targets, bench.cluster.version = None, 3
    await bench.look()
    assert bench.status["servedVersion"] == 1


async def test_another_secret_with_the_same_values_ends_a_revocation(bench: Bench) -> None:
    bench.cluster.labelled, bench.cluster.version = False, 2
    await bench.look()
    assert bench.credentials["state"] == "Revoked"
    bench.cluster.labelled, bench.cluster.version = True, 3
    bench.edit(secretRef={"name": "t"})
    for _ in range(3):
        assert (await bench.look())["Ready"]["status"] == "True"
    assert bench.status["servedVersion"] == 1


# --- history ---


async def test_history_is_trimmed_to_distinct_values(bench: Bench) -> None:
    bench.edit(historyLimit=2)
    for password in (b"second", b"third", b"fourth"):
        bench.cluster.put(password)
        await bench.look()
    assert [each["version"] for each in bench.credentials["history"]] == [4, 3]
    assert bench.connectors.ledger is not None
    (row,) = bench.connectors.ledger.of("ns", "c")
    assert [each.number for each in await bench.connectors.vault.history(row.id)] == [4, 3]
    bench.config(database="other")
    await bench.look()
    assert [each["version"] for each in bench.credentials["history"]] == [5, 3], "one version of each value"


async def test_a_target_that_hangs_holds_no_worker(bench: Bench) -> None:
    """Who waits for another's login, or for a place at a target, is told to come again."""
    others = [replace(bench.resource, name=f"c{number}", uid=f"uid-{number}", status={}) for number in range(8)]
    hanging = asyncio.Event()

    async def hang(_config: object, _checkup: object) -> None:
        hanging.set()
        await asyncio.Event().wait()

    bench.type.check = hang  # type: ignore[method-assign]
    bench.cluster.put(b"better")
    first = asyncio.create_task(bench.connectors.reconcile(bench.resource))
    await hanging.wait()
    results = await asyncio.gather(*(bench.connectors.reconcile(each) for each in others), return_exceptions=True)
    assert all(isinstance(result, TryAgain) for result in results), results
    first.cancel()


async def test_the_audit_log_tells_the_whole_life(bench: Bench) -> None:
    bench.type.answers["bad"] = NO
    bench.edit(displayName="Another name")
    await bench.look()
    bench.cluster.put(b"better")
    await bench.look()
    bench.cluster.put(b"bad")
    await bench.look()
    bench.annotate(FORCE, bench.credentials["pending"]["id"])
    await bench.look()
    bench.annotate("honeyframe.io/rollback-to", "2@2026-11-25T10:00:00Z")
    await bench.look()
    await bench.connectors.gone("ns", "c", None)
    found = await bench.connectors.vault.database.read(
        lambda connection: connection.execute(select(audit_log.c.action, audit_log.c.subject)).all()
    )
    assert [each.action for each in found] == [
        "connector.created",
        "connector.accepted",
        "connector.updated",
        "connector.rotated",
        "connector.refused",
        "connector.forced",
        "connector.rolled_back",
        "connector.deleted",
    ]
    assert {each.subject for each in found} == {"acme/ns/c"}
