"""The vault: a row a connector, a row a version, all secret values sealed.

Each connector has a data key and a MAC key of its own, wrapped by a key that is derived from the platform's secret.
A version's blob is bound to its row, number, clean config and CA; the row's place and what serves are under a MAC.
Every write is a compare-and-set on the row's random revision, in one transaction.
"""

import hmac
import itertools
import logging
import os
import secrets as random_tokens
import uuid
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import Any

from sqlalchemy import Connection, bindparam, delete, insert, select, update
from sqlalchemy.exc import IntegrityError

from honeyframe_connectors.api.kinds import ADOPT_ANNOTATION, now
from honeyframe_connectors.connector_type import ConnectorType, Mark, marked
from honeyframe_connectors.errors import Reason, Stalled, TryAgain, Waiting
from honeyframe_connectors.store.database import Change, Database, Missed
from honeyframe_connectors.store.tables import audit_log, connector_secret_history, data_connectors, install
from honeyframe_connectors.vault import content
from honeyframe_connectors.vault.binding import bound, bound_version, keyed, packed, row_mac, unpacked
from honeyframe_connectors.vault.cipher import DATA_KEY_ID, KEY_BYTES, DoesNotOpen, seal, unseal
from honeyframe_connectors.vault.keyring import Keyring, WrappingKeys
from honeyframe_connectors.vault.rows import OPERATOR, ConnectorRow, Owner, TestStatus, Version, VersionInfo
from honeyframe_connectors.vault.rows import connector_row as _row

logger = logging.getLogger(__name__)

_SHOWN_COLUMNS = ("version", "created_at", "test_status", "reason", "restored_from", "secret_mac")
"""What of a version is no secret: its blob is never read to show it."""

_ROWS = select(data_connectors).where(
    data_connectors.c.managed_by == OPERATOR, data_connectors.c.cluster_id == bindparam("cluster")
)
_ROW = select(data_connectors).where(data_connectors.c.id == bindparam("row_id"))
_HOLDER = select(data_connectors).where(
    data_connectors.c.org == bindparam("org"),
    data_connectors.c.project == bindparam("project"),
    data_connectors.c.name == bindparam("name"),
    data_connectors.c.deleted_at.is_(None),
)
_VERSION = select(connector_secret_history).where(
    connector_secret_history.c.connector_id == bindparam("row_id"),
    connector_secret_history.c.version == bindparam("number"),
)
_SHOWN = [connector_secret_history.c[name] for name in _SHOWN_COLUMNS]
_HISTORY = (
    select(*_SHOWN)
    .where(connector_secret_history.c.connector_id == bindparam("row_id"))
    .order_by(connector_secret_history.c.version.desc())
)
_HISTORIES = (
    select(connector_secret_history.c.connector_id, *_SHOWN)
    .join(data_connectors, data_connectors.c.id == connector_secret_history.c.connector_id)
    .where(data_connectors.c.managed_by == OPERATOR, data_connectors.c.cluster_id == bindparam("cluster"))
    .order_by(connector_secret_history.c.connector_id, connector_secret_history.c.version.desc())
)
_DROP_VERSION = delete(connector_secret_history).where(
    connector_secret_history.c.connector_id == bindparam("row_id"),
    connector_secret_history.c.version == bindparam("number"),
)
_INSERT_ROW = insert(data_connectors)
_INSERT_VERSION = insert(connector_secret_history)
_INSERT_AUDIT = insert(audit_log)
_MACED = frozenset({"serving_version", "held", "type", "config_mac", "secret_mac", "secret_name", "revoked"})


class RowChanged(TryAgain):
    """Somebody else wrote the row since it was read: read it again, and decide again."""

    def __init__(self) -> None:
        super().__init__(Reason.PROGRESSING, "the connector's row was changed by someone else", retry_after=0.05)


class Tampered(Waiting):
    """A row or a version does not open: it was changed by hand, or its key is not given."""


class Vault:
    """Connectors and their versions in one metadata store. Opened before it is used."""

    def __init__(self, database: Database, keyring: Keyring) -> None:
        self._database = database
        self._keyring = keyring
        self._keys: WrappingKeys | None = None
        self._closed = Waiting(Reason.VAULT_UNAVAILABLE, "the vault is not open yet")
        self._mac_keys: dict[str, bytes] = {}

    async def open(self, first: Callable[[Connection], object] | None = None) -> None:
        """Reach the store, and have the active key admitted. Does nothing once it worked.

        `first` runs in the same transaction; where it raises, nothing is kept.

        Raises:
            Waiting: `VaultUnavailable`: the store does not answer, or does not know the active key and no older key
                that it knows is given beside it.
        """
        if self._keys is not None:
            return
        admitted: list[WrappingKeys] = []

        def admit(connection: Connection) -> None:
            admitted[:] = [self._admit(connection)]
            if first is not None:
                first(connection)

        try:
            # With the store's opening: before anybody writes, and with no other process making the install's row too.
            await self._database.open(admit)
            if not admitted:
                await self._database.write(admit)
        except Waiting as error:
            self._closed = error
            raise
        self._keys = admitted[0]

    @property
    def key_id(self) -> str:
        """The id of the active wrapping key."""
        return self.wrapping.active_id

    async def rows(self, cluster_id: str) -> list[ConnectorRow]:
        """Every row of a cluster, deleted ones too.

        One that does not open (it was changed by hand, or its key is not given) must not keep the others from being
        served: it comes without `observed`, so that it is reconciled, and the first use of its keys says so.

        Raises:
            Waiting: `VaultUnavailable`, the store cannot be used.
        """
        found = await self._database.read(lambda connection: connection.execute(_ROWS, {"cluster": cluster_id}).all())
        return [self._believed(_row(each)) for each in found]

    async def load(self, row_id: str) -> ConnectorRow | None:
        """A row as it is now; None where it is not there any more.

        Raises:
            Waiting: `VaultUnavailable`, the store cannot be used, or the row does not open.
        """
        found = await self._database.read(lambda connection: connection.execute(_ROW, {"row_id": row_id}).one_or_none())
        if found is None:
            return None
        row = _row(found)
        self._mac_key(row)
        return row

    async def find(self, row_id: str) -> ConnectorRow | None:
        """Anybody's row as it stands there, whether it opens or not; None where there is none.

        Raises:
            Waiting: `VaultUnavailable`, the store cannot be used.
        """
        try:
            found = await self._database.read(
                lambda connection: connection.execute(_ROW, {"row_id": row_id}).one_or_none()
            )
        except Stalled:  # it cannot be an id: the platform's are numbers there
            return None
        return _row(found) if found is not None else None

    async def create(
        self,
        owner: Owner,
        *,
        name: str,
        display_name: str,
        type: str,  # noqa: A002 - as the column
        category: str,
        object_uid: str,
    ) -> ConnectorRow:
        """A new row without a version, or the one that an earlier, interrupted call made for the same object.

        Raises:
            Stalled: `NameConflict`, somebody else has a row of this name.
            Waiting: `VaultUnavailable`.
        """
        row_id = await self._database.new_row_id()
        data_key, mac_key = os.urandom(KEY_BYTES), os.urandom(KEY_BYTES)
        row = ConnectorRow(
            id=row_id,
            owner=owner,
            name=name,
            display_name=display_name,
            type=type,
            category=category,
            object_uid=object_uid,
            deleted_at=None,
            serving_version=None,
            last_version=0,
            config={},
            config_mac=None,
            secret_mac=None,
            secret_name=None,
            revoked=False,
            held=None,
            forced=False,
            handled_rollback_at=None,
            deletion_policy="Delete",
            purge_at=None,
            pending=None,
            observed=None,
            revision=random_tokens.token_hex(16),
            wrapped_keys=self.wrapping.wrap(data_key + mac_key, bound(row_id, "keys")),
        )
        row = replace(row, row_mac=row_mac(mac_key, row))
        moment = now()
        values = {
            "id": row_id,
            "org": owner.org,
            "project": owner.project,
            "name": name,
            "display_name": display_name,
            "type": type,
            "category": category,
            "config": {},
            "managed_by": OPERATOR,
            "cluster_id": owner.cluster_id,
            "namespace_uid": owner.namespace_uid,
            "object_uid": object_uid,
            "last_version": 0,
            "revoked": False,
            "wrapped_keys": row.wrapped_keys,
            "row_mac": row.row_mac,
            "revision": row.revision,
            "created_at": moment,
            "updated_at": moment,
        }
        try:
            await self._database.apply(Change(_INSERT_ROW, values), _audit("connector.created", row, {"type": type}))
        except IntegrityError:
            holder = await self._holder(row)
            if holder is not None and _is_same_object(holder, row):
                return holder
            raise _name_conflict(row, holder) from None
        self._mac_keys[row_id] = mac_key
        return row

    async def update(self, row: ConnectorRow, *, audit: str | None = None, **changes: Any) -> ConnectorRow:
        """A row with some fields changed, as it now is; `audit` names what is written to the audit log.

        Raises:
            RowChanged: it is not as it was read.
            Stalled: `NameConflict`, it cannot come back under its name.
            Waiting: `VaultUnavailable`.
        """
        changed = replace(row, **changes, revision=random_tokens.token_hex(16))
        values = {**changes, "revision": changed.revision, "updated_at": now()}
        if _MACED & changes.keys():
            changed = replace(changed, row_mac=row_mac(self._mac_key(row), changed))
            values["row_mac"] = changed.row_mac
        await self._swap(row, values, *([_audit(audit, row, {})] if audit is not None else ()))
        return changed

    async def move(self, row: ConnectorRow, owner: Owner, *, name: str, audit: str, **changes: Any) -> ConnectorRow:
        """A row under another owner and name, with its MAC made anew once the old one was found right.

        Raises:
            RowChanged: it is not as it was read.
            Stalled: `NameConflict`, somebody else has a row of this name there.
            Waiting: `VaultUnavailable`, the store cannot be used, or the row does not open.
        """
        mac_key = self._mac_key(row)
        moved = replace(row, owner=owner, name=name, **changes, revision=random_tokens.token_hex(16))
        moved = replace(moved, row_mac=row_mac(mac_key, moved))
        values = {
            **changes,
            "cluster_id": owner.cluster_id or None,
            "namespace_uid": owner.namespace_uid or None,
            "org": owner.org,
            "project": owner.project,
            "name": name,
            "row_mac": moved.row_mac,
            "revision": moved.revision,
            "updated_at": now(),
        }
        before = {"cluster": row.owner.cluster_id, "name": row.name, "managed_by": row.managed_by}
        await self._swap(row, values, _audit(audit, moved, {"before": before}), place=moved)
        return moved

    async def commit(
        self,
        row: ConnectorRow,
        *,
        config: Mapping[str, Any],
        tuning: frozenset[str],
        secrets: Mapping[str, bytes],
        config_mac: str,
        secret_mac: str,
        secret_name: str | None,
        ca: bytes | None,
        test_status: TestStatus,
        reason: str,
        restored_from: int | None = None,
        version_floor: int = 0,
        dropped: Sequence[int] = (),
        at: datetime | None = None,
        **changes: Any,
    ) -> ConnectorRow:
        """Make a config and its secret values a version, and make that version serve: one transaction.

        `config` is clean, `tuning` names those of its fields that are no part of a version, and the number is one
        more than the greatest of the row's and `version_floor`. The versions that `dropped` names go with it.

        Raises:
            RowChanged: the row is not as it was read; nothing is written.
            Stalled: `NameConflict`, it cannot come back under its name.
            Waiting: `VaultUnavailable`, the store cannot be used, or the row does not open.
        """
        number = max(row.last_version, version_floor) + 1
        mac_key = self._mac_key(row)
        kept_ca = _text(ca) if ca is not None else None
        bound_to = bound_version(row.id, number, config, tuning, kept_ca)
        blob = seal(self._keys_of(row)[0], DATA_KEY_ID, packed(secrets), bound_to)
        fields = {
            "config": dict(config),
            "config_mac": config_mac,
            "secret_mac": secret_mac,
            "secret_name": secret_name,
            "serving_version": number,
            "last_version": number,
            **changes,
        }
        changed = replace(row, **fields, revision=random_tokens.token_hex(16))
        changed = replace(changed, row_mac=row_mac(mac_key, changed))
        moment = at or now()
        values = {
            **fields,
            "connection_secrets_enc": blob,
            "row_mac": changed.row_mac,
            "revision": changed.revision,
            "updated_at": moment,
        }
        version = {
            "connector_id": row.id,
            "version": number,
            "config": dict(config),
            "secrets_enc": blob,
            "ca": kept_ca,
            "secret_mac": secret_mac,
            "test_status": test_status,
            "reason": reason,
            "restored_from": restored_from,
            "created_at": moment,
        }
        detail = {"version": number, "test_status": test_status}
        if restored_from is not None:
            detail["restored_from"] = restored_from
        drops = [Change(_DROP_VERSION, {"row_id": row.id, "number": each}) for each in dropped]
        audit = _audit(_action(row, test_status), row, detail)
        await self._swap(row, values, Change(_INSERT_VERSION, version), audit, *drops)
        return changed

    def take_in(
        self,
        found: Any,
        type_: ConnectorType[Any] | None,
        *,
        config: Mapping[str, Any],
        secrets: Mapping[str, bytes],
        reason: str,
    ) -> tuple[Change, ...]:
        """What gives a row without keys, which somebody else keeps, keys and a first version that serves.

        Nothing is written: the changes belong in the transaction that read `found` and locked it, because its keeper's
        writes change no `revision`. `config` is clean; `type_` None is a type that is not known here.

        Raises:
            Waiting: `VaultUnavailable`, the vault is not open.
        """
        data_key, mac_key = os.urandom(KEY_BYTES), os.urandom(KEY_BYTES)
        row = replace(_row(found), wrapped_keys=self.wrapping.wrap(data_key + mac_key, bound(found.id, "keys")))
        row = replace(row, row_mac=row_mac(mac_key, row))
        self._mac_keys[row.id] = mac_key
        number = row.last_version + 1
        fields: dict[str, Any] = {
            "config": dict(config),
            "config_mac": content.config_mac(self, row, type_, config, None),
            "secret_mac": content.secret_mac(self, row, secrets),
            "serving_version": number,
            "last_version": number,
        }
        row = replace(row, **fields)
        tuning = marked(type_.config, Mark.TUNING) if type_ is not None else frozenset()
        blob = seal(data_key, DATA_KEY_ID, packed(secrets), bound_version(row.id, number, config, tuning, None))
        values = {
            **fields,
            "connection_secrets_enc": blob,
            "wrapped_keys": row.wrapped_keys,
            "row_mac": row_mac(mac_key, row),
            "revision": random_tokens.token_hex(16),
        }
        version = {
            "connector_id": row.id,
            "version": number,
            "config": fields["config"],
            "secrets_enc": blob,
            "secret_mac": row.secret_mac,
            "test_status": "skipped",
            "reason": reason,
            "created_at": now(),
        }
        return (
            Change(_update(tuple(values)), {**values, "row_id": row.id, "was": row.revision}, meets=True),
            Change(_INSERT_VERSION, version),
            _audit("connector.taken_in", row, {"version": number}),
        )

    async def serving(self, row: ConnectorRow, tuning: frozenset[str]) -> Version:
        """The version that serves, opened; as `version`."""
        version = await self.version(row, row.serving_version or 0, tuning)
        if version is None:
            raise RowChanged
        return version

    async def version(self, row: ConnectorRow, number: int, tuning: frozenset[str]) -> Version | None:
        """A version, opened; None where it is not kept. `tuning` names the type's tuning fields.

        Raises:
            RowChanged: the row is not as it was read.
            Waiting: `VaultUnavailable`, it does not open: it was changed by hand, or its key is not given.
        """

        def read(connection: Connection) -> tuple[Any, Any]:
            return (
                connection.execute(_ROW, {"row_id": row.id}).one_or_none(),
                connection.execute(_VERSION, {"row_id": row.id, "number": number}).one_or_none(),
            )

        current, version = await self._database.read(read)
        if current is None or current.revision != row.revision:
            raise RowChanged
        if version is None:
            return None
        current_row = _row(current)
        self._mac_key(current_row)
        # What serves is opened by the row's own config: who edits a host there with SQL opens nothing.
        config = current.config if number == row.serving_version else version.config
        try:
            bound_to = bound_version(row.id, version.version, config, tuning, version.ca)
            opened = unseal(self._keys_of(current_row)[0], version.secrets_enc, bound_to)
        except DoesNotOpen as error:
            raise _tampered(row.id, error) from None
        ca = version.ca.encode() if version.ca is not None else None
        return Version(version.version, config, unpacked(opened), ca)

    async def history(self, row_id: str) -> list[VersionInfo]:
        """What may be shown of each version, newest first."""
        found = await self._database.read(lambda connection: connection.execute(_HISTORY, {"row_id": row_id}).all())
        return [_version_info(each) for each in found]

    async def histories(self, cluster_id: str) -> dict[str, tuple[VersionInfo, ...]]:
        """The same of every row of a cluster, by the row's id.

        Raises:
            Waiting: `VaultUnavailable`, the store cannot be used.
        """
        found = await self._database.read(
            lambda connection: connection.execute(_HISTORIES, {"cluster": cluster_id}).all()
        )
        return {
            row_id: tuple(map(_version_info, versions))
            for row_id, versions in itertools.groupby(found, key=lambda each: each.connector_id)
        }

    def opens(self, row: ConnectorRow) -> bool:
        """Whether a row's keys can be used."""
        try:
            self._mac_key(row)
        except Waiting:
            return False
        return True

    def mac(self, row: ConnectorRow, purpose: str, data: bytes) -> str:
        """A MAC of some data under the row's own key, in hexadecimal: says whether it is the same, and nothing else.

        Raises:
            Waiting: `VaultUnavailable`, the row does not open.
        """
        return keyed(self._mac_key(row), row.id, purpose, data)

    def refusal_mac(self, data: bytes) -> str:
        """A MAC that is the same for all connectors of an install; see `WrappingKeys.refusal_mac`."""
        return self.wrapping.refusal_mac(data)

    # --- keys ------------------------------------------------------------------------------------------------------

    @property
    def database(self) -> Database:
        """The store that it is in."""
        return self._database

    @property
    def closed(self) -> Waiting:
        """Why the vault is not open: what the last try to open it came to."""
        return Waiting(self._closed.reason, self._closed.message)

    @property
    def wrapping(self) -> WrappingKeys:
        """The wrapping keys.

        Raises:
            Waiting: `VaultUnavailable`, the vault is not open.
        """
        if self._keys is None:
            raise self.closed
        return self._keys

    def _admit(self, connection: Connection) -> WrappingKeys:
        """Take the install's id, or make it; a new key is let in only beside one that is known."""
        found = connection.execute(select(install).with_for_update()).one_or_none()
        install_id = found.install_id if found is not None else str(uuid.uuid4())
        keys = self._keyring.bind(install_id)
        if found is None:
            checks = {keys.active_id: keys.check_value()}
            connection.execute(insert(install), {"one": 1, "install_id": install_id, "checks": checks})
            return keys
        opened = keys.admitted(found.checks)
        if not opened:
            raise Waiting(
                Reason.VAULT_UNAVAILABLE,
                "the vault was sealed with another secret than the one that is given: give that one beside it "
                "with --older-secret-files; where it is lost: honeyframe vault reset --from-secrets",
            )
        if keys.active_id not in opened:
            checks = {**found.checks, keys.active_id: keys.check_value()}
            connection.execute(update(install), {"checks": checks})
        return keys

    def _keys_of(self, row: ConnectorRow) -> tuple[bytes, bytes]:
        try:
            both = self.wrapping.unwrap(row.wrapped_keys, bound(row.id, "keys"))
        except DoesNotOpen as error:
            raise _tampered(row.id, error) from None
        return both[:KEY_BYTES], both[KEY_BYTES:]

    def _mac_key(self, row: ConnectorRow) -> bytes:
        """The row's MAC key, once the row's own MAC was found right: what was changed by hand is never sealed anew."""
        key = self._mac_keys.get(row.id)
        if key is None or not _has_mac(row, key):  # another process may have given the row other keys
            key = self._keys_of(row)[1]
            if not _has_mac(row, key):
                raise _tampered(row.id, DoesNotOpen("its MAC does not match"))
            self._mac_keys[row.id] = key
        return key

    # --- rows ------------------------------------------------------------------------------------------------------

    def _believed(self, row: ConnectorRow) -> ConnectorRow:
        try:
            self._mac_key(row)
        except Waiting as error:
            logger.error("the vault: %s", error.message)  # noqa: TRY400 - the sentence is what helps
            return replace(row, observed=None)
        return row

    async def _swap(
        self, row: ConnectorRow, values: Mapping[str, Any], *more: Change, place: ConnectorRow | None = None
    ) -> None:
        """Compare-and-set on the row's revision, with more in the same transaction; `place` is where it moves to."""
        swap = Change(_update(tuple(values)), {**values, "row_id": row.id, "was": row.revision}, meets=True)
        try:
            await self._database.apply(swap, *more)
        except Missed:
            raise RowChanged from None
        except IntegrityError:
            raise _name_conflict(place or row, await self._holder(place or row)) from None

    async def _holder(self, row: ConnectorRow) -> ConnectorRow | None:
        """Who has the name of a row now; the platform's own rows are no exception."""
        key = {"org": row.owner.org, "project": row.owner.project, "name": row.name}
        found = await self._database.read(lambda connection: connection.execute(_HOLDER, key).one_or_none())
        return _row(found) if found is not None else None


def _version_info(found: Any) -> VersionInfo:
    return VersionInfo(*(getattr(found, name) for name in _SHOWN_COLUMNS))


def _action(row: ConnectorRow, test_status: TestStatus) -> str:
    by_status = {"failed": "connector.forced", "rollback": "connector.rolled_back"}
    first = "connector.rotated" if row.serving_version is not None else "connector.accepted"
    return by_status.get(test_status, first)


def _is_same_object(holder: ConnectorRow, row: ConnectorRow) -> bool:
    return (holder.owner, holder.object_uid, holder.type) == (row.owner, row.object_uid, row.type)


def _name_conflict(row: ConnectorRow, holder: ConnectorRow | None) -> Stalled | Waiting:
    owner = row.owner
    if holder is None or (holder.id == row.id and holder.revision != row.revision):  # it went meanwhile
        return RowChanged()
    if holder.id == row.id:
        return _tampered(row.id, DoesNotOpen("a version is kept whose number is above its last_version"))
    do = "use another metadata.name, or delete the other one"
    if holder.managed_by != OPERATOR:
        whose = "the platform itself keeps it"
        do = (
            f'to take it over, give this Connector the annotation {ADOPT_ANNOTATION}: "{holder.id}" and a Secret with '
            "the values that serve; or use another metadata.name"
        )
    elif holder.owner.cluster_id != owner.cluster_id:
        whose = f"cluster {holder.owner.cluster_id} keeps it"
        do = (
            "if this cluster takes that one's place, run in the operator's pod honeyframe vault claim --from-cluster "
            f"{holder.owner.cluster_id}; or use another metadata.name"
        )
    elif not holder.owner.namespace_uid:
        return TryAgain(Reason.PROGRESSING, f"row {holder.id} was handed over a moment ago", retry_after=2.0)
    elif holder.owner.namespace_uid != owner.namespace_uid:
        whose = f"another namespace of this cluster (uid {holder.owner.namespace_uid}) keeps it"
    else:
        whose = f"this namespace keeps it, for another object (row {holder.id})"
    return Stalled(
        Reason.NAME_CONFLICT,
        f"org {owner.org}, project {owner.project} has a connector {row.name} already, and {whose}: {do}",
    )


_UPDATES: dict[tuple[str, ...], Any] = {}


def _update(columns: tuple[str, ...]) -> Any:
    """The statement for a set of columns, built once: building costs more than running it."""
    if columns not in _UPDATES:
        _UPDATES[columns] = (
            update(data_connectors)
            .where(data_connectors.c.id == bindparam("row_id"), data_connectors.c.revision == bindparam("was"))
            .values({column: bindparam(column) for column in columns})
        )
    return _UPDATES[columns]


def _audit(action: str, row: ConnectorRow, detail: Mapping[str, Any]) -> Change:
    subject = f"{row.owner.org}/{row.owner.project}/{row.name}"
    entry = {"at": now(), "action": action, "subject": subject, "detail": {"connector_id": row.id, **detail}}
    return Change(_INSERT_AUDIT, entry)


def _text(ca: bytes) -> str:
    try:
        return ca.decode()
    except UnicodeDecodeError:
        raise Stalled(
            Reason.CA_NOT_FOUND, "the CA is not UTF-8 text: give certificates in PEM, without other bytes in them"
        ) from None


def _has_mac(row: ConnectorRow, key: bytes) -> bool:
    return hmac.compare_digest(row.row_mac, row_mac(key, row))


def _tampered(row_id: str, error: DoesNotOpen) -> Tampered:
    return Tampered(
        Reason.VAULT_UNAVAILABLE,
        f"connector {row_id} does not open: {error}; put the row back as it was, or give the older secret "
        "with --older-secret-files",
    )
