import asyncio
import socket
import threading
from ipaddress import ip_network
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from honeyframe_connectors import targets as module
from honeyframe_connectors.errors import Reason, Stalled, Unanswered
from honeyframe_connectors.targets import Targets, literal

REFUSED = [
    "127.0.0.1",
    "127.8.9.10",
    "0.0.0.0",  # noqa: S104
    "0.1.2.3",
    "169.254.169.254",
    "169.254.1.1",
    "100.100.100.200",
    "168.63.129.16",
    "224.0.0.1",
    "255.255.255.255",
    "::",
    "::1",
    "fe80::1",
    "fe80::1%eth0",
    "fd00:ec2::254",
    "ff02::1",
    "::ffff:127.0.0.1",
    "::ffff:169.254.169.254",
    "::ffff:0:169.254.169.254",
    "::169.254.169.254",
    "64:ff9b::169.254.169.254",
    "64:ff9b:1::7f00:1",
    "2002:7f00:1::",
    "2002:a9fe:a9fe::1",
    "2001:0:4136:e378:8000:63bf:80ff:fffe",
]


@pytest.mark.parametrize("address", REFUSED)
def test_refused_by_default(address: str) -> None:
    assert Targets().forbids(address)


@pytest.mark.parametrize(
    "address",
    ["10.0.0.1", "192.168.1.1", "93.184.216.34", "2606:2800:220:1::1", "fd12::1", "::ffff:10.0.0.1", "2002:a00:1::"],
)
def test_the_network_of_a_company_is_reached(address: str) -> None:
    assert not Targets().forbids(address)


def test_what_is_no_address_is_an_error() -> None:
    with pytest.raises(ValueError, match="does not appear"):
        Targets().forbids("localhost")


def test_allowed_networks_lift_it_in_every_form() -> None:
    targets = Targets(allowed=(ip_network("127.0.0.0/8"),))
    assert not targets.forbids("127.0.0.1")
    assert not targets.forbids("::ffff:127.0.0.1")
    assert targets.forbids("::1")
    assert targets.forbids("169.254.169.254")


def test_the_api_server_is_refused_in_every_form() -> None:
    targets = Targets(own=("10.96.0.1", "fd00::1"))
    assert targets.forbids("10.96.0.1")
    assert targets.forbids("::ffff:10.96.0.1")
    assert targets.forbids("fd00::1")
    assert not targets.forbids("10.96.0.2")
    assert not Targets(allowed=(ip_network("10.96.0.1/32"),), own=("10.96.0.1",)).forbids("10.96.0.1")


@pytest.mark.parametrize(
    ("host", "address"),
    [
        ("10.0.0.1", "10.0.0.1"),
        ("[::1]", "::1"),
        ("127.1", "127.0.0.1"),
        ("0x7f000001", "127.0.0.1"),
        ("2130706433", "127.0.0.1"),
        ("0177.0.0.1", "127.0.0.1"),
        ("127.0.0.1.", "127.0.0.1"),
    ],
)
def test_old_forms_of_an_address_are_one(host: str, address: str) -> None:
    assert str(literal(host)) == address


@pytest.mark.parametrize(
    "host", ["localhost", "db.example.com", "1password.com", "", "cafe", "1.2.3.4.5", "10.0.0.1 x"]
)
def test_names_are_no_address(host: str) -> None:
    assert literal(host) is None


@settings(deadline=None)
@given(st.ip_addresses(v=4))
def test_every_carried_form_is_judged_as_the_address(address: Any) -> None:
    targets = Targets()
    for form in (f"::ffff:{address}", f"64:ff9b::{address}"):
        assert targets.forbids(form) == targets.forbids(str(address))


@pytest.mark.parametrize("host", ["/var/run/postgresql", "@abstract", "\0abstract"])
async def test_unix_sockets_are_refused_whatever_is_allowed(host: str) -> None:
    targets = Targets(allowed=(ip_network("0.0.0.0/0"), ip_network("::/0")))
    assert targets.declared_refusal(host) is not None
    with pytest.raises(Stalled, match="Unix socket"):
        await targets.resolve(host, 5432)


def test_a_declared_name_is_not_looked_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.getaddrinfo", _must_not_be_called)
    assert Targets().declared_refusal("localhost") is None
    assert Targets().declared_refusal("10.0.0.1") is None
    refusal = Targets().declared_refusal("127.1")
    assert refusal is not None
    assert refusal.endswith("--allow-target 127.0.0.1/32")


def _must_not_be_called(*_: object, **__: object) -> None:
    raise AssertionError("asked the resolver")


async def test_addresses_never_reach_the_resolver(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("socket.getaddrinfo", _must_not_be_called)
    assert await Targets().resolve("10.1.2.3", 1) == ("10.1.2.3",)
    assert await Targets().resolve("[fd12::1]", 1) == ("fd12::1",)


def _answering(monkeypatch: pytest.MonkeyPatch, *addresses: str) -> None:
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 1)) for address in addresses]
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: found)


async def test_the_resolvers_order_is_kept_and_doubles_are_not(monkeypatch: pytest.MonkeyPatch) -> None:
    _answering(monkeypatch, "10.0.0.2", "10.0.0.1", "10.0.0.2")
    assert await Targets().resolve("db.example", 1) == ("10.0.0.2", "10.0.0.1")


async def test_one_refused_address_refuses_the_name(monkeypatch: pytest.MonkeyPatch) -> None:
    _answering(monkeypatch, "10.0.0.2", "169.254.169.254")
    with pytest.raises(Stalled, match=r"db\.example \(169\.254\.169\.254\) is a cloud's metadata service") as caught:
        await Targets().resolve("db.example", 1)
    assert caught.value.reason is Reason.TARGET_NOT_ALLOWED
    assert caught.value.message.endswith("--allow-target 169.254.169.254/32")


async def test_a_name_that_is_none_is_unanswered() -> None:
    with pytest.raises(Unanswered, match="does not resolve: it is no host name") as caught:
        await Targets().resolve("a" * 64 + ".\N{SNOWMAN}" + "b" * 300, 1)
    assert caught.value.reason is Reason.CONNECTION_FAILED


async def test_look_ups_that_hang_are_bounded_and_cancelled_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    release, all_in = threading.Event(), threading.Barrier(3)

    def hang(*_: object, **__: object) -> list[Any]:
        all_in.wait()
        release.wait()
        return []

    monkeypatch.setattr("socket.getaddrinfo", hang)
    monkeypatch.setattr(module, "MAX_LOOKUPS", 2)
    hanging = [asyncio.create_task(Targets().resolve("slow.example", 1)) for _ in range(2)]
    try:
        await asyncio.to_thread(all_in.wait)
        with pytest.raises(Unanswered, match="2 look-ups hang already"):
            await Targets().resolve("other.example", 1)
        for task in hanging:
            task.cancel()
        assert all(
            isinstance(each, asyncio.CancelledError) for each in await asyncio.gather(*hanging, return_exceptions=True)
        )
    finally:
        release.set()
