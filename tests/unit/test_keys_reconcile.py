"""Other keys under a reconciler that goes on, or begins anew: nothing is rotated and nothing held back comes in."""

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest
from sqlalchemy import update

from honeyframe_connectors.errors import TryAgain
from honeyframe_connectors.store.tables import data_connectors
from honeyframe_connectors.vault.keyring import Keyring
from honeyframe_connectors.vault.rekey import rekey
from honeyframe_connectors.vault.reset import reset
from honeyframe_connectors.vault.rows import UNKNOWN_MAC, ConnectorRow
from honeyframe_connectors.vault.vault import Vault
from tests.support.stores import sqlite_url
from tests.support.told import NO, SECRET, Bench, connectors_on, told_bench

AT = "2026-11-25T10:00:{:02}Z"


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """Version 1 has good-one, version 2 has better; it serves, and the Secret has it."""
    async with told_bench(sqlite_url(tmp_path)) as found:
        await found.look()
        found.cluster.put(b"better")
        await found.look()
        yield found


@pytest.fixture(params=["goes on", "begins anew"])
def restarted(request: pytest.FixtureRequest) -> bool:
    return bool(request.param == "begins anew")


async def rekeyed(bench: Bench, restarted: bool) -> None:
    vault = bench.connectors.vault
    result = await rekey(vault.database, vault.wrapping, bench.connectors.registry)
    assert (result.done, result.failures) == (1, ())
    if restarted:
        bench.connectors = connectors_on(vault.database, bench.type, bench.cluster)
        bench.connectors.clock = bench.connectors.logins.clock = lambda: bench.now
        await bench.connectors.load("cluster")


async def settle(bench: Bench, times: int = 4) -> None:
    for number in range(times):
        bench.annotate("reconcile.fluxcd.io/requestedAt", AT.format(30 + number))
        try:
            await bench.look()
        except TryAgain:
            continue


def row_of(bench: Bench) -> ConnectorRow:
    assert bench.connectors.ledger is not None
    (row,) = bench.connectors.ledger.of("ns", "c")
    return row


async def test_what_serves_goes_on(bench: Bench, restarted: bool) -> None:
    before, logins = row_of(bench), bench.type.logins
    await rekeyed(bench, restarted)
    await settle(bench)
    bench.later(90_000)
    await settle(bench)
    assert (row_of(bench).last_version, await bench.serving()) == (2, ("h", "better"))
    assert row_of(bench).wrapped_keys != before.wrapped_keys
    assert {password for _, password in bench.type.dialled[logins:]} == {"better"}, "checks of what serves, no others"
    bench.cluster.put(b"best")
    await settle(bench)
    assert await bench.serving() == ("h", "best")


async def test_a_refused_content_stays_out(bench: Bench, restarted: bool) -> None:
    bench.type.answers["bad"] = NO
    bench.cluster.put(b"bad")
    await bench.look()
    bench.annotate("honeyframe.io/force-rotation", bench.credentials["pending"]["id"] + "0")
    tries = bench.type.dialled.count(("h", "bad"))
    await rekeyed(bench, restarted)
    await settle(bench, 2)
    assert bench.type.dialled.count(("h", "bad")) <= tries + 2
    assert (row_of(bench).last_version, await bench.serving()) == (2, ("h", "better"))
    assert bench.credentials["state"] == "Refused"


async def test_a_force_of_before_lets_in_nothing(bench: Bench, restarted: bool) -> None:
    """Who forced the content that was pending has not seen what is in the Secret now."""
    bench.type.answers |= {"bad": NO, "worse": NO}
    bench.cluster.put(b"bad")
    await bench.look()
    identifier = bench.credentials["pending"]["id"]
    await rekeyed(bench, restarted)
    bench.cluster.put(b"worse")
    bench.annotate("honeyframe.io/force-rotation", identifier)
    await settle(bench)
    assert await bench.serving() == ("h", "better")


async def test_what_a_rollback_holds_back_stays_out(bench: Bench, restarted: bool) -> None:
    bench.annotate("honeyframe.io/rollback-to", f"1@{AT.format(1)}")
    await bench.look()
    logins = bench.type.dialled.count(("h", "better"))
    await rekeyed(bench, restarted)
    await settle(bench)
    assert row_of(bench).held not in (None, UNKNOWN_MAC)
    assert (await bench.serving(), bench.credentials["state"]) == (("h", "good-one"), "Held")
    assert bench.type.dialled.count(("h", "better")) == logins
    bench.cluster.put(b"best")
    await settle(bench)
    assert await bench.serving() == ("h", "best")


async def test_held_values_that_no_version_has_stay_out(bench: Bench, restarted: bool) -> None:
    bench.type.answers["bad"] = NO
    bench.cluster.put(b"bad")
    await bench.look()
    bench.annotate("honeyframe.io/rollback-to", f"1@{AT.format(1)}")
    await bench.look()
    assert bench.credentials["state"] == "Held"
    del bench.type.answers["bad"]  # it would pass now
    logins = bench.type.dialled.count(("h", "bad"))
    await rekeyed(bench, restarted)
    await settle(bench)
    assert (await bench.serving(), bench.credentials["state"]) == (("h", "good-one"), "Held")
    assert row_of(bench).held not in (None, UNKNOWN_MAC), "from now on it is known again"
    assert bench.type.dialled.count(("h", "bad")) == logins
    bench.cluster.put(b"best")
    await settle(bench)
    assert await bench.serving() == ("h", "best")


async def test_made_again_it_serves_by_the_values_that_serve(bench: Bench, restarted: bool) -> None:
    await bench.connectors.gone("ns", "c", None)
    await rekeyed(bench, restarted)
    bench.resource = replace(bench.resource, uid="uid-2", status={})
    logins = bench.type.logins
    await settle(bench, 2)
    assert (bench.status["servedVersion"], await bench.serving()) == (2, ("h", "better"))
    assert {password for _, password in bench.type.dialled[logins:]} <= {"better"}


async def test_a_row_that_was_reset_under_a_reconciler_is_rebuilt(bench: Bench) -> None:
    """The exchange was not finished when the older secret was lost: the vault is open, and this row does not open."""
    vault = bench.connectors.vault
    other = b"another secret, 0123456789 abcdefghijklmn"
    lost = Vault(vault.database, Keyring(other, [SECRET]))
    await lost.open()
    row = row_of(bench)
    wrapped = lost.wrapping.wrap(b"".join(lost._keys_of(row)), f"honeyframe\0keys\0{row.id}\0".encode())
    change = update(data_connectors).values(wrapped_keys=wrapped)
    await vault.database.write(lambda connection: connection.execute(change))
    bench.connectors = connectors_on(vault.database, bench.type, bench.cluster)
    bench.connectors.clock = bench.connectors.logins.clock = lambda: bench.now
    await bench.connectors.load("cluster")
    for suspend in (False, True):
        bench.edit(suspend=suspend)
        found = await bench.look()
        assert (found["Ready"]["status"], found["Ready"]["reason"]) == ("False", "VaultUnavailable")
    bench.edit(suspend=False)
    (gone,) = await reset(vault.database, Keyring(SECRET))
    assert (gone.name, gone.versions) == ("c", 2)
    await settle(bench)
    assert (row_of(bench).serving_version, await bench.serving()) == (3, ("h", "better"))
    assert row_of(bench).id == row.id
