"""Begin anew with another secret, where the one that the vault was sealed with is lost.

What it sealed can never be opened again. A row keeps its id, its owner and the greatest number that it gave; it gets
new keys and serves nothing, until an operator, running or started next, finds the live Secret's values to work.
"""

import os
import secrets as random_tokens
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from sqlalchemy import Connection, Select, bindparam, delete, func, insert, select, update

from honeyframe_connectors.api.kinds import now
from honeyframe_connectors.errors import Reason, Stalled
from honeyframe_connectors.store.database import Database
from honeyframe_connectors.store.tables import (
    audit_log,
    connector_secret_history,
    data_connectors,
    install,
    login_refusals,
)
from honeyframe_connectors.vault.binding import bound, row_mac
from honeyframe_connectors.vault.cipher import KEY_BYTES, DoesNotOpen, key_id_of
from honeyframe_connectors.vault.keyring import Keyring, WrappingKeys
from honeyframe_connectors.vault.rows import OPERATOR, ConnectorRow, connector_row

_EMPTY: dict[str, Any] = {
    "serving_version": None,
    "config": {},
    "config_mac": None,
    "secret_mac": None,
    "secret_name": None,
    "connection_secrets_enc": None,
    "revoked": False,
    "held": None,
    "forced": False,
    "pending": None,
    "observed": None,
}
_SET = (*_EMPTY, "wrapped_keys", "row_mac", "last_version", "revision", "updated_at")
_RESET = (
    update(data_connectors)
    .where(data_connectors.c.id == bindparam("row_id"))
    .values({column: bindparam(column) for column in _SET})
)
_VAULTED = (
    select(data_connectors)
    .where(data_connectors.c.wrapped_keys.is_not(None))
    .order_by(data_connectors.c.project, data_connectors.c.name)
)
_OF = connector_secret_history.c.connector_id
_COUNTS = select(_OF, func.count()).group_by(_OF)
_NEWEST = select(_OF, func.max(connector_secret_history.c.version)).group_by(_OF)
_DROP = delete(connector_secret_history).where(connector_secret_history.c.connector_id == bindparam("row_id"))


@dataclass(frozen=True, slots=True)
class Lost:
    """A connector whose keys are lost."""

    connector_id: str
    project: str
    name: str
    versions: int
    """How many versions are gone, or cannot be opened."""
    held: bool
    """A rollback held its Secret's values back; what it went back to is gone, so they are tried."""
    rebuilt: bool
    """Whether a live Secret brings it back; False for a row that the platform itself keeps, which is left as it is."""


async def lost(database: Database, keyring: Keyring) -> list[Lost]:
    """What `reset` would take away. Nothing is changed.

    Raises:
        Stalled: `InvalidConfig`, there is nothing to reset.
        Waiting: `VaultUnavailable`, the store cannot be used.
    """
    return await database.read(lambda connection: _find(connection, keyring).rows)


async def reset(database: Database, keyring: Keyring) -> list[Lost]:
    """Admit the active key, and give new keys to every row of an operator whose own are under a key that is not given.

    One transaction: an operator meets all of it or nothing. Rows that a given key opens stay as they are, with their
    history; rows that the platform itself keeps stay too, for no Secret brings them back.

    Raises:
        Stalled: `InvalidConfig`, there is no vault here, or it opens with what is given and nothing is lost.
        Waiting: `VaultUnavailable`, the store cannot be used.
    """

    def write(connection: Connection) -> list[Lost]:
        connection.execute(select(install.c.one).with_for_update())
        found = _find(connection, keyring)
        connection.execute(update(install), {"checks": found.checks})
        if not found.opens:
            connection.execute(delete(login_refusals))  # whose MACs are under the lost key, and match nothing
        versions = {each.connector_id: each.versions for each in found.rows}
        if found.ours:
            _empty(connection, found.keys, found.ours, versions)
        return found.rows

    return await database.write(write)


@dataclass(frozen=True, slots=True)
class _Found:
    keys: WrappingKeys
    opens: bool
    """Whether a given key opens its check value."""
    checks: Mapping[str, Any]
    """The check values as they are to be."""
    ours: Sequence[ConnectorRow]
    rows: list[Lost]


def _find(connection: Connection, keyring: Keyring) -> _Found:
    found = connection.execute(select(install)).one_or_none()
    if found is None:
        raise Stalled(
            Reason.INVALID_CONFIG,
            "there is no vault in this metadata store yet, so nothing is lost: correct --database, or start the "
            "operator",
        )
    keys = keyring.bind(found.install_id)
    admitted = keys.admitted(found.checks)
    rows = [each for each in connection.execute(_VAULTED) if _is_lost(keys, each.wrapped_keys)]
    ours = [connector_row(each) for each in rows if each.managed_by == OPERATOR]
    if admitted and not ours:
        raise Stalled(
            Reason.INVALID_CONFIG,
            "the vault opens with the secrets that are given, and so does every connector of an operator: nothing is "
            "lost, and nothing was changed; to wrap all keys under the newest secret: honeyframe vault rewrap",
        )
    kept = {key_id: found.checks[key_id] for key_id in admitted}
    counts = _by_row(connection, _COUNTS)
    return _Found(
        keys,
        bool(admitted),
        {keys.active_id: keys.check_value(), **kept},
        ours,
        [
            Lost(
                each.id,
                each.project,
                each.name,
                versions=counts.get(each.id, 0),
                held=each.held is not None,
                rebuilt=each.managed_by == OPERATOR,
            )
            for each in rows
        ],
    )


def _is_lost(keys: WrappingKeys, wrapped: bytes) -> bool:
    try:
        return key_id_of(wrapped).hex() not in set(keys)
    except DoesNotOpen:  # changed by hand: a fault of that row, which stays visible
        return False


def _by_row(connection: Connection, statement: Select[Any]) -> dict[str, int]:
    return {each[0]: each[1] for each in connection.execute(statement)}


def _empty(
    connection: Connection, keys: WrappingKeys, rows: Sequence[ConnectorRow], versions: Mapping[str, int]
) -> None:
    moment = now()
    newest = _by_row(connection, _NEWEST)
    changes, entries = [], []
    for row in rows:
        data_key, mac_key = os.urandom(KEY_BYTES), os.urandom(KEY_BYTES)
        emptied = replace(
            row, serving_version=None, held=None, config_mac=None, secret_mac=None, secret_name=None, revoked=False
        )
        changes.append(
            {
                **_EMPTY,
                "row_id": row.id,
                "wrapped_keys": keys.wrap(data_key + mac_key, bound(row.id, "keys")),
                "row_mac": row_mac(mac_key, emptied),
                # No number is used twice, whoever lowered this one by hand.
                "last_version": max(row.last_version, newest.get(row.id, 0)),
                "revision": random_tokens.token_hex(16),
                "updated_at": moment,
            }
        )
        detail = {"connector_id": row.id, "versions": versions.get(row.id, 0)}
        subject = f"{row.owner.org}/{row.owner.project}/{row.name}"
        entries.append({"at": moment, "action": "connector.reset", "subject": subject, "detail": detail})
    connection.execute(_RESET, changes)
    connection.execute(_DROP, [{"row_id": row.id} for row in rows])
    connection.execute(insert(audit_log), entries)
