"""The wrapping keys: derived from the platform's secret, an active one, and older ones that open what they sealed."""

import base64
import hmac
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any, Final

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from honeyframe_connectors.errors import Reason, Stalled
from honeyframe_connectors.vault.binding import bound
from honeyframe_connectors.vault.cipher import KEY_BYTES, KEY_ID_BYTES, DoesNotOpen, key_id_of, seal, unseal

MINIMUM_BYTES: Final = 32
_CHECK: Final = b"honeyframe vault check value"
MINIMUM_DISTINCT: Final = 8
"""Different bytes that a secret must have, and different steps from one to the next: random digits have more."""


class Keyring:
    """Secrets, not yet bound to an install. Nothing of them is ever shown."""

    def __init__(self, active: bytes, older: Sequence[bytes] = ()) -> None:
        """Take the secrets as they are.

        Raises:
            Stalled: `InvalidConfig`, one is too short or plainly not random.
        """
        for secret in (active, *older):
            _judge(secret)
        self._active = active
        self._older = tuple(older)

    @classmethod
    def read(cls, active: Path, older: Sequence[Path] = ()) -> "Keyring":
        """Take the secrets from files; newlines around them are the editor's, and no part of them.

        Raises:
            Stalled: `InvalidConfig`, a file cannot be read, or its secret cannot be used.
        """
        return cls(_content(active), [_content(path) for path in older])

    def __repr__(self) -> str:
        return f"Keyring(1 active, {len(self._older)} older)"

    def bind(self, install_id: str) -> "WrappingKeys":
        """The wrapping keys of one install."""
        return WrappingKeys(install_id, [_WrappingKey(secret, install_id) for secret in (self._active, *self._older)])


class _WrappingKey:
    __slots__ = ("id", "key", "refusals")

    def __init__(self, secret: bytes, install_id: str) -> None:
        self.key = _derive(secret, f"honeyframe vault wrapping key 1 {install_id}", KEY_BYTES)
        self.id = _derive(secret, f"honeyframe vault key id 1 {install_id}", KEY_ID_BYTES)
        self.refusals = _derive(secret, f"honeyframe login refusals 1 {install_id}", KEY_BYTES)


class WrappingKeys:
    """Seals with the active key, opens with whichever sealed it."""

    def __init__(self, install_id: str, keys: Sequence[_WrappingKey]) -> None:
        self._check_bound = bound(install_id, "check")
        self._active = keys[0]
        self._by_id = {key.id: key for key in keys}

    def __repr__(self) -> str:
        return f"WrappingKeys({', '.join(self)})"

    def __iter__(self) -> Iterator[str]:
        """The key ids, in hexadecimal, the active one first."""
        return (key_id.hex() for key_id in self._by_id)

    @property
    def active_id(self) -> str:
        """The id of the active key, in hexadecimal."""
        return self._active.id.hex()

    def wrap(self, plaintext: bytes, bound_to: bytes) -> bytes:
        """Seal with the active key."""
        return seal(self._active.key, self._active.id, plaintext, bound_to)

    def refusal_mac(self, data: bytes) -> str:
        """A MAC of a destination or of secret values, in hexadecimal: the same for all Connectors of an install.

        Under the active key only: where it is exchanged, what was refused is tried once more.
        """
        return hmac.new(self._active.refusals, data, "sha256").hexdigest()

    def unwrap(self, blob: bytes, bound_to: bytes) -> bytes:
        """Open with the key that the blob names.

        Raises:
            DoesNotOpen: that key is not here, or the blob was changed or moved.
        """
        key = self._by_id.get(key_id_of(blob))
        if key is None:
            raise DoesNotOpen(f"it was sealed with key {key_id_of(blob).hex()}, which is not given")
        return unseal(key.key, blob, bound_to)

    def check_value(self) -> str:
        """What `install.checks` keeps of the active key: only that key opens it."""
        return base64.b64encode(self.wrap(_CHECK, self._check_bound)).decode()

    def admitted(self, checks: Mapping[str, Any]) -> list[str]:
        """The ids of those of these keys that open their check value, the active one first."""
        return [key_id for key_id in self if key_id in checks and self._opens(checks[key_id])]

    def _opens(self, check: Any) -> bool:
        try:
            return self.unwrap(base64.b64decode(check), self._check_bound) == _CHECK
        except (DoesNotOpen, TypeError, ValueError):  # changed by hand, it need not be text or base64 either
            return False


def _derive(secret: bytes, purpose: str, length: int) -> bytes:
    return HKDF(algorithm=SHA256(), length=length, salt=None, info=purpose.encode()).derive(secret)


def _content(path: Path) -> bytes:
    try:
        return path.read_bytes().strip(b"\n")
    except OSError as error:
        raise Stalled(Reason.INVALID_CONFIG, f"the secret's file {path} cannot be read: {error.strerror}") from None


def _judge(secret: bytes) -> None:
    if len(secret) < MINIMUM_BYTES:
        raise Stalled(
            Reason.INVALID_CONFIG,
            f"the platform's secret has {len(secret)} bytes, and must have at least {MINIMUM_BYTES}: "
            "make one with `openssl rand -hex 32`",
        )
    if _is_plain(secret):
        raise Stalled(
            Reason.INVALID_CONFIG,
            "the platform's secret is plainly not random (few characters, a repeated piece or a sequence): "
            "make one with `openssl rand -hex 32`",
        )


def _is_plain(secret: bytes) -> bool:
    steps = {(after - before) % 256 for before, after in pairwise(secret)}
    periods = range(1, min(MINIMUM_BYTES, len(secret) // 2 + 1))
    repeats = any(secret[period:] == secret[:-period] for period in periods)
    return repeats or min(len(set(secret)), len(steps)) < MINIMUM_DISTINCT
