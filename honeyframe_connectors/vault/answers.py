"""What ConnectorTests were answered: the newest of each connector, and of each project's specs that are not applied."""

from sqlalchemy import ColumnElement, Connection, delete, insert, select
from sqlalchemy.exc import IntegrityError

from honeyframe_connectors.api.kinds import now
from honeyframe_connectors.connector_type import CheckResult
from honeyframe_connectors.store.database import Database
from honeyframe_connectors.store.tables import connector_tests
from honeyframe_connectors.vault.rows import Owner

KEPT = 100


class Answers:
    """Writes the rows of `connector_tests`, and keeps them bounded."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def add(
        self, test_id: str, owner: Owner, *, connector_id: str | None, type_name: str, result: CheckResult
    ) -> None:
        """Keep an answer and let go of the oldest, in one transaction; the same test's last answer counts.

        `connector_id` is None for a spec that is not applied. Nothing is kept of a connector that was purged meanwhile.

        Raises:
            Waiting: `VaultUnavailable`.
        """
        row = {
            "id": test_id,
            "connector_id": connector_id,
            "org": owner.org,
            "project": owner.project,
            "type": type_name,
            "ok": result.ok,
            "latency_ms": result.latency_ms,
            "error": result.error.message if result.error is not None else "",
            "steps": [
                {"name": step.name, "outcome": str(step.outcome), "message": step.message} for step in result.steps
            ],
            "at": now(),
        }

        def write(connection: Connection) -> None:
            connection.execute(delete(connector_tests).where(connector_tests.c.id == test_id))
            connection.execute(insert(connector_tests), row)
            siblings = _siblings(owner, connector_id)
            newest = select(connector_tests.c.at, connector_tests.c.id).where(*siblings)
            newest = newest.order_by(connector_tests.c.at.desc(), connector_tests.c.id.desc()).offset(KEPT)
            surplus = [each.id for each in connection.execute(newest)]
            if surplus:
                connection.execute(delete(connector_tests).where(connector_tests.c.id.in_(surplus)))

        try:
            await self._database.write(write)
        except IntegrityError:
            return


def _siblings(owner: Owner, connector_id: str | None) -> tuple[ColumnElement[bool], ...]:
    table = connector_tests.c
    if connector_id is not None:
        return (table.connector_id == connector_id,)
    return (table.connector_id.is_(None), table.org == owner.org, table.project == owner.project)
