"""The history of ConnectorTests: bounded, on both stores."""

import secrets
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import delete, select

from honeyframe_connectors.connector_type import CheckResult, CheckStep, Outcome
from honeyframe_connectors.errors import Reason, Refused
from honeyframe_connectors.store.database import Database
from honeyframe_connectors.store.tables import connector_tests, data_connectors
from honeyframe_connectors.vault import answers
from honeyframe_connectors.vault.answers import KEPT, Answers
from honeyframe_connectors.vault.keyring import Keyring
from honeyframe_connectors.vault.vault import Vault
from tests.support.stores import OWNER, make, opened

KEY = secrets.token_bytes(32)
YES = CheckResult((CheckStep("authenticate", Outcome.PASSED),), None, latency_ms=3)
NO = CheckResult(
    (CheckStep("authenticate", Outcome.FAILED, "no"),), Refused(Reason.AUTHENTICATION_FAILED, "no"), latency_ms=4
)


@pytest.fixture
async def store(url: str, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[tuple[Database, Vault]]:
    moments = (datetime(2027, 1, 1, tzinfo=UTC) + timedelta(seconds=n) for n in range(1000))
    monkeypatch.setattr(answers, "now", lambda: next(moments))
    async with opened(url, Keyring(KEY)) as found:
        yield found


async def kept(database: Database, *where: Any) -> list[Any]:
    statement = select(connector_tests).where(*where).order_by(connector_tests.c.at)
    return await database.read(lambda connection: list(connection.execute(statement)))


async def test_the_newest_of_each_connector_and_of_each_projects_not_applied(store: tuple[Database, Vault]) -> None:
    database, vault = store
    one, two = await make(vault, "one", uid="1"), await make(vault, "two", uid="2")
    history = Answers(database)
    elsewhere = replace(OWNER, project="elsewhere")
    for owner, connector_id in ((OWNER, two.id), (OWNER, None), (elsewhere, None)):
        await history.add(f"first-{owner.project}-{connector_id}"[:36], owner, connector_id=connector_id, **said(YES))
    for number in range(KEPT + 5):
        await history.add(f"one-{number}", OWNER, connector_id=one.id, **said(YES))
        await history.add(f"none-{number}", OWNER, connector_id=None, **said(NO))
    of_one = await kept(database, connector_tests.c.connector_id == one.id)
    assert [each.id for each in of_one] == [f"one-{number}" for number in range(5, KEPT + 5)]
    here = await kept(database, connector_tests.c.connector_id.is_(None), connector_tests.c.project == OWNER.project)
    assert [each.id for each in here] == [f"none-{number}" for number in range(5, KEPT + 5)]
    assert (here[0].ok, here[0].error, here[0].steps[0]["outcome"]) == (False, "no", "failed")
    assert len(await kept(database)) == 2 * KEPT + 2, "nobody else's went"


async def test_the_last_answer_of_a_test_counts(store: tuple[Database, Vault]) -> None:
    database, _ = store
    for result in (NO, YES):
        await Answers(database).add("same", OWNER, connector_id=None, **said(result))
    assert [each.ok for each in await kept(database)] == [True]


async def test_a_connector_that_was_purged_takes_its_history_along(store: tuple[Database, Vault]) -> None:
    database, vault = store
    row = await make(vault)
    await Answers(database).add("a", OWNER, connector_id=row.id, **said(YES))
    await database.write(lambda connection: connection.execute(delete(data_connectors)))
    assert await kept(database) == []
    await Answers(database).add("b", OWNER, connector_id=row.id, **said(YES))
    assert await kept(database) == []


def said(result: CheckResult) -> dict[str, Any]:
    return {"type_name": "postgresql", "result": result}
