"""What of a connector is compared: one keyed MAC of its declared config, one of its secret values.

Who reconciles and who takes a row of an older install in must come to the same MACs, or a Connector that adopts the
row would rotate a credential that has not changed.
"""

import hashlib
from collections.abc import Mapping
from typing import Any, Protocol

import orjson

from honeyframe_connectors.connector_type import ConnectorType, Mark, marked
from honeyframe_connectors.vault.rows import ConnectorRow


class Macs(Protocol):
    """What makes a MAC under a row's own key: the vault."""

    def mac(self, row: ConnectorRow, purpose: str, data: bytes) -> str:
        """In hexadecimal."""
        ...


def config_mac(
    vault: Macs, row: ConnectorRow, type_: ConnectorType[Any] | None, declared: Mapping[str, Any], ca: bytes | None
) -> str:
    """Of the fields that were written, without tuning, and of the CA by content.

    `type_` None is a type that is not known here: all its fields count.

    Raises:
        Waiting: `VaultUnavailable`, the row does not open.
    """
    tuning = marked(type_.config, Mark.TUNING) if type_ is not None else frozenset()
    untuned = {key: value for key, value in declared.items() if key not in tuning}
    trust = hashlib.sha256(ca).hexdigest() if ca else None
    return vault.mac(row, "config", _canonical([untuned, trust]))


def secret_mac(vault: Macs, row: ConnectorRow, values: Mapping[str, bytes]) -> str:
    """Of the secret values, with everything that came from the Secret.

    Raises:
        Waiting: `VaultUnavailable`, the row does not open.
    """
    return vault.mac(row, "secret", _canonical(sorted((key, value.hex()) for key, value in values.items())))


def held_mac(vault: Macs, row: ConnectorRow, type_: ConnectorType[Any] | None, values: Mapping[str, bytes]) -> str:
    """Of the values that a rollback can hold back.

    Secret fields alone: no other key or account beside them lets the same values in.

    Raises:
        Waiting: `VaultUnavailable`, the row does not open.
    """
    secret = marked(type_.config, Mark.SECRET) if type_ is not None else frozenset()
    chosen = {name: value for name, value in values.items() if name in secret} or values
    return vault.mac(row, "held", _canonical(sorted((name, value.hex()) for name, value in chosen.items())))


def _canonical(value: Any) -> bytes:
    """JSON that is the same for the same value."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)
