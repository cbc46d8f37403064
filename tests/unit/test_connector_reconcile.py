"""The reconcile of a Connector: what it says, and when it looks again."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from honeyframe_connectors.errors import Reason, Refused, Waiting
from honeyframe_connectors.vault.vault import RowChanged
from tests.support.stores import sqlite_url
from tests.support.told import NO, Bench, Told, told_bench


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    async with told_bench(sqlite_url(tmp_path)) as found:
        yield found


def shut(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """The store takes no writes."""

    async def refuse(*_: Any, **__: Any) -> None:
        raise Waiting(Reason.VAULT_UNAVAILABLE, "the store is away")

    monkeypatch.setattr(bench.connectors.vault, "update", refuse)


async def test_no_login_before_its_time_while_the_store_takes_no_writes(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    bench.type.answers["bad"] = NO
    bench.cluster.put(b"bad")
    shut(bench, monkeypatch)
    for _ in range(4):
        found = await bench.look()
        assert found["Ready"]["reason"] == "VaultUnavailable"
        assert found["retry"] is not None
    assert bench.type.logins == 1
    monkeypatch.undo()
    assert (await bench.look())["Ready"]["reason"] == "AuthenticationFailed"
    assert bench.type.logins == 1
    bench.later(21)
    await bench.look()
    assert bench.type.logins == 2


async def test_a_check_that_cannot_be_tried_is_looked_at_at_the_next_interval(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    await bench.look()
    bench.connectors._checks._drivers_found.clear()
    monkeypatch.setattr(Told, "driver", "no_such_driver_anywhere")
    for number in range(1, 4):
        bench.later(301)
        found = await bench.look()
        assert found["Healthy"]["reason"] == "DriverMissing"
        assert found["after"] > 1
        assert found["Ready"]["status"] == ("True" if number < 3 else "False")


async def test_an_unreadable_spec_says_so_while_a_version_goes_on_serving(bench: Bench) -> None:
    await bench.look()
    bench.edit(timeout="0s")
    bench.later(301)
    found = await bench.look()
    assert (found["Ready"]["reason"], found["Healthy"]["status"]) == ("InvalidConfig", "True")
    assert bench.resource.status["servedVersion"] == 1


@pytest.mark.parametrize("suspend", [False, True])
async def test_a_reason_that_somebody_made_up_stops_nothing(bench: Bench, suspend: bool) -> None:
    await bench.look()
    bench.edit(suspend=suspend)
    made_up = [{**each, "reason": "Foo", "status": "False"} for each in bench.resource.status["conditions"]]
    bench.resource = replace(bench.resource, status={**bench.resource.status, "conditions": made_up})
    bench.connectors._memories.clear()
    found = await bench.look()
    assert suspend or found["Ready"]["status"] == "True"


async def test_a_config_that_does_not_pass_says_nothing_of_the_secret(bench: Bench) -> None:
    await bench.look()
    bench.type.answers["typo"] = Refused(Reason.TARGET_NOT_FOUND, "not there")
    bench.edit(config={"told": {"host": "typo"}})
    found = await bench.look()
    assert (found["Ready"]["status"], found["Ready"]["reason"]) == ("False", "TargetNotFound")
    assert found["CredentialsInSync"]["status"] == "True"
    assert found["Healthy"]["status"] == "True"
    bench.later(601)
    assert "Stalled" in await bench.look()


async def test_a_secret_that_does_not_pass_says_nothing_of_the_config(bench: Bench) -> None:
    await bench.look()
    bench.type.answers["bad"] = NO
    bench.cluster.put(b"bad")
    found = await bench.look()
    assert found["Ready"]["status"] == "True"
    assert (found["CredentialsInSync"]["status"], found["ConfigValid"]["status"]) == ("False", "True")


async def test_a_token_that_is_too_long_is_none(bench: Bench) -> None:
    token = "2027-01-01T00:00:00." + "1" * 80 + "Z"
    bench.resource = replace(bench.resource, annotations={"reconcile.fluxcd.io/requestedAt": token})
    await bench.look()
    assert "lastHandledReconcileAt" not in bench.resource.status


async def test_a_row_that_someone_else_wrote_is_no_ill_health(bench: Bench) -> None:
    await bench.look()
    ledger = bench.connectors.ledger
    assert ledger is not None
    (row,) = ledger.of("ns", "c")
    await bench.connectors.vault.update(row, display_name="other")  # behind the ledger's back
    bench.later(301)
    with pytest.raises(RowChanged):
        await bench.look()
    assert (await bench.look())["Healthy"]["status"] == "True"


async def test_made_again_after_a_delete_that_was_missed(bench: Bench) -> None:
    first = await bench.look()
    assert first["Ready"]["status"] == "True"
    identifier = bench.resource.status["connectorId"]
    for number in range(3):
        bench.resource = replace(bench.resource, uid=f"uid-{number}", status={})
        assert (await bench.look())["Ready"]["status"] == "True"
        assert bench.resource.status["connectorId"] == identifier
        assert (await bench.look())["Ready"]["status"] == "True"
    assert bench.type.logins == 1, "what was proven by its Secret is not probed again"
