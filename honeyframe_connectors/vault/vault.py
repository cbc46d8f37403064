"""The vault: a row a connector, a row a version, all secret values sealed.

Each connector has a data key and a MAC key of its own, wrapped by a key that is derived from the platform's secret.
A version's blob is bound to its row, number and clean config; the row's place and what serves are under a MAC.
Every write is a compare-and-set on the row's random revision, in one transaction.
"""

import base64
import hashlib
import hmac
import os
import secrets as random_tokens
import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import orjson
from sqlalchemy import Connection, bindparam, insert, select, update
from sqlalchemy.exc import IntegrityError

from honeyframe_connectors.api.kinds import now
from honeyframe_connectors.errors import Reason, Stalled, Waiting
from honeyframe_connectors.store.database import Database
from honeyframe_connectors.store.tables import audit_log, connector_secret_history, data_connectors, install
from honeyframe_connectors.vault.cipher import KEY_BYTES, DoesNotOpen, seal, unseal
from honeyframe_connectors.vault.keyring import Keyring, WrappingKeys
from honeyframe_connectors.vault.rows import ConnectorRow, Owner, Version, VersionInfo

OPERATOR = "operator"
_DATA_KEY_ID = bytes(8)
"""A version's blob is sealed with its connector's own data key, which has no name."""
_CHECK = b"honeyframe vault check value"

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
_HISTORY = (
    select(connector_secret_history)
    .where(connector_secret_history.c.connector_id == bindparam("row_id"))
    .order_by(connector_secret_history.c.version.desc())
)
_INSERT_ROW = insert(data_connectors)
_INSERT_VERSION = insert(connector_secret_history)
_INSERT_AUDIT = insert(audit_log)
_MACED = frozenset({"serving_version"})


class RowChanged(Waiting):
    """Somebody else wrote the row since it was read: read it again, and decide again."""

    def __init__(self) -> None:
        super().__init__(Reason.PROGRESSING, "the connector's row was changed by someone else", retry_after=0.05)


class Vault:
    """Connectors and their versions in one metadata store. Opened before it is used."""

    def __init__(self, database: Database, keyring: Keyring) -> None:
        self._database = database
        self._keyring = keyring
        self._keys: WrappingKeys | None = None
        self._mac_keys: dict[str, bytes] = {}

    async def open(self) -> None:
        """Reach the store, and have the active key admitted. Does nothing once it worked.

        Raises:
            Waiting: `VaultUnavailable`: the store does not answer, or does not know the active key and no older key
                that it knows is given beside it.
        """
        await self._database.open()
        if self._keys is None:
            self._keys = await self._database.write(self._admit)

    @property
    def key_id(self) -> str:
        """The id of the active wrapping key."""
        return self._wrapping.active_id

    async def rows(self, cluster_id: str) -> list[ConnectorRow]:
        """Every row of a cluster, deleted ones too.

        Raises:
            Waiting: `VaultUnavailable`, one does not open: it was changed by hand, or its key is not given.
        """
        found = await self._database.read(lambda connection: connection.execute(_ROWS, {"cluster": cluster_id}).all())
        return [self._row(each) for each in found]

    async def load(self, row_id: str) -> ConnectorRow | None:
        """A row as it is now; None where it is not there any more."""
        found = await self._database.read(lambda connection: connection.execute(_ROW, {"row_id": row_id}).one_or_none())
        return self._row(found) if found is not None else None

    async def create(
        self, owner: Owner, *, name: str, display_name: str, type: str, category: str, object_uid: str  # noqa: A002
    ) -> ConnectorRow:
        """A new row without a version.

        Raises:
            Stalled: `NameConflict`, another owner has a row of this name.
        """
        row_id = str(uuid.uuid4())
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
            pending=None,
            observed=None,
            revision=random_tokens.token_hex(16),
            wrapped_keys=self._wrapping.wrap(data_key + mac_key, _bound(row_id, "keys")),
        )
        self._mac_keys[row_id] = mac_key
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
            "row_mac": _row_mac(mac_key, row),
            "revision": row.revision,
            "created_at": moment,
            "updated_at": moment,
        }
        audit = _audit("connector.created", row, {"type": type})

        def write(connection: Connection) -> None:
            connection.execute(_INSERT_ROW, values)
            connection.execute(_INSERT_AUDIT, audit)

        try:
            await self._database.write(write)
        except IntegrityError:
            raise await self._name_conflict(row) from None
        return row

    async def update(self, row: ConnectorRow, *, audit: str | None = None, **changes: Any) -> ConnectorRow:
        """A row with some fields changed, as it now is; `audit` names what is written to the audit log.

        Raises:
            RowChanged: it is not as it was read.
            Stalled: `NameConflict`, it cannot come back under its name.
        """
        changed = replace(row, **changes, revision=random_tokens.token_hex(16))
        values = {**changes, "revision": changed.revision, "updated_at": now()}
        if _MACED & changes.keys():
            values["row_mac"] = _row_mac(self._mac_key(row), changed)
        statement = _update(tuple(values))

        def write(connection: Connection) -> None:
            _swap(connection, statement, row, values)
            if audit is not None:
                connection.execute(_INSERT_AUDIT, _audit(audit, row, {}))

        try:
            await self._database.write(write)
        except IntegrityError:
            raise await self._name_conflict(row) from None
        return changed

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
        test_status: Literal["passed", "skipped"],
        reason: str,
        version_floor: int = 0,
        **changes: Any,
    ) -> ConnectorRow:
        """Make a config and its secret values a version, and make that version serve: one transaction.

        `config` is clean, `tuning` names those of its fields that are no part of a version, and the number is one
        more than the greatest of the row's and `version_floor`.

        Raises:
            RowChanged: the row is not as it was read; nothing is written.
            Stalled: `NameConflict`, it cannot come back under its name.
        """
        number = max(row.last_version, version_floor) + 1
        data_key, mac_key = self._keys_of(row)
        blob = seal(data_key, _DATA_KEY_ID, _packed(secrets), _bound_version(row.id, number, config, tuning))
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
        moment = now()
        values = {
            **fields,
            "connection_secrets_enc": blob,
            "row_mac": _row_mac(mac_key, changed),
            "revision": changed.revision,
            "updated_at": moment,
        }
        version = {
            "connector_id": row.id,
            "version": number,
            "config": dict(config),
            "secrets_enc": blob,
            "ca": ca.decode() if ca is not None else None,
            "test_status": test_status,
            "reason": reason,
            "created_at": moment,
        }
        action = "connector.rotated" if row.serving_version is not None else "connector.accepted"
        audit = _audit(action, row, {"version": number, "test_status": test_status})
        statement = _update(tuple(values))

        def write(connection: Connection) -> None:
            _swap(connection, statement, row, values)
            connection.execute(_INSERT_VERSION, version)
            connection.execute(_INSERT_AUDIT, audit)

        try:
            await self._database.write(write)
        except IntegrityError:
            raise await self._name_conflict(row) from None
        return changed

    async def serving(self, row: ConnectorRow, tuning: frozenset[str]) -> Version:
        """The version that serves, opened. `tuning` names the type's tuning fields.

        Raises:
            RowChanged: the row is not as it was read.
            Waiting: `VaultUnavailable`, it does not open: it was changed by hand, or its key is not given.
        """

        def read(connection: Connection) -> tuple[Any, Any]:
            return (
                connection.execute(_ROW, {"row_id": row.id}).one_or_none(),
                connection.execute(_VERSION, {"row_id": row.id, "number": row.serving_version}).one_or_none(),
            )

        current, version = await self._database.read(read)
        if current is None or version is None or current.revision != row.revision:
            raise RowChanged
        self._row(current)
        try:
            bound = _bound_version(row.id, version.version, current.config, tuning)
            packed = unseal(self._keys_of(row)[0], version.secrets_enc, bound)
        except DoesNotOpen as error:
            raise _tampered(row.id, error) from None
        ca = version.ca.encode() if version.ca is not None else None
        return Version(version.version, current.config, _unpacked(packed), ca)

    async def history(self, row_id: str) -> list[VersionInfo]:
        """What may be shown of each version, newest first."""
        found = await self._database.read(lambda connection: connection.execute(_HISTORY, {"row_id": row_id}).all())
        return [
            VersionInfo(each.version, each.created_at, each.test_status, each.reason, each.restored_from)
            for each in found
        ]

    def mac(self, row: ConnectorRow, purpose: str, data: bytes) -> str:
        """A MAC of some data under the row's own key, in hexadecimal: says whether it is the same, and nothing else."""
        return hmac.digest(self._mac_key(row), _bound(row.id, purpose) + data, "sha256").hex()

    # --- keys ------------------------------------------------------------------------------------------------------

    @property
    def _wrapping(self) -> WrappingKeys:
        if self._keys is None:
            raise Waiting(Reason.VAULT_UNAVAILABLE, "the vault is not open yet")
        return self._keys

    def _admit(self, connection: Connection) -> WrappingKeys:
        """Take the install's id, or make it; a new key is let in only beside one that is known."""
        found = connection.execute(select(install).with_for_update()).one_or_none()
        install_id = found.install_id if found is not None else str(uuid.uuid4())
        keys = self._keyring.bind(install_id)
        bound = _bound(install_id, "check")
        if found is None:
            checks = {keys.active_id: base64.b64encode(keys.wrap(_CHECK, bound)).decode()}
            connection.execute(insert(install), {"one": 1, "install_id": install_id, "checks": checks})
            return keys
        opened = [key_id for key_id in keys if key_id in found.checks and _opens(keys, found.checks[key_id], bound)]
        if not opened:
            raise Waiting(
                Reason.VAULT_UNAVAILABLE,
                "the vault was sealed with another secret than the one that is given: give that one beside it "
                "with --older-secret-files",
            )
        if keys.active_id not in opened:
            checks = {**found.checks, keys.active_id: base64.b64encode(keys.wrap(_CHECK, bound)).decode()}
            connection.execute(update(install), {"checks": checks})
        return keys

    def _keys_of(self, row: ConnectorRow) -> tuple[bytes, bytes]:
        try:
            both = self._wrapping.unwrap(row.wrapped_keys, _bound(row.id, "keys"))
        except DoesNotOpen as error:
            raise _tampered(row.id, error) from None
        return both[:KEY_BYTES], both[KEY_BYTES:]

    def _mac_key(self, row: ConnectorRow) -> bytes:
        if row.id not in self._mac_keys:
            self._mac_keys[row.id] = self._keys_of(row)[1]
        return self._mac_keys[row.id]

    # --- rows ------------------------------------------------------------------------------------------------------

    def _row(self, found: Any) -> ConnectorRow:
        row = ConnectorRow(
            id=found.id,
            owner=Owner(found.cluster_id, found.namespace_uid, found.org, found.project),
            name=found.name,
            display_name=found.display_name,
            type=found.type,
            category=found.category,
            object_uid=found.object_uid,
            deleted_at=found.deleted_at,
            serving_version=found.serving_version,
            last_version=found.last_version,
            config=found.config,
            config_mac=found.config_mac,
            secret_mac=found.secret_mac,
            secret_name=found.secret_name,
            revoked=found.revoked,
            pending=found.pending,
            observed=found.observed,
            revision=found.revision,
            wrapped_keys=found.wrapped_keys,
        )
        if not hmac.compare_digest(found.row_mac or "", _row_mac(self._mac_key(row), row)):
            raise _tampered(row.id, DoesNotOpen("its MAC does not match"))
        return row

    async def _name_conflict(self, row: ConnectorRow) -> Stalled | RowChanged:
        owner = row.owner
        key = {"org": owner.org, "project": owner.project, "name": row.name}
        holder = await self._database.read(lambda connection: connection.execute(_HOLDER, key).one_or_none())
        if holder is None:
            return RowChanged()
        if holder.managed_by != OPERATOR:
            whose = "the platform itself keeps it"
        elif holder.cluster_id != owner.cluster_id:
            whose = f"cluster {holder.cluster_id} keeps it"
        else:
            whose = f"another namespace of this cluster (uid {holder.namespace_uid}) keeps it"
        return Stalled(
            Reason.NAME_CONFLICT,
            f"org {owner.org}, project {owner.project} has a connector {row.name} already, and {whose}: "
            "use another metadata.name, or delete the other one",
        )


def _swap(connection: Connection, statement: Any, row: ConnectorRow, values: Mapping[str, Any]) -> None:
    if connection.execute(statement, {**values, "row_id": row.id, "was": row.revision}).rowcount != 1:
        raise RowChanged


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


def _audit(action: str, row: ConnectorRow, detail: Mapping[str, Any]) -> dict[str, Any]:
    subject = f"{row.owner.org}/{row.owner.project}/{row.name}"
    return {"at": now(), "action": action, "subject": subject, "detail": {"connector_id": row.id, **detail}}


def _row_mac(key: bytes, row: ConnectorRow) -> str:
    owner = row.owner
    place = [row.id, owner.cluster_id, owner.namespace_uid, owner.org, owner.project, row.name, row.serving_version]
    return hmac.digest(key, _bound(row.id, "row") + orjson.dumps(place), "sha256").hex()


def _bound(owner_id: str, purpose: str) -> bytes:
    return f"honeyframe\0{purpose}\0{owner_id}\0".encode()


def _bound_version(row_id: str, number: int, config: Mapping[str, Any], tuning: frozenset[str]) -> bytes:
    fixed = {key: value for key, value in config.items() if key not in tuning}
    digest = hashlib.sha256(orjson.dumps(fixed, option=orjson.OPT_SORT_KEYS)).digest()
    return _bound(row_id, "version") + number.to_bytes(8) + digest


def _packed(secrets: Mapping[str, bytes]) -> bytes:
    return orjson.dumps(
        {key: base64.b64encode(value).decode() for key, value in secrets.items()}, option=orjson.OPT_SORT_KEYS
    )


def _unpacked(packed: bytes) -> dict[str, bytes]:
    return {key: base64.b64decode(value) for key, value in orjson.loads(packed).items()}


def _opens(keys: WrappingKeys, check: str, bound: bytes) -> bool:
    try:
        return keys.unwrap(base64.b64decode(check), bound) == _CHECK
    except DoesNotOpen:
        return False


def _tampered(row_id: str, error: DoesNotOpen) -> Waiting:
    return Waiting(
        Reason.VAULT_UNAVAILABLE,
        f"connector {row_id} does not open: {error}; put the row back as it was, or give the older secret "
        "with --older-secret-files",
    )
