import secrets
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from honeyframe_connectors.errors import Reason, Stalled
from honeyframe_connectors.vault.cipher import DoesNotOpen
from honeyframe_connectors.vault.keyring import Keyring

OLD, NEW = secrets.token_bytes(32), secrets.token_hex(32).encode()


@pytest.mark.parametrize(
    "secret",
    [
        b"",
        pytest.param(secrets.token_bytes(31), id="31 random bytes"),
        bytes(64),
        b"changeme" * 8,
        b"0123456789abcdef" * 4,
        b"0123456789abcdef0123456789abcde!"[:31] * 2,
        b"abababababababababababababababababab",
        bytes(range(64)),
        b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ",
    ],
)
def test_a_short_or_plain_secret_is_refused_and_not_told(secret: bytes) -> None:
    with pytest.raises(Stalled) as told:
        Keyring(secret)
    assert told.value.reason is Reason.INVALID_CONFIG
    assert not secret or secret.decode(errors="replace") not in str(told.value)
    with pytest.raises(Stalled):
        Keyring(NEW, [secret])


@given(secret=st.randoms(use_true_random=True).map(lambda random: random.randbytes(16).hex().encode()))
def test_a_random_secret_is_taken(secret: bytes) -> None:
    Keyring(secret)


def test_one_equal_byte_at_both_ends_is_no_pattern() -> None:
    Keyring(b"x" + secrets.token_bytes(30) + b"x")


def test_older_keys_open_and_the_active_one_seals() -> None:
    sealed = Keyring(OLD).bind("install").wrap(b"text", b"here")
    both = Keyring(NEW, [OLD]).bind("install")
    assert both.unwrap(sealed, b"here") == b"text"
    with pytest.raises(DoesNotOpen, match="not given"):
        Keyring(OLD).bind("install").unwrap(both.wrap(b"text", b"here"), b"here")


def test_another_install_has_other_keys_and_ids() -> None:
    one, other = Keyring(OLD).bind("install-1"), Keyring(OLD).bind("install-2")
    assert one.active_id != other.active_id
    with pytest.raises(DoesNotOpen):
        other.unwrap(one.wrap(b"text", b"here"), b"here")


def test_nothing_secret_is_shown() -> None:
    keyring = Keyring(NEW, [OLD])
    bound = keyring.bind("install")
    for shown in (repr(keyring), str(keyring), repr(bound), str(vars(bound)["_active"])):
        assert NEW.decode() not in shown
        assert OLD.hex() not in shown
        assert bound._active.key.hex() not in shown
        assert repr(bound._active.key) not in shown


def test_a_secret_of_its_own_may_be_any_bytes_in_a_file(tmp_path: Path) -> None:
    (tmp_path / "text").write_bytes(NEW + b"\n")
    (tmp_path / "bytes").write_bytes(b"\r" + OLD + b"\0")
    both = Keyring.read(tmp_path / "text", [tmp_path / "bytes"]).bind("install")
    assert list(both) == list(Keyring(NEW, [b"\r" + OLD + b"\0"]).bind("install"))
    with pytest.raises(Stalled, match="nowhere cannot be read"):
        Keyring.read(tmp_path / "nowhere")


def test_a_check_value_lets_in_its_own_key_in_its_own_install() -> None:
    old, new, both = (keyring.bind("install") for keyring in (Keyring(OLD), Keyring(NEW), Keyring(NEW, [OLD])))
    checks = {old.active_id: old.check_value()}
    assert both.admitted(checks) == [old.active_id]
    assert new.admitted(checks) == []
    assert new.admitted({new.active_id: old.check_value()}) == []
    assert Keyring(OLD).bind("another").admitted(checks) == []
    assert both.admitted({**checks, new.active_id: new.check_value()}) == list(both), "the active one first"
