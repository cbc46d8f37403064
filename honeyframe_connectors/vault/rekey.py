"""Give connectors other keys and encrypt every version anew, after a secret leaked.

Who had the leaked secret and a copy of the database had every data key and MAC key in it, and `rewrap` keeps those. A
connector at a time, in one transaction: an operator that is at work meets the old row or the new one.

No credential is rotated by it and nothing comes in by it. A MAC is made anew from the values that it is of, where a
version holds them. Of values that no version holds (refused ones, those that a rollback holds back) there is nothing
but the MAC, so `UNKNOWN_MAC` takes its place: a pending content is tried anew, as one that was not refused before; what
is held stays held, by whatever the Secret shows.
"""

import os
import re
import secrets as random_tokens
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, delete, exists, func, insert, or_, select, update

from honeyframe_connectors.api.kinds import now
from honeyframe_connectors.connector_type import ConnectorType, Mark, marked
from honeyframe_connectors.errors import Stalled
from honeyframe_connectors.registry import Registry
from honeyframe_connectors.store.database import Database
from honeyframe_connectors.store.tables import audit_log, connector_secret_history, data_connectors, login_refusals
from honeyframe_connectors.vault.binding import bound, bound_version, keyed, packed, place, row_mac, unpacked
from honeyframe_connectors.vault.cipher import (
    DATA_KEY_ID,
    HEADER_BYTES,
    KEY_BYTES,
    NONCE_BYTES,
    TAG_BYTES,
    DoesNotOpen,
    seal,
    unseal,
)
from honeyframe_connectors.vault.content import config_mac, held_mac, secret_mac
from honeyframe_connectors.vault.keyring import WrappingKeys
from honeyframe_connectors.vault.rewrap import Failure, Progress, failure, open_keys
from honeyframe_connectors.vault.rows import UNKNOWN_MAC, ConnectorRow, connector_row

_MAC = re.compile(r"\b[0-9a-f]{64}\b")
_EMPTY_BYTES = HEADER_BYTES + NONCE_BYTES + TAG_BYTES + len(packed({}))
"""A blob of this length holds no value."""
_VAULTED = data_connectors.c.wrapped_keys.is_not(None)


@dataclass(frozen=True, slots=True)
class Exposed:
    """A connector whose credential whoever had the leaked secret could read."""

    connector_id: str
    project: str
    name: str
    type: str
    secret_name: str | None
    """The Secret that the serving values came from; None: the platform's own, or nothing serves."""


@dataclass(frozen=True, slots=True)
class Rekeyed:
    """What came of it."""

    done: int
    """Connectors that have other keys now."""
    failures: tuple[Failure, ...]
    """Those that still have the old ones."""
    to_rotate: tuple[Exposed, ...]


@dataclass(frozen=True, slots=True)
class _Macs:
    """One MAC key, as `vault.content` asks for MACs."""

    key: bytes

    def mac(self, row: ConnectorRow, purpose: str, data: bytes) -> str:
        return keyed(self.key, row.id, purpose, data)


async def rekey(
    database: Database,
    keys: WrappingKeys,
    registry: Registry,
    *,
    since: datetime | None = None,
    progress: Progress = lambda _done, _total: None,
) -> Rekeyed:
    """Give every connector a new data key and MAC key, wrapped by the active key, and encrypt its versions anew.

    With `since`, the start of an earlier run, it passes over what that run has done. A row of which anything does not
    open is left as it is and named.

    Raises:
        Waiting: `VaultUnavailable`, the store cannot be used.
    """
    started = now()
    wanted = select(data_connectors.c.id).where(_VAULTED).order_by(data_connectors.c.id)
    if since is not None:
        before = data_connectors.c.rekeyed_at
        wanted = wanted.where(or_(before.is_(None), before < since))
    ids = await database.read(lambda connection: connection.scalars(wanted).all())
    failures: list[Failure] = []
    done = 0
    progress(0, len(ids))
    for number, row_id in enumerate(ids, 1):
        outcome = await database.write(
            lambda connection, row_id=row_id: _rekey_one(connection, keys, registry, row_id, started)  # type: ignore[misc]
        )
        if isinstance(outcome, Failure):
            failures.append(outcome)
        else:
            done += outcome
        progress(number, len(ids))
    if not failures:
        # Their MACs are under the platform's secret itself. What was refused is tried anew, as after an exchange.
        stale = delete(login_refusals).where(login_refusals.c.refused_at < started)
        await database.write(lambda connection: connection.execute(stale))
    return Rekeyed(done, tuple(failures), tuple(await database.read(_exposed)))


def _rekey_one(
    connection: Connection, keys: WrappingKeys, registry: Registry, row_id: str, moment: datetime
) -> int | Failure:
    found = connection.execute(
        select(data_connectors).where(data_connectors.c.id == row_id).with_for_update()
    ).one_or_none()
    if found is None:  # purged meanwhile
        return 0
    row = connector_row(found)
    history = connector_secret_history
    versions = connection.execute(select(history).where(history.c.connector_id == row_id)).all()
    type_ = _type(registry, row.type)
    new = _Keys(os.urandom(KEY_BYTES), os.urandom(KEY_BYTES))
    try:
        old = _Keys(*open_keys(keys, place(row), row.wrapped_keys, row.row_mac))
        made = [_resealed(row, version, type_, old, new) for version in versions]
        _require_serving(row, made)
    except DoesNotOpen as error:
        return failure(place(row), error)
    renamed = {before: after for each in made for before, after in each.renamed}
    changed = replace(
        row,
        held=_renamed(row.held, renamed),
        config_mac=_renamed(row.config_mac, renamed),
        secret_mac=_renamed(row.secret_mac, renamed),
    )
    values = {
        "wrapped_keys": keys.wrap(new.data + new.mac, bound(row.id, "keys")),
        "row_mac": row_mac(new.mac, changed),
        "connection_secrets_enc": next((each.blob for each in made if each.number == row.serving_version), None),
        "held": changed.held,
        "config_mac": changed.config_mac,
        "secret_mac": changed.secret_mac,
        "pending": _renamed(row.pending, renamed),
        "observed": _renamed(row.observed, renamed),
        "revision": random_tokens.token_hex(16),
        "rekeyed_at": moment,
        "updated_at": moment,
    }
    connection.execute(update(data_connectors).where(data_connectors.c.id == row_id), values)
    for each in made:
        connection.execute(
            update(history).where(history.c.connector_id == row_id, history.c.version == each.number),
            {"secrets_enc": each.blob, "secret_mac": each.secret_mac},
        )
    subject = f"{row.owner.org}/{row.owner.project}/{row.name}"
    detail = {"connector_id": row.id, "versions": len(made)}
    entry = {"at": moment, "action": "connector.rekeyed", "subject": subject, "detail": detail}
    connection.execute(insert(audit_log), entry)
    return 1


def _type(registry: Registry, name: str) -> ConnectorType[Any] | None:
    try:
        return registry.lookup(name)
    except Stalled:  # a row of an older install; none of its fields was taken for tuning
        return None


@dataclass(frozen=True, slots=True)
class _Keys:
    data: bytes
    mac: bytes


@dataclass(frozen=True, slots=True)
class _Resealed:
    number: int
    blob: bytes
    secret_mac: str | None
    renamed: Sequence[tuple[str, str]]
    """MACs of what this version is of: as they were, and as they are."""


def _resealed(row: ConnectorRow, version: Any, type_: ConnectorType[Any] | None, old: _Keys, new: _Keys) -> _Resealed:
    """A version under the new keys.

    Raises:
        DoesNotOpen: it does not.
    """
    tuning = marked(type_.config, Mark.TUNING) if type_ is not None else frozenset()
    where = bound_version(row.id, version.version, version.config, tuning, version.ca)
    if version.version == row.serving_version and where != bound_version(
        row.id, version.version, row.config, tuning, version.ca
    ):
        raise DoesNotOpen("its config is not that of the version that serves")
    try:
        data = unseal(old.data, version.secrets_enc, where)
    except DoesNotOpen as error:
        raise DoesNotOpen(f"version {version.version}: {error}") from None
    values, ca = unpacked(data), version.ca.encode() if version.ca is not None else None

    def macs(keys: _Keys) -> tuple[str, str, str]:
        own = _Macs(keys.mac)
        return (
            secret_mac(own, row, values),
            held_mac(own, row, type_, values),
            config_mac(own, row, type_, version.config, ca),
        )

    before, after = macs(old), macs(new)
    return _Resealed(
        version.version,
        seal(new.data, DATA_KEY_ID, data, where),
        after[0] if version.secret_mac is not None else None,
        tuple(zip(before, after, strict=True)),
    )


def _require_serving(row: ConnectorRow, made: Sequence[_Resealed]) -> None:
    if row.serving_version is not None and row.serving_version not in {each.number for each in made}:
        raise DoesNotOpen(f"version {row.serving_version}, which serves, is not there")


def _renamed(value: Any, renamed: Mapping[str, str]) -> Any:
    """A value with every MAC in it as it is under the new key."""
    match value:
        case str():
            return _MAC.sub(lambda mac: renamed.get(mac[0], UNKNOWN_MAC), value)
        case Mapping():
            return {key: _renamed(each, renamed) for key, each in value.items()}
        case list():
            return [_renamed(each, renamed) for each in value]
        case _:
            return value


def _exposed(connection: Connection) -> list[Exposed]:
    """Every connector of which a version holds values."""
    history = connector_secret_history
    held = exists().where(
        history.c.connector_id == data_connectors.c.id,
        func.length(history.c.secrets_enc) > _EMPTY_BYTES,
    )
    columns = [data_connectors.c[name] for name in ("id", "project", "name", "type", "secret_name")]
    found = connection.execute(select(*columns).where(_VAULTED, held).order_by(*columns[1:3]))
    return [Exposed(each.id, each.project, each.name, each.type, each.secret_name) for each in found]
