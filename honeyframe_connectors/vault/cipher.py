"""AES-256-GCM with a header that says which format and which key. The bytes are in `docs/reference/vault-format.md`."""

import os
from typing import Final

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

MAGIC: Final = b"HFV\x01"
"""Format 1; the fourth byte is the version of the format."""
KEY_ID_BYTES: Final = 8
NONCE_BYTES: Final = 12
TAG_BYTES: Final = 16
HEADER_BYTES: Final = len(MAGIC) + KEY_ID_BYTES
KEY_BYTES: Final = 32
DATA_KEY_ID: Final = bytes(KEY_ID_BYTES)
"""A version's blob is sealed with its connector's own data key, which has no name."""


class DoesNotOpen(Exception):
    """A blob is not what was sealed: another key, another place, or changed."""


def seal(key: bytes, key_id: bytes, plaintext: bytes, bound_to: bytes) -> bytes:
    """Header, random nonce, ciphertext and tag. Header and `bound_to` are authenticated with it.

    `key` has 32 bytes, `key_id` 8. A key seals far fewer than 2**32 blobs, so random nonces do not meet.
    """
    header = MAGIC + key_id
    nonce = os.urandom(NONCE_BYTES)
    return header + nonce + AESGCM(key).encrypt(nonce, plaintext, header + bound_to)


def key_id_of(blob: bytes) -> bytes:
    """Which key sealed a blob.

    Raises:
        DoesNotOpen: it is no blob of ours.
    """
    if len(blob) < HEADER_BYTES + NONCE_BYTES or not blob.startswith(MAGIC):
        raise DoesNotOpen("it is not of this format")
    return blob[len(MAGIC) : HEADER_BYTES]


def unseal(key: bytes, blob: bytes, bound_to: bytes) -> bytes:
    """What was sealed.

    Raises:
        DoesNotOpen: another key, another `bound_to`, or one bit that is not as it was.
    """
    key_id_of(blob)
    header, nonce = blob[:HEADER_BYTES], blob[HEADER_BYTES : HEADER_BYTES + NONCE_BYTES]
    try:
        return AESGCM(key).decrypt(nonce, blob[HEADER_BYTES + NONCE_BYTES :], header + bound_to)
    except InvalidTag:
        raise DoesNotOpen("it was changed, moved, or sealed with another key") from None
