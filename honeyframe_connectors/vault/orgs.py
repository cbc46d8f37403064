"""The orgs' rows: which metadata adapters and engine an org has, and which CatalogConfig declares them."""

from collections.abc import Mapping, Sequence
from typing import Any

from sqlalchemy import Connection, bindparam, insert, select, update
from sqlalchemy.exc import IntegrityError

from honeyframe_connectors.api.catalog_config import DEFAULT_ADAPTERS
from honeyframe_connectors.api.kinds import now
from honeyframe_connectors.store.database import Database
from honeyframe_connectors.store.tables import audit_log, orgs
from honeyframe_connectors.vault.rows import OrgRow

_ORG = select(orgs).where(orgs.c.name == bindparam("org"))
DEFAULT_ENGINE = "dbt"


class Orgs:
    """Reads and writes the rows of `orgs`. Raises `Waiting` (`VaultUnavailable`) where the store does not answer."""

    def __init__(self, database: Database) -> None:
        self._database = database

    async def all(self) -> list[OrgRow]:
        """Every org that has a row."""
        found = await self._database.read(lambda connection: connection.execute(select(orgs)).all())
        return [_org(each) for each in found]

    async def get(self, name: str) -> OrgRow | None:
        """One org's row."""
        found = await self._database.read(lambda connection: connection.execute(_ORG, {"org": name}).one_or_none())
        return _org(found) if found is not None else None

    async def declare(
        self,
        name: str,
        *,
        adapters: Sequence[Mapping[str, Any]],
        engine_profile: str | None,
        holder: Mapping[str, Any],
    ) -> OrgRow:
        """Make an org's row so; what changed is audited as `catalog.config.updated` with before and after.

        `engine_profile` None leaves the engine as it is.
        """

        def write(connection: Connection) -> OrgRow:
            found = connection.execute(_ORG.with_for_update(), {"org": name}).one_or_none()
            before = _org(found) if found is not None else OrgRow(name, DEFAULT_ADAPTERS, DEFAULT_ENGINE, None)
            engine = engine_profile or before.engine_profile
            after = OrgRow(name, [dict(adapter) for adapter in adapters], engine, dict(holder))
            return _write(connection, before, after, exists=found is not None)

        try:
            return await self._database.write(write)
        except IntegrityError:  # another process made the row meanwhile: now there is one to change
            return await self._database.write(write)

    async def release(self, name: str, holder_uid: str) -> None:
        """Bring an org's default adapters back, if this holder declared others; its engine stays."""

        def write(connection: Connection) -> None:
            found = connection.execute(_ORG.with_for_update(), {"org": name}).one_or_none()
            if found is None or (found.holder or {}).get("uid") != holder_uid:
                return
            before = _org(found)
            _write(connection, before, OrgRow(name, DEFAULT_ADAPTERS, before.engine_profile, None), exists=True)

        await self._database.write(write)


def _write(connection: Connection, before: OrgRow, after: OrgRow, *, exists: bool) -> OrgRow:
    values = {
        "catalog_config": after.adapters,
        "engine_profile": after.engine_profile,
        "holder": after.holder,
        "updated_at": now(),
    }
    if not exists:
        connection.execute(insert(orgs), {"name": after.name, **values})
    elif before != after:
        connection.execute(update(orgs).where(orgs.c.name == after.name), values)
    if _catalog(before) != _catalog(after):
        detail = {"before": _catalog(before), "after": _catalog(after)}
        entry = {"at": now(), "action": "catalog.config.updated", "subject": after.name, "detail": detail}
        connection.execute(insert(audit_log), entry)
    return after


def _catalog(org: OrgRow) -> dict[str, Any]:
    return {"adapters": org.adapters, "engine_profile": org.engine_profile}


def _org(found: Any) -> OrgRow:
    # NULL, empty or no list at all: the platform's rule is dbt alone, never an empty list.
    adapters = found.catalog_config if isinstance(found.catalog_config, list) and found.catalog_config else None
    return OrgRow(found.name, adapters or DEFAULT_ADAPTERS, found.engine_profile, found.holder)
