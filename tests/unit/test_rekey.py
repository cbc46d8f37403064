"""After a leak every key is another, nothing is rotated by it, and what was held back stays out."""

import asyncio
import secrets
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import func, insert, select, update

from honeyframe_connectors.api.kinds import now
from honeyframe_connectors.connector_type import Mark, marked
from honeyframe_connectors.registry import default_registry
from honeyframe_connectors.store.database import Database
from honeyframe_connectors.store.tables import audit_log, connector_secret_history, data_connectors, login_refusals
from honeyframe_connectors.vault.cipher import DoesNotOpen, unseal
from honeyframe_connectors.vault.content import config_mac, held_mac, secret_mac
from honeyframe_connectors.vault.keyring import Keyring
from honeyframe_connectors.vault.rekey import rekey
from honeyframe_connectors.vault.rows import UNKNOWN_MAC, ConnectorRow
from honeyframe_connectors.vault.vault import RowChanged, Vault
from tests.support.stores import make, opened, sqlite_url

LEAKED, NEW = secrets.token_bytes(32), secrets.token_hex(32).encode()
REGISTRY = default_registry()
TYPE = REGISTRY["postgresql"]
TUNING = marked(TYPE.config, Mark.TUNING)
CONFIG = {"host": "db.example.com", "port": 5432, "database": "d", "pool_size": 5}
FIRST, SECOND = {"password": b"first-value"}, {"password": b"second-value"}


async def accept(
    vault: Vault, row: ConnectorRow, values: dict[str, bytes], ca: bytes | None = None, **changes: Any
) -> ConnectorRow:
    return await vault.commit(
        row,
        config=CONFIG,
        tuning=TUNING,
        secrets=values,
        config_mac=config_mac(vault, row, TYPE, CONFIG, ca),
        secret_mac=secret_mac(vault, row, values),
        secret_name="s",
        ca=ca,
        test_status="passed",
        reason="",
        **changes,
    )


async def history(database: Database, row_id: str) -> list[Any]:
    table = connector_secret_history
    found = select(table).where(table.c.connector_id == row_id).order_by(table.c.version)
    return list(await database.read(lambda connection: connection.execute(found).all()))


async def loaded(vault: Vault, row: ConnectorRow) -> ConnectorRow:
    fresh = await vault.load(row.id)
    assert fresh is not None
    return fresh


async def test_other_keys_and_the_same_values(url: str) -> None:
    async with opened(url, Keyring(LEAKED)) as (database, vault):
        row = await accept(vault, await accept(vault, await make(vault), FIRST, ca=b"a CA"), SECOND, ca=b"a CA")
        row = await vault.update(row, config={**CONFIG, "pool_size": 50})
        empty = await make(vault, "empty")
        old_keys, old = vault._keys_of(row), await history(database, row.id)
    async with opened(url, Keyring(NEW, [LEAKED])) as (database, vault):
        told: list[tuple[int, int]] = []
        result = await rekey(database, vault.wrapping, REGISTRY, progress=lambda *both: told.append(both))
        assert (result.done, result.failures, told[-1]) == (2, (), (2, 2))
        assert [(each.name, each.type, each.secret_name) for each in result.to_rotate] == [
            ("warehouse", "postgresql", "s")
        ]
        assert vault.opens(await loaded(vault, empty))
    async with opened(url, Keyring(NEW)) as (database, vault):
        fresh = await loaded(vault, row)
        assert set(vault._keys_of(fresh)).isdisjoint(old_keys)
        served = await vault.serving(fresh, TUNING)
        assert (served.number, served.secrets, served.ca, served.config["pool_size"]) == (2, SECOND, b"a CA", 50)
        assert fresh.config_mac == config_mac(vault, fresh, TYPE, CONFIG, b"a CA"), "the config is no other"
        assert fresh.secret_mac == secret_mac(vault, fresh, SECOND), "nor are the values"
        assert {fresh.config_mac, fresh.secret_mac}.isdisjoint({row.config_mac, row.secret_mac})
        for before, after, values in zip(old, await history(database, row.id), (FIRST, SECOND), strict=True):
            assert after.secret_mac == secret_mac(vault, fresh, values)
            assert before.created_at == after.created_at
            with pytest.raises(DoesNotOpen):
                unseal(old_keys[0], after.secrets_enc, b"")
        copy = select(data_connectors.c.connection_secrets_enc).where(data_connectors.c.id == row.id)
        assert (await database.read(lambda c: c.scalar(copy))) == (await history(database, row.id))[1].secrets_enc
        back = await accept(vault, fresh, FIRST)
        assert back.serving_version == 3
        actions = await database.read(lambda c: c.scalars(select(audit_log.c.action)).all())
        assert actions.count("connector.rekeyed") == 2


async def test_macs_of_values_that_a_version_holds_are_made_anew(url: str) -> None:
    async with opened(url, Keyring(LEAKED)) as (database, vault):
        row = await accept(vault, await accept(vault, await make(vault), FIRST), SECOND)
        content = f"{row.config_mac}.{secret_mac(vault, row, FIRST)}"
        row = await vault.update(
            row,
            held=held_mac(vault, row, TYPE, FIRST),
            pending={"id": "0123456789abcdef", "content": content, "attempts": 3},
            observed={"seen": secret_mac(vault, row, FIRST), "uid": "uid-1", "fingerprint": "0" * 32},
        )
        await rekey(database, vault.wrapping, REGISTRY)
        fresh = await loaded(vault, row)
        assert fresh.held == held_mac(vault, fresh, TYPE, FIRST) != row.held
        first = secret_mac(vault, fresh, FIRST)
        assert fresh.pending == {
            "id": "0123456789abcdef",
            "content": f"{fresh.config_mac}.{first}",
            "attempts": 3,
        }
        assert fresh.observed == {"seen": first, "uid": "uid-1", "fingerprint": "0" * 32}


async def test_of_values_that_no_version_holds_nothing_is_left_to_compare(url: str) -> None:
    refused = {"password": b"refused and held back"}
    async with opened(url, Keyring(LEAKED)) as (database, vault):
        row = await accept(vault, await make(vault), FIRST)
        mac = secret_mac(vault, row, refused)
        row = await vault.update(
            row,
            held=held_mac(vault, row, TYPE, refused),
            pending={"content": f"{row.config_mac}.{mac}", "reason": "AuthenticationFailed"},
            observed={"seen": mac},
        )
        for _ in range(2):  # a second time there is nothing that could be taken for known
            await rekey(database, vault.wrapping, REGISTRY)
            fresh = await loaded(vault, row)
            assert fresh.held == UNKNOWN_MAC, "held, by whatever the Secret shows"
            assert fresh.pending == {
                "content": f"{fresh.config_mac}.{UNKNOWN_MAC}",
                "reason": "AuthenticationFailed",
            }
            assert fresh.observed == {"seen": UNKNOWN_MAC}, "no Connector made again is served without a check"
        change = update(data_connectors).values(held=None)
        await database.write(lambda connection: connection.execute(change))
        assert not Vault(database, Keyring(LEAKED)).opens(fresh)
        with pytest.raises(Exception, match="does not open"):
            await vault.load(row.id)


async def test_a_running_operator_goes_on(url: str) -> None:
    async with opened(url, Keyring(LEAKED)) as (database, vault):
        row = await accept(vault, await make(vault), FIRST)
        operator = Vault(Database(url), Keyring(LEAKED))
        await operator.open()
        (known,) = await operator.rows("cluster-1")
        assert (await operator.serving(known, TUNING)).secrets == FIRST
        await rekey(database, vault.wrapping, REGISTRY)
        for use in (
            lambda: operator.serving(known, TUNING),
            lambda: operator.update(known, display_name="late"),
            lambda: accept(operator, known, SECOND),
        ):
            with pytest.raises(RowChanged):
                await use()
        again = await loaded(operator, row)
        assert (await operator.serving(again, TUNING)).secrets == FIRST
        assert (await accept(operator, again, SECOND)).serving_version == 2
        await operator.database.close()


async def test_killed_in_the_middle_it_goes_on(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(Exception):
        pass

    async with opened(url, Keyring(LEAKED)) as (database, vault):
        rows = [await accept(vault, await make(vault, f"c{number}"), FIRST) for number in range(5)]
        began, real, left = now(), database.write, 3

        async def dying(work: Any) -> Any:
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed
            return await real(work)

        monkeypatch.setattr(database, "write", dying)
        with pytest.raises(Killed):
            await rekey(database, vault.wrapping, REGISTRY)
        monkeypatch.undo()
        half = {row.id: (await loaded(vault, row)).wrapped_keys for row in rows}
        result = await rekey(database, vault.wrapping, REGISTRY, since=began)
        assert result.done == 2
        assert len(result.to_rotate) == 5, "the list is whole"
        changed = 0
        for row in rows:
            fresh = await loaded(vault, row)
            assert fresh.wrapped_keys != row.wrapped_keys
            changed += fresh.wrapped_keys != half[row.id]
            assert (await vault.serving(fresh, TUNING)).secrets == FIRST
        assert changed == 2


EDITS = {
    "the row's host": (data_connectors, {"config": {**CONFIG, "host": "evil.example.com"}}),
    "a version's host": (connector_secret_history, {"config": {**CONFIG, "host": "evil.example.com"}}),
    "a version's blob": (connector_secret_history, {"secrets_enc": b"HFV\x01" + bytes(60)}),
    "a version's CA": (connector_secret_history, {"ca": "evil"}),
    "the serving version": (data_connectors, {"serving_version": 1}),
    "the owner": (data_connectors, {"namespace_uid": "evil"}),
}


@pytest.mark.parametrize("edit", EDITS)
async def test_what_was_changed_by_hand_is_named_and_left(url: str, edit: str) -> None:
    table, values = EDITS[edit]
    async with opened(url, Keyring(LEAKED)) as (database, vault):
        row = await accept(vault, await accept(vault, await make(vault), FIRST), SECOND)
        other = await accept(vault, await make(vault, "other"), FIRST)
        key = table.c.id if table is data_connectors else table.c.connector_id
        await database.write(lambda connection: connection.execute(update(table).where(key == row.id).values(values)))
        found = select(data_connectors).where(data_connectors.c.id == row.id)
        before = await database.read(lambda c: c.execute(found).one()), await history(database, row.id)
        result = await rekey(database, vault.wrapping, REGISTRY)
        assert (result.done, [each.connector_id for each in result.failures]) == (1, [row.id])
        assert "evil" not in result.failures[0].error
        assert (await database.read(lambda c: c.execute(found).one()), await history(database, row.id)) == before
        assert vault.opens(await loaded(vault, other))


async def test_refusals_go_once_all_is_done(url: str) -> None:
    async with opened(url, Keyring(LEAKED)) as (database, vault):
        row = await accept(vault, await make(vault), FIRST)
        moment = datetime.now(UTC) - timedelta(minutes=5)
        refusal = {"namespace_uid": "n", "target": "t", "secret_mac": "m", "attempts": 1, "message": "no"}
        refusal |= {"refused_at": moment, "next_at": moment}
        await database.write(lambda c: c.execute(insert(login_refusals), refusal))
        count = select(func.count()).select_from(login_refusals)
        break_, mend = update(data_connectors).values(row_mac="0" * 64), update(data_connectors)
        await database.write(lambda connection: connection.execute(break_))
        assert (await rekey(database, vault.wrapping, REGISTRY)).failures
        assert await database.read(lambda c: c.scalar(count)) == 1
        await database.write(lambda connection: connection.execute(mend.values(row_mac=row.row_mac)))
        assert not (await rekey(database, vault.wrapping, REGISTRY)).failures
        assert await database.read(lambda c: c.scalar(count)) == 0


async def test_a_type_that_is_not_known_here(url: str) -> None:
    async with opened(url, Keyring(LEAKED)) as (database, vault):
        row = await vault.create(
            (await make(vault)).owner, name="x", display_name="x", type="nobody", category="c", object_uid="u"
        )
        row = await vault.commit(
            row, config={"a": 1}, tuning=frozenset(), secrets=FIRST, ca=None, test_status="passed", reason="",
            config_mac=config_mac(vault, row, None, {"a": 1}, None), secret_mac=secret_mac(vault, row, FIRST),
            secret_name=None,
        )  # fmt: skip
        assert (await rekey(database, vault.wrapping, REGISTRY)).failures == ()
        fresh = await loaded(vault, row)
        assert (await vault.serving(fresh, frozenset())).secrets == FIRST
        assert fresh.config_mac == config_mac(vault, fresh, None, {"a": 1}, None)


VALUES = st.dictionaries(st.sampled_from(["password", "ssl_key", "x"]), st.binary(max_size=20), max_size=3)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(versions=st.lists(st.tuples(VALUES, st.none() | st.just(b"a CA")), max_size=5), times=st.integers(1, 3))
def test_whatever_was_kept_is_kept(
    tmp_path: Any, versions: list[tuple[dict[str, bytes], bytes | None]], times: int
) -> None:
    async def run() -> None:
        async with opened(sqlite_url(tmp_path / secrets.token_hex(4)), Keyring(LEAKED)) as (database, vault):
            row = await make(vault)
            for values, ca in versions:
                row = await accept(vault, row, values, ca)
            for _ in range(times):
                result = await rekey(database, vault.wrapping, REGISTRY)
                assert (result.done, result.failures) == (1, ())
                assert bool(result.to_rotate) == any(values for values, _ in versions)
            fresh = await loaded(vault, row)
            expected = [secret_mac(vault, fresh, values) for values, _ in versions]
            assert [each.secret_mac for each in reversed(await vault.history(row.id))] == expected
            assert (fresh.serving_version, fresh.last_version) == (row.serving_version, row.last_version)
            if versions:
                version = await vault.serving(fresh, TUNING)
                assert (version.secrets, version.ca) == versions[-1]
                assert fresh.secret_mac == expected[-1]

    asyncio.run(run())
