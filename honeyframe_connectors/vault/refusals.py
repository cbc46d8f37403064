"""Logins that were refused: which values at which destination and account, as keyed MACs and nothing else.

They stand in the database, so that no restart and no second Connector locks an account.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any

import orjson
from sqlalchemy import Connection, bindparam, delete, insert, select, update

from honeyframe_connectors.api.kinds import now
from honeyframe_connectors.connector_type import (
    ConnectorConfig,
    ConnectorType,
    Mark,
    destination,
    marked,
    secret_values,
)
from honeyframe_connectors.store.database import Change, Database
from honeyframe_connectors.store.tables import login_refusals
from honeyframe_connectors.vault.vault import Vault

KEPT = timedelta(days=30)
"""A refusal whose values nobody tried again for this long is forgotten."""


@dataclass(frozen=True, slots=True)
class LoginKey:
    """Whose login it is. The MACs are the same for all Connectors of an install."""

    namespace_uid: str
    target: str
    """Of type, destination and account."""
    secret_mac: str


@dataclass(frozen=True, slots=True)
class Refusal:
    """What came of it last. Times are seconds since the epoch."""

    attempts: int
    refused_at: float
    """When the last attempt was made."""
    next_at: float
    message: str
    """What the target said; "" where its answer is not known: the process ended before it came."""


_MINE = (
    login_refusals.c.namespace_uid == bindparam("ns"),
    login_refusals.c.target == bindparam("at"),
    login_refusals.c.secret_mac == bindparam("values_mac"),
)
_UPDATE = update(login_refusals).where(*_MINE)
_DELETE = delete(login_refusals).where(*_MINE)
_FORGET_OLD = delete(login_refusals).where(login_refusals.c.next_at < bindparam("before"))


class Refusals:
    """The table `login_refusals`. Raises `Waiting` (`VaultUnavailable`) where the store cannot be used."""

    def __init__(self, database: Database, vault: Vault) -> None:
        self._database = database
        self._vault = vault

    def key(self, namespace_uid: str, type_: ConnectorType[Any], config: ConnectorConfig) -> LoginKey | None:
        """The key of a login; None where none is made."""
        if not type_.logs_in(config):
            return None
        secrets = sorted(
            value.encode() if isinstance(value, str) else value for value in secret_values(config) if value
        )
        if not secrets:
            return None
        account = [getattr(config, name) for name in sorted(marked(type_.config, Mark.ACCOUNT))]
        target = orjson.dumps([type_.name, destination(type_, config), account], default=str)
        values = orjson.dumps([value.hex() for value in secrets])
        return LoginKey(namespace_uid, self._vault.refusal_mac(target), self._vault.refusal_mac(values))

    async def all(self) -> dict[LoginKey, Refusal]:
        """Every refusal that is kept; old ones are forgotten."""
        await self._database.apply(Change(_FORGET_OLD, {"before": now() - KEPT}))
        found = await self._database.read(lambda connection: connection.execute(select(login_refusals)).all())
        return {
            LoginKey(each.namespace_uid, each.target, each.secret_mac): Refusal(
                each.attempts, each.refused_at.timestamp(), each.next_at.timestamp(), each.message
            )
            for each in found
        }

    async def note(self, key: LoginKey, refusal: Refusal) -> None:
        """Keep a refusal."""
        values = {
            "attempts": refusal.attempts,
            "refused_at": datetime.fromtimestamp(refusal.refused_at, UTC),
            "next_at": datetime.fromtimestamp(refusal.next_at, UTC),
            "message": refusal.message,
        }

        def write(connection: Connection) -> None:
            if connection.execute(_UPDATE, {**values, **_named(key)}).rowcount == 0:
                own = {"namespace_uid": key.namespace_uid, "target": key.target, "secret_mac": key.secret_mac}
                connection.execute(insert(login_refusals), {**own, **values})

        await self._database.write(write)

    async def forget(self, keys: Sequence[LoginKey]) -> None:
        """Values that were accepted, or whose answer did not count."""
        await self._database.apply(*(Change(_DELETE, _named(key)) for key in keys))


def _named(key: LoginKey) -> dict[str, str]:
    return {"ns": key.namespace_uid, "at": key.target, "values_mac": key.secret_mac}
