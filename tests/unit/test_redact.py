import base64
import json
from urllib.parse import quote, quote_plus

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from honeyframe_connectors.redact import BULLETS, MESSAGE_LIMIT, Redactor, shorten

SECRET = 'p@ss/wörd "1"\\x'


@pytest.mark.parametrize(
    "text",
    [
        f"the password {SECRET} is wrong",
        f"key={base64.b64encode(SECRET.encode()).decode()} is wrong",
        f"key is {base64.urlsafe_b64encode(SECRET.encode()).decode()}",
        f"at /login/{quote(SECRET, safe='')}/x",
        f"at /login?p={quote_plus(SECRET)}",
        f"sent {json.dumps({'k': SECRET})}",
        f"sent {json.dumps({'k': SECRET}, ensure_ascii=False)}",
        f"got {SECRET!r}",
    ],
)
def test_a_known_value_is_replaced_in_every_form(text: str) -> None:
    clean = Redactor([SECRET])(text)
    assert BULLETS in clean
    for form in (SECRET, quote(SECRET, safe=""), json.dumps(SECRET)[1:-1], base64.b64encode(SECRET.encode()).decode()):
        assert form not in clean


@pytest.mark.parametrize("user", ["", "a", "ab", "abc", "abcd"])
def test_a_value_inside_of_base64_is_replaced(user: str) -> None:
    secret = "correct horse battery"
    encoded = base64.b64encode(f"{user}:{secret}".encode()).decode()
    clean = Redactor([secret])(f"sent {encoded}.")
    assert BULLETS in clean
    decoded = base64.b64decode("".join(clean[5:-1].split(BULLETS)) + "==", validate=False)
    assert b"horse" not in decoded


def test_bytes_are_values_too() -> None:
    assert Redactor([b"\xff\xfesecret"])(base64.b64encode(b"\xff\xfesecret").decode().rstrip("=")) == BULLETS


def test_a_trailing_newline_does_not_hide_a_value() -> None:
    assert Redactor(["hunter22\n"])("password hunter22 refused") == f"password {BULLETS} refused"


def test_short_values_only_as_words() -> None:
    redactor = Redactor(["db", "1"])
    assert redactor("dbname of the adb at 10: 1 db") == f"dbname of the adb at 10: {BULLETS} {BULLETS}"
    assert Redactor(["", b""])("nothing known") == "nothing known"


def test_the_longest_value_first() -> None:
    assert Redactor(["hunter", "hunter-and-more"])("is hunter-and-more") == f"is {BULLETS}"


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("at postgresql://user:hunter2@db/x", f"at postgresql://user:{BULLETS}@db/x"),
        ("at postgresql://user:hun@ter2@db/x", f"at postgresql://user:{BULLETS}@db/x"),
        ("at https://db:8443/users/me@x", "at https://db:8443/users/me@x"),
        ("password=hunter2 host=x", f"password={BULLETS} host=x"),
        ("password='hun ter2' host=x", f"password={BULLETS} host=x"),
        ("?api_key=abc&x=1", f"?api_key={BULLETS}&x=1"),
        ('{"password": "hunter2", "x": 1}', f'{{"password": {BULLETS}, "x": 1}}'),
        ("Authorization: Basic dXNlcjpwYXNz\r\nHost: x", f"Authorization: {BULLETS}\r\nHost: x"),
        ("with Bearer abcdef012345 sent", f"with Bearer {BULLETS} sent"),
        ("X-Api-Key: abc def", f"X-Api-Key: {BULLETS}"),
        ("-----BEGIN PRIVATE KEY-----\nabc\n-----END PRIVATE KEY-----.", f"{BULLETS}."),
    ],
)
def test_what_looks_like_a_secret_is_replaced_unknown(text: str, clean: str) -> None:
    assert Redactor()(text) == clean


@pytest.mark.parametrize(
    "text",
    [
        "password authentication failed for user x: put the right password into the Secret",
        "bearer tokens and basic authentication are known",
        "spec.config.postgresql.password: secrets do not belong in config: put it in the Secret",
    ],
)
def test_our_own_sentences_stay(text: str) -> None:
    assert Redactor()(text) == text


def test_shorten() -> None:
    assert shorten("abc", 3) == "abc"
    assert shorten("abcd", 3) == "ab…"
    assert len(shorten("x" * 5000)) == MESSAGE_LIMIT


@settings(deadline=None)
@given(st.integers(0, 40_000), st.integers(4, 30_000))
def test_a_bounded_message_shows_no_part_of_a_value(before: int, length: int) -> None:
    secret = "S" * length
    message = Redactor([secret]).message("x" * before + secret + "y" * 100)
    assert len(message) <= MESSAGE_LIMIT
    assert "S" not in message


def test_a_long_text_is_read_in_part() -> None:
    message = Redactor(["hunter22"]).message("a hunter22 " * 1_000_000)
    assert len(message) == MESSAGE_LIMIT
    assert "hunter" not in message


def test_its_repr_shows_nothing() -> None:
    assert "hunter22" not in repr(Redactor(["hunter22"]))
