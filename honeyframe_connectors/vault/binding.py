"""The bytes that blobs are bound to and MACs are over, as `docs/reference/vault-format.md` has them."""

import base64
import hashlib
import hmac
from collections.abc import Mapping, Sequence
from typing import Any

import orjson

from honeyframe_connectors.vault.rows import ConnectorRow

_EXACT = 2**53
"""Up to here a number is the same integer on every database; beyond, it is hashed as the float it is near to."""


def bound(owner_id: str, purpose: str) -> bytes:
    """What a blob of an install or a connector is bound to."""
    return f"honeyframe\0{purpose}\0{owner_id}\0".encode()


def bound_version(row_id: str, number: int, config: Mapping[str, Any], tuning: frozenset[str], ca: str | None) -> bytes:
    """What a version's blob is bound to: its connector, number, clean config without tuning, and CA."""
    fixed = {key: _portable(value) for key, value in config.items() if key not in tuning}
    digest = hashlib.sha256(orjson.dumps(fixed, option=orjson.OPT_SORT_KEYS)).digest()
    trust = hashlib.sha256((ca or "").encode()).digest()
    return bound(row_id, "version") + number.to_bytes(8) + digest + trust


def keyed(key: bytes, row_id: str, purpose: str, data: bytes) -> str:
    """A connector's MAC of some data, in hexadecimal."""
    # hmac.digest() lets the interpreter's lock go for each of these few bytes, and a busy writer takes it.
    return hmac.new(key, bound(row_id, purpose) + data, "sha256").hexdigest()


def row_mac(key: bytes, row: ConnectorRow) -> str:
    """The MAC of whose a row is, its name and type, what serves and may not, and what is held."""
    return place_mac(key, place(row))


def place(row: ConnectorRow) -> list[Any]:
    """What of a row its MAC is over."""
    owner = row.owner
    return [
        row.id,
        owner.cluster_id,
        owner.namespace_uid,
        owner.org,
        owner.project,
        row.name,
        row.serving_version,
        row.held,
        row.type,
        row.config_mac,
        row.secret_mac,
        row.secret_name,
        row.revoked,
    ]


def place_mac(key: bytes, placed: Sequence[Any]) -> str:
    """The MAC of a row of which no more was read than what it is over."""
    return keyed(key, placed[0], "row", orjson.dumps(list(placed)))


def packed(secrets: Mapping[str, bytes]) -> bytes:
    """Secret values as they are sealed."""
    return orjson.dumps(
        {key: base64.b64encode(value).decode() for key, value in secrets.items()}, option=orjson.OPT_SORT_KEYS
    )


def unpacked(data: bytes) -> dict[str, bytes]:
    """Secret values as they were sealed."""
    return {key: base64.b64decode(value) for key, value in orjson.loads(data).items()}


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
