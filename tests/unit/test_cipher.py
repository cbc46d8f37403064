import os

import pytest
from hypothesis import given
from hypothesis import strategies as st

from honeyframe_connectors.vault.cipher import DoesNotOpen, key_id_of, seal, unseal

KEY, OTHER_KEY, KEY_ID = os.urandom(32), os.urandom(32), b"key-id-1"


@given(plaintext=st.binary(max_size=200), bound=st.binary(max_size=60))
def test_what_was_sealed_opens(plaintext: bytes, bound: bytes) -> None:
    blob = seal(KEY, KEY_ID, plaintext, bound)
    assert unseal(KEY, blob, bound) == plaintext
    assert key_id_of(blob) == KEY_ID
    assert len(blob) == 4 + 8 + 12 + len(plaintext) + 16


@given(plaintext=st.binary(max_size=40), place=st.floats(0, 1, exclude_max=True))
def test_one_other_bit_and_it_does_not_open(plaintext: bytes, place: float) -> None:
    blob = bytearray(seal(KEY, KEY_ID, plaintext, b"here"))
    bit = int(place * len(blob) * 8)
    blob[bit // 8] ^= 1 << bit % 8
    with pytest.raises(DoesNotOpen):
        unseal(KEY, bytes(blob), b"here")


@given(plaintext=st.binary(max_size=40), cut=st.integers(1, 80), bound=st.binary(max_size=20))
def test_shorter_longer_elsewhere_or_with_another_key_it_does_not_open(
    plaintext: bytes, cut: int, bound: bytes
) -> None:
    blob = seal(KEY, KEY_ID, plaintext, b"here")
    for key, changed, place in (
        (KEY, blob[:-cut], b"here"),
        (KEY, blob + bytes(cut), b"here"),
        (KEY, blob, b"there" + bound),
        (OTHER_KEY, blob, b"here"),
    ):
        with pytest.raises(DoesNotOpen):
            unseal(key, changed, place)


@given(blob=st.binary(max_size=80))
def test_what_was_never_sealed_does_not_open(blob: bytes) -> None:
    with pytest.raises(DoesNotOpen):
        unseal(KEY, blob, b"here")


def test_a_nonce_never_repeats() -> None:
    count = 50_000
    assert len({seal(KEY, KEY_ID, b"", b"")[12:24] for _ in range(count)}) == count
