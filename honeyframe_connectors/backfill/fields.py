"""Which fields of a platform's config are secret, as the type declares them, and how their values become bytes."""

import functools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, get_args, get_origin

import orjson
from pydantic import SecretBytes, SecretStr
from pydantic.fields import FieldInfo

from honeyframe_connectors.connector_type import ConnectorType, Mark, marks

_BULLETS: Final = re.compile("•+")


@dataclass(frozen=True, slots=True)
class Sealed:
    """The fields of a type whose values belong in the vault."""

    names: frozenset[str]
    mappings: frozenset[str] = frozenset()
    """Those of them in which each entry is a value of its own."""


@dataclass(frozen=True, slots=True)
class Split:
    """A config without its secret values, and these by field, or by dotted path where a field holds a mapping."""

    config: dict[str, Any]
    secrets: dict[str, bytes] = field(repr=False)
    masked: tuple[str, ...]
    """Fields that hold bullets only: the platform's mask was stored in place of the value."""


@functools.cache
def sealed_fields(type_: ConnectorType[Any]) -> Sealed:
    """What of a type belongs in the vault.

    The fields marked secret; and those that may come from the Secret and that the type never shows, as a webhook's URL
    and headers, in which older installs keep tokens.
    """
    infos = {name: info for name, info in type_.config.model_fields.items() if _is_sealed(info)}
    mappings = (name for name, info in infos.items() if get_origin(info.annotation) is dict)
    return Sealed(frozenset(infos), frozenset(mappings))


def split(config: Mapping[str, Any], sealed: Sealed) -> Split:
    """Take the values of the sealed fields out of a config; an empty one or null is none."""
    clean, secrets, masked = {}, {}, []
    for name, value in config.items():
        if name not in sealed.names:
            clean[name] = value
            continue
        for path, each in _values(name, value, sealed):
            if isinstance(each, str) and _BULLETS.fullmatch(each):
                masked.append(path)
            elif each is not None and each != "":
                secrets[path] = _bytes(each)
    return Split(clean, secrets, tuple(masked))


def _is_sealed(info: FieldInfo) -> bool:
    found = marks(info)
    return Mark.SECRET in found or (Mark.MAPPABLE in found and (not info.repr or _holds_secrets(info.annotation)))


def _holds_secrets(annotation: Any) -> bool:
    return annotation in (SecretStr, SecretBytes) or any(_holds_secrets(each) for each in get_args(annotation))


def _values(name: str, value: Any, sealed: Sealed) -> Iterator[tuple[str, Any]]:
    if name in sealed.mappings and isinstance(value, Mapping):
        yield from ((f"{name}.{entry}", each) for entry, each in value.items())
    else:
        yield name, value


def _bytes(value: Any) -> bytes:
    return value.encode() if isinstance(value, str) else orjson.dumps(value)
