"""The vault: a row a connector, a row a version, all secret values sealed.

Each connector has a data key and a MAC key of its own, wrapped by a key that is derived from the platform's secret.
A version's blob is bound to its row, number, clean config and CA; the row's place and what serves are under a MAC.
Every write is a compare-and-set on the row's random revision, in one transaction.
"""

import base64
import hashlib
import hmac
import logging
import os
import secrets as random_tokens
import uuid
from collections.abc import Mapping
from dataclasses import replace
from typing import Any, Literal

import orjson
from sqlalchemy import Connection, bindparam, insert, select, update
from sqlalchemy.exc import IntegrityError

from honeyframe_connectors.api.kinds import ADOPT_ANNOTATION, now
from honeyframe_connectors.errors import Reason, Stalled, TryAgain, Waiting
from honeyframe_connectors.store.database import Change, Database, Missed
from honeyframe_connectors.store.tables import audit_log, connector_secret_history, data_connectors, install
from honeyframe_connectors.vault.cipher import KEY_BYTES, DoesNotOpen, seal, unseal
from honeyframe_connectors.vault.keyring import Keyring, WrappingKeys
from honeyframe_connectors.vault.rows import OPERATOR, ConnectorRow, Owner, Version, VersionInfo

logger = logging.getLogger(__name__)

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
_MACED = frozenset({"serving_version", "held"})
_EXACT = 2**53
"""Up to here a number is the same integer on every database; beyond, it is hashed as the float it is near to."""


class RowChanged(TryAgain):
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
        if self._keys is not None:
            return
        admitted: list[WrappingKeys] = []

        def admit(connection: Connection) -> None:
            admitted[:] = [self._admit(connection)]

        # With the store's opening: before anybody writes, and with no other process making the install's row too.
        await self._database.open(admit)
        if not admitted:
            await self._database.write(admit)
        self._keys = admitted[0]

    @property
    def key_id(self) -> str:
        """The id of the active wrapping key."""
        return self._wrapping.active_id

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
        found = await self._database.read(lambda connection: connection.execute(_ROW, {"row_id": row_id}).one_or_none())
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
            held=None,
            forced=False,
            handled_rollback_at=None,
            deletion_policy="Delete",
            purge_at=None,
            pending=None,
            observed=None,
            revision=random_tokens.token_hex(16),
            wrapped_keys=self._wrapping.wrap(data_key + mac_key, _bound(row_id, "keys")),
        )
        row = replace(row, row_mac=_row_mac(mac_key, row))
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
            changed = replace(changed, row_mac=_row_mac(self._mac_key(row), changed))
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
        moved = replace(moved, row_mac=_row_mac(mac_key, moved))
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
            Waiting: `VaultUnavailable`, the store cannot be used, or the row does not open.
        """
        number = max(row.last_version, version_floor) + 1
        mac_key = self._mac_key(row)
        kept_ca = _text(ca) if ca is not None else None
        bound = _bound_version(row.id, number, config, tuning, kept_ca)
        blob = seal(self._keys_of(row)[0], _DATA_KEY_ID, _packed(secrets), bound)
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
        changed = replace(changed, row_mac=_row_mac(mac_key, changed))
        moment = now()
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
            "created_at": moment,
        }
        action = "connector.rotated" if row.serving_version is not None else "connector.accepted"
        audit = _audit(action, row, {"version": number, "test_status": test_status})
        await self._swap(row, values, Change(_INSERT_VERSION, version), audit)
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
        current_row = _row(current)
        self._mac_key(current_row)
        try:
            bound = _bound_version(row.id, version.version, current.config, tuning, version.ca)
            packed = unseal(self._keys_of(current_row)[0], version.secrets_enc, bound)
        except DoesNotOpen as error:
            raise _tampered(row.id, error) from None
        ca = version.ca.encode() if version.ca is not None else None
        return Version(version.version, current.config, _unpacked(packed), ca)

    async def history(self, row_id: str) -> list[VersionInfo]:
        """What may be shown of each version, newest first."""
        found = await self._database.read(lambda connection: connection.execute(_HISTORY, {"row_id": row_id}).all())
        return [
            VersionInfo(
                each.version, each.created_at, each.test_status, each.reason, each.restored_from, each.secret_mac
            )
            for each in found
        ]

    def mac(self, row: ConnectorRow, purpose: str, data: bytes) -> str:
        """A MAC of some data under the row's own key, in hexadecimal: says whether it is the same, and nothing else.

        Raises:
            Waiting: `VaultUnavailable`, the row does not open.
        """
        return _hmac(self._mac_key(row), _bound(row.id, purpose) + data)

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
        """The row's MAC key, once the row's own MAC was found right: what was changed by hand is never sealed anew."""
        key = self._mac_keys.get(row.id)
        if key is None:
            key = self._keys_of(row)[1]
        if not hmac.compare_digest(row.row_mac, _row_mac(key, row)):
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


def _row(found: Any) -> ConnectorRow:
    return ConnectorRow(
        id=found.id,
        owner=Owner(found.cluster_id or "", found.namespace_uid or "", found.org, found.project),
        name=found.name,
        display_name=found.display_name,
        type=found.type,
        category=found.category,
        object_uid=found.object_uid or "",
        deleted_at=found.deleted_at,
        serving_version=found.serving_version,
        last_version=found.last_version,
        config=found.config,
        config_mac=found.config_mac,
        secret_mac=found.secret_mac,
        secret_name=found.secret_name,
        revoked=found.revoked,
        held=found.held,
        forced=found.forced,
        handled_rollback_at=found.handled_rollback_at,
        deletion_policy=found.deletion_policy,
        purge_at=found.purge_at,
        pending=found.pending,
        observed=found.observed,
        revision=found.revision,
        wrapped_keys=found.wrapped_keys or b"",
        row_mac=found.row_mac or "",
        managed_by=found.managed_by,
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


def _row_mac(key: bytes, row: ConnectorRow) -> str:
    owner = row.owner
    place = [
        row.id,
        owner.cluster_id,
        owner.namespace_uid,
        owner.org,
        owner.project,
        row.name,
        row.serving_version,
        row.held or False,
    ]
    return _hmac(key, _bound(row.id, "row") + orjson.dumps(place))


def _hmac(key: bytes, data: bytes) -> str:
    # hmac.digest() lets the interpreter's lock go for each of these few bytes, and a busy writer takes it.
    return hmac.new(key, data, "sha256").hexdigest()


def _bound(owner_id: str, purpose: str) -> bytes:
    return f"honeyframe\0{purpose}\0{owner_id}\0".encode()


def _bound_version(
    row_id: str, number: int, config: Mapping[str, Any], tuning: frozenset[str], ca: str | None
) -> bytes:
    fixed = {key: _portable(value) for key, value in config.items() if key not in tuning}
    digest = hashlib.sha256(orjson.dumps(fixed, option=orjson.OPT_SORT_KEYS)).digest()
    trust = hashlib.sha256((ca or "").encode()).digest()
    return _bound(row_id, "version") + number.to_bytes(8) + digest + trust


def _portable(value: Any) -> Any:
    """As every database gives it back: PostgreSQL's JSONB turns 1e16 into an integer and drops the sign of -0.0."""
    if isinstance(value, dict):
        return {key: _portable(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_portable(each) for each in value]
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        return value
    if abs(value) >= _EXACT:
        return float(value)
    return int(value) if value == int(value) else value


def _text(ca: bytes) -> str:
    try:
        return ca.decode()
    except UnicodeDecodeError:
        raise Stalled(
            Reason.CA_NOT_FOUND, "the CA is not UTF-8 text: give certificates in PEM, without other bytes in them"
        ) from None


def _packed(secrets: Mapping[str, bytes]) -> bytes:
    return orjson.dumps(
        {key: base64.b64encode(value).decode() for key, value in secrets.items()}, option=orjson.OPT_SORT_KEYS
    )


def _unpacked(packed: bytes) -> dict[str, bytes]:
    return {key: base64.b64decode(value) for key, value in orjson.loads(packed).items()}


def _opens(keys: WrappingKeys, check: str, bound: bytes) -> bool:
    try:
        return keys.unwrap(base64.b64decode(check), bound) == _CHECK
    except (DoesNotOpen, TypeError, ValueError):  # changed by hand, it need not be text or base64 either
        return False


def _tampered(row_id: str, error: DoesNotOpen) -> Waiting:
    return Waiting(
        Reason.VAULT_UNAVAILABLE,
        f"connector {row_id} does not open: {error}; put the row back as it was, or give the older secret "
        "with --older-secret-files",
    )
