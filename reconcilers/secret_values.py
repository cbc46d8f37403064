"""Which values a Connector takes from its Secret and its CA, and what is wrong with them."""

import re
from collections.abc import Mapping
from typing import Any

from honeyframe_connectors.api.kinds import CREDENTIALS_LABEL
from honeyframe_connectors.connector_type import ConnectorType, Mark, marked
from honeyframe_connectors.errors import Reason, Stalled, Waiting

_BULLETS = re.compile(rb"(?:\xe2\x80\xa2)+")
_CERTIFICATE = re.compile(rb"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)


def pick(
    type_: ConnectorType[Any], keys: Mapping[str, str], data: Mapping[str, bytes], secret: str
) -> dict[str, bytes]:
    """The values by field: those that `spec.secretRef.keys` names, and each secret field's own name where it is there.

    Raises:
        Waiting: `SecretKeyMissing`, for a key that is named or required and is not there, or is empty.
    """
    secret_fields = marked(type_.config, Mark.SECRET)
    wanted = {field: field for field in secret_fields if field in data and field not in keys} | dict(keys)
    values = {}
    for field, key in sorted(wanted.items()):
        if key not in data:
            raise _missing(secret, key, f"which field {field} of type {type_.name} is to come from, is not there", data)
        if not data[key]:
            raise _missing(secret, key, f"for field {field} of type {type_.name}, is empty", data)
        values[field] = data[key]
    for field in sorted(secret_fields - values.keys()):
        if type_.config.model_fields[field].is_required():
            raise _missing(secret, field, f"which type {type_.name} requires, is not there", data)
    return values


def sentinels(values: Mapping[str, bytes]) -> frozenset[str]:
    """The fields whose value is only bullets, as the platform shows a secret: what was there is kept."""
    return frozenset(name for name, value in values.items() if _BULLETS.fullmatch(value))


def nothing_to_keep(secret: str, name: str) -> Waiting:
    """The error of bullets where no version has a value."""
    return Waiting(
        Reason.SECRET_KEY_MISSING,
        f"Secret {secret} holds only bullets for field {name}, and no version has a value to keep: write the value",
    )


def certificates(data: Mapping[str, bytes], kind: str, name: str, key: str) -> bytes:
    """The CERTIFICATE blocks of a CA, and nothing else that may stand beside them.

    Raises:
        Waiting: `CANotFound`, where there is none.
    """
    blocks = _CERTIFICATE.findall(data.get(key, b""))
    if not blocks:
        raise Waiting(
            Reason.CA_NOT_FOUND,
            f"{kind} {name} holds no CERTIFICATE block under key {key}: put the PEM of the certificate authority "
            "there, or correct spec.caRef",
        )
    return b"\n".join(blocks) + b"\n"


def unlabelled(kind: str, namespace: str, name: str) -> Stalled:
    """The error of a Secret that did not opt in."""
    return Stalled(
        Reason.SECRET_NOT_LABELLED,
        f"{kind} {name} does not bear the label {CREDENTIALS_LABEL}=true, so its values are not read: "
        f"kubectl -n {namespace} label secret {name} {CREDENTIALS_LABEL}=true",
    )


def _missing(secret: str, key: str, what: str, data: Mapping[str, bytes]) -> Waiting:
    there = ", ".join(sorted(data)[:10]) or "none"
    return Waiting(
        Reason.SECRET_KEY_MISSING,
        f"key {key} of Secret {secret}, {what} (keys that are there: {there}): add it, or correct spec.secretRef.keys",
    )
