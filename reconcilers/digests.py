"""Digests of what is no secret, to tell whether it is the same."""

import hashlib
from collections.abc import Mapping
from typing import Any

import orjson


def canonical(value: Any) -> bytes:
    """JSON that is the same for the same value."""
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def status_digest(status: Mapping[str, Any]) -> str:
    """A digest of a status as it stands in the cluster."""
    return hashlib.blake2b(canonical(status), digest_size=16).hexdigest()


def applied(spec: Mapping[str, Any]) -> str:
    """A digest of the fields that decide what serves; no other field counts when suspended, `suspend` least of all."""
    parts = [spec.get("config"), spec.get("secretRef"), spec.get("caRef")]
    return hashlib.blake2b(canonical(parts), digest_size=16).hexdigest()
