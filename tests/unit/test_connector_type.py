from typing import Annotated, Any, ClassVar, Literal

import pytest
from pydantic import Field, SecretBytes, SecretStr

from honeyframe_connectors.connector_type import (
    Category,
    Checkup,
    ConnectorConfig,
    ConnectorType,
    Guard,
    Mark,
    destination,
    marked,
    merge,
    secret_values,
)
from honeyframe_connectors.errors import Reason, Stalled


class Config(ConnectorConfig):
    host: Annotated[str, Mark.DESTINATION, Mark.MAPPABLE]
    port: Annotated[int, Mark.DESTINATION, Mark.MAPPABLE, Field(ge=1)] = 80
    mode: Literal["soft", "hard"] = "hard"
    cert: Annotated[str | None, Mark.MAPPABLE] = None
    password: Annotated[SecretStr, Mark.SECRET]
    wallet: Annotated[SecretBytes | None, Mark.SECRET] = None
    headers: Annotated[dict[str, SecretStr], Mark.MAPPABLE] = Field(default_factory=dict)
    url: Annotated[str, Field(repr=False)] = ""


class Example(ConnectorType[Config]):
    name: ClassVar[str] = "example"
    title: ClassVar[str] = "Example"
    category: ClassVar[Category] = Category.API
    driver: ClassVar[str | None] = None
    steps: ClassVar[tuple[str, ...]] = ("resolve",)
    guard: ClassVar[Guard] = Guard.PINNED
    config = Config

    async def check(self, config: Config, checkup: Checkup) -> None:
        """Nothing."""


EXAMPLE = Example()


def refusal(declared: dict[str, Any], from_secret: dict[str, bytes]) -> str:
    with pytest.raises(Stalled) as caught:
        merge(EXAMPLE, declared, from_secret)
    assert caught.value.reason is Reason.INVALID_CONFIG
    return caught.value.message


def test_both_halves_make_a_config() -> None:
    config = merge(
        EXAMPLE,
        {"mode": "soft", "headers": {"X-Plain": "1"}},
        {"host": b"h", "port": b"81", "password": "gehe\u0131m\n".encode(), "wallet": b"\xff\0", "headers.X.Y": b"2"},
    )
    assert (config.host, config.port, config.mode) == ("h", 81, "soft")
    assert config.password.get_secret_value() == "gehe\u0131m\n"
    assert config.wallet == SecretBytes(b"\xff\0")
    assert {name: value.get_secret_value() for name, value in config.headers.items()} == {"X-Plain": "1", "X.Y": "2"}


def test_what_was_declared_is_left_as_it_was() -> None:
    declared = {"host": "h", "headers": {"A": "1"}}
    merge(EXAMPLE, declared, {"password": b"x", "headers.B": b"2"})
    assert declared == {"host": "h", "headers": {"A": "1"}}


@pytest.mark.parametrize(
    ("declared", "from_secret", "says"),
    [
        (
            {"host": "h", "password": "x-y-z"},
            {},
            (
                "spec.config.example.password: secrets do not belong in config: "
                "put it in the Secret that spec.secretRef names"
            ),
        ),
        (
            {"host": "h"},
            {"host": b"other", "password": b"x"},
            (
                "spec.config.example.host: it is written in config and comes from the Secret too: "
                "keep one, by removing it here or from spec.secretRef.keys"
            ),
        ),
        (
            {"host": "h", "headers": {"A": "1"}},
            {"headers.A": b"2", "password": b"x"},
            (
                "spec.config.example.headers.A: it is written in config and comes from the Secret too: "
                "keep one, by removing it here or from spec.secretRef.keys"
            ),
        ),
        (
            {"host": "h"},
            {"mode": b"soft", "password": b"x"},
            "the Secret's value for mode: this field cannot come from a Secret: write spec.config.example.mode",
        ),
        (
            {"host": "h"},
            {"hots": b"x", "password": b"x"},
            "the Secret's value for hots: type example has no field hots: did you mean host?",
        ),
        (
            {"host": "h"},
            {"headers": b"x", "password": b"x"},
            "the Secret's value for headers: name one entry, as in headers.KEY",
        ),
        (
            {"host": "h"},
            {"password.x": b"x"},
            "the Secret's value for password.x: it has no entries: name it password",
        ),
        (
            {"host": "h"},
            {"password": b""},
            "the Secret's value for password is empty: write it, or remove the key",
        ),
        (
            {},
            {"host": b"h\n", "password": b"x"},
            "the Secret's value for host ends with a newline: write it without, with printf instead of echo",
        ),
        (
            {},
            {"password": b"x"},
            "spec.config.example.host: it is missing: write it, or map it from the Secret by spec.secretRef.keys",
        ),
        (
            {"host": "h"},
            {},
            "password: it is missing: put it in the Secret that spec.secretRef names, under the key password",
        ),
        (
            {"host": "h", "prot": 1},
            {"password": b"x"},
            "spec.config.example.prot: type example has no such field: did you mean port?",
        ),
        (
            {"host": "h", "mode": "x"},
            {"password": b"x"},
            "spec.config.example.mode: input should be 'soft' or 'hard'",
        ),
        (
            {"host": "h"},
            {"port": b"many", "password": b"x"},
            "the Secret's value for port: input should be a valid integer, unable to parse string as an integer",
        ),
        (
            {"host": "h", "headers": "x"},
            {"headers.A": b"x", "password": b"x"},
            "spec.config.example.headers: input should be a valid dictionary",
        ),
    ],
)
def test_the_sentence_says_what_mends_it(declared: dict[str, Any], from_secret: dict[str, bytes], says: str) -> None:
    assert refusal(declared, from_secret) == says


@pytest.mark.parametrize("raw", [b"x\xff", b"\xff\xfex\0", b"\xef\xbb\xbfx", b"x\0"])
def test_what_is_no_text_is_said_with_the_usual_causes(raw: bytes) -> None:
    message = refusal({"host": "h"}, {"password": raw})
    assert message.startswith("the Secret's value for password is not plain UTF-8 text")
    assert "byte-order mark" in message
    assert "newline" in message


def test_64_kib_are_the_limit() -> None:
    assert merge(EXAMPLE, {"host": "h"}, {"password": b"x" * 65_536})
    assert "longer than 64 KiB" in refusal({"host": "h"}, {"password": b"x" * 65_537})


def test_pem_may_end_with_a_newline() -> None:
    pem = "-----BEGIN CERTIFICATE-----\nx\n-----END CERTIFICATE-----\n"
    assert merge(EXAMPLE, {"host": "h"}, {"password": b"x", "cert": pem.encode()}).cert == pem


def test_many_problems_are_a_few_sentences() -> None:
    message = refusal({f"unknown{number}": 1 for number in range(50)}, {"password": b"x"})
    assert message.count("no such field") <= 5
    assert message.endswith("more")


def test_the_destination_is_what_is_marked_so() -> None:
    config = merge(EXAMPLE, {"host": "h"}, {"password": b"x"})
    assert destination(EXAMPLE, config) == ("h", 80)
    assert marked(Config, Mark.SECRET) == {"password", "wallet"}


def test_secret_values_are_those_that_no_text_may_show() -> None:
    config = merge(EXAMPLE, {"host": "h", "url": "u"}, {"password": b"p", "wallet": b"w", "headers.A": b"a"})
    assert list(secret_values(config)) == ["p", b"w", "a", "u"]
