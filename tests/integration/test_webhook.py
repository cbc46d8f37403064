"""A webhook's answers for real: every status, redirects, client certificates, and where a credential may go."""

import ssl
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hack.certificates import Authority
from honeyframe_connectors.connector_type import CheckStep, Outcome, merge
from honeyframe_connectors.errors import Reason, Refused, Stalled, Unanswered
from honeyframe_connectors.types.webhook import Webhook, request_headers
from tests.contract.bench import Situation, check
from tests.contract.servers.webhook import TOKEN, serving
from tests.support import targets_servers as servers

TYPE = Webhook()


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority("integration tests")


@pytest.fixture(scope="module")
def port(authority: Authority) -> Iterator[int]:
    with serving(authority) as port:
        yield port


def plain(port: int, **declared: Any) -> Situation:
    origin = f"http://127.0.0.1:{port}"
    return Situation(
        {"url": f"{origin}/hook", "check_url": f"{origin}/check", **declared}, {"bearer_token": b"token-55aa"}
    )


@pytest.mark.parametrize(
    ("status", "kind", "reason"),
    [
        (302, Refused, Reason.TARGET_NOT_FOUND),
        (400, Refused, Reason.INVALID_CONFIG),
        (401, Refused, Reason.AUTHENTICATION_FAILED),
        (403, Refused, Reason.AUTHORIZATION_FAILED),
        (404, Refused, Reason.TARGET_NOT_FOUND),
        (405, Refused, Reason.INVALID_CONFIG),
        (410, Refused, Reason.TARGET_NOT_FOUND),
        (429, Unanswered, Reason.RATE_LIMITED),
        (500, Unanswered, Reason.CONNECTION_FAILED),
        (503, Unanswered, Reason.RATE_LIMITED),
        (529, Unanswered, Reason.RATE_LIMITED),
    ],
)
async def test_every_status_is_judged(status: int, kind: type, reason: Reason) -> None:
    reply = f"HTTP/1.1 {status} Said\r\nContent-Length: 0\r\n\r\n".encode()
    with servers.listening(servers.scripted([reply])) as server:
        result = await check(TYPE, plain(server.port))
    assert type(result.error) is kind
    assert result.error is not None
    assert result.error.reason is reason
    assert str(status) in result.error.message


async def test_a_redirect_is_not_followed() -> None:
    with servers.listening(servers.silent) as elsewhere:
        reply = f"HTTP/1.1 307 There\r\nLocation: http://127.0.0.1:{elsewhere.port}/\r\nContent-Length: 0\r\n\r\n"
        with servers.listening(servers.scripted([reply.encode()])) as server:
            result = await check(TYPE, plain(server.port))
        assert elsewhere.connections() == 0
    assert result.error is not None
    assert "redirect" in result.error.message


async def test_without_check_url_nothing_is_sent() -> None:
    with servers.listening(servers.garbage) as server:
        result = await check(TYPE, Situation({"url": f"http://127.0.0.1:{server.port}/hook"}))
        assert server.connections() == 1
    assert result.ok
    assert not result.credential_tested
    assert [step.outcome for step in result.steps] == [
        Outcome.PASSED,
        Outcome.PASSED,
        Outcome.NOT_TESTED,
        Outcome.NOT_TESTED,
    ]
    assert result.steps[2] == CheckStep("TLS", Outcome.NOT_TESTED, "plain http")


async def test_head_where_that_is_asked_for() -> None:
    with servers.listening(servers.scripted([b"HTTP/1.1 204 Yes\r\n\r\n"])) as server:
        result = await check(TYPE, plain(server.port, check_method="HEAD"))
    assert result.ok
    assert result.steps[-1].message == "HEAD of check_url answers 204"


async def test_what_is_asked_carries_host_and_credential_once() -> None:
    seen: list[bytes] = []

    def handle(connection: Any) -> None:
        seen.append(connection.recv(65_536))
        if seen[-1]:
            connection.sendall(b"HTTP/1.1 204 Yes\r\n\r\n")

    with servers.listening(handle) as server:
        origin = f"http://localhost:{server.port}"
        situation = Situation(
            {"url": f"{origin}/hook", "check_url": f"{origin}/check?a=b", "username": "me"},
            {"password": b"pass-55aa", "headers.X-Api-Key": b"key-55aa"},
        )
        assert (await check(TYPE, situation)).ok
    (request,) = [each for each in seen if each]
    lines = request.decode().lower().splitlines()
    assert lines[0] == "get /check?a=b http/1.1"
    assert lines.count(f"host: localhost:{server.port}") == 1
    assert lines.count("x-api-key: key-55aa") == 1
    assert sum(line.startswith("authorization: basic ") for line in lines) == 1


async def test_a_client_certificate_is_shown(authority: Authority) -> None:
    certificate = authority.server("webhook")
    with tempfile.TemporaryDirectory() as folder:
        chain, key, ca = (Path(folder, name) for name in ("chain.pem", "key.pem", "ca.pem"))
        chain.write_bytes(certificate.certificate)
        key.write_bytes(certificate.key)
        ca.write_bytes(authority.pem)
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(chain, key)
        context.load_verify_locations(ca)
    context.verify_mode = ssl.CERT_REQUIRED
    # A client learns of a refused certificate within the handshake only before 1.3.
    context.maximum_version = ssl.TLSVersion.TLSv1_2

    def handle(connection: Any) -> None:
        with context.wrap_socket(connection, server_side=True) as secured:
            servers.silent(secured)

    with servers.listening(handle) as server:
        declared = {"url": f"https://localhost:{server.port}/hook"}
        mine, stranger = authority.client("me"), Authority("other").client("me")
        right = Situation(declared, {"ssl_cert": mine.certificate, "ssl_key": mine.key}, authority.pem)
        assert (await check(TYPE, right)).ok
        wrong = Situation(declared, {"ssl_cert": stranger.certificate, "ssl_key": stranger.key}, authority.pem)
        result = await check(TYPE, wrong)
        assert isinstance(result.error, Refused)
        assert result.error.reason is Reason.AUTHENTICATION_FAILED
        mixed = Situation(declared, {"ssl_cert": mine.certificate, "ssl_key": stranger.key}, authority.pem)
        result = await check(TYPE, mixed)
        assert isinstance(result.error, Stalled)
        assert result.error.reason is Reason.INVALID_CONFIG


@pytest.mark.parametrize(
    ("declared", "secrets", "says"),
    [
        ({"url": "ftp://h/x"}, {}, "no URL that can be used"),
        ({"url": "https://me:pw-55aa@h/x"}, {}, "put them into the Secret"),
        ({"url": "https://h/x#frag"}, {}, "never sent"),
        ({"url": "https://h:99999/x"}, {}, "no URL that can be used"),
        ({"url": "https://h\\@evil/x"}, {}, "backslashes"),
        ({"url": "https://bücher.example/"}, {}, "xn--"),
        ({"url": "https://h/x", "check_url": "https://other/x"}, {}, "scheme, host and port of url"),
        ({"url": "https://h/x", "check_url": "http://h/x"}, {}, "scheme, host and port of url"),
        ({"url": "https://h/x", "check_url": "https://h:444/x"}, {}, "scheme, host and port of url"),
        ({"url": "https://h/x", "headers": {"Host": "evil"}}, {}, "made by HTTP itself"),
        ({"url": "https://h/x", "headers": {"A b": "x"}}, {}, "a header's name"),
        ({"url": "https://h/x", "headers": {"A": "x\r\nB: y"}}, {}, "line ends"),
        ({"url": "https://h/x", "headers": {"A": "1", "a": "2"}}, {}, "twice"),
        ({"url": "https://h/x"}, {"bearer_token": b"tok-55aa\n"}, "ends with a newline"),
        ({"url": "https://h/x"}, {"headers.A": b"tok-55aa\n"}, "ends with a newline"),
        ({"url": "https://h/x"}, {"password": b"pw-55aa"}, "username and password go together"),
        ({"url": "https://h/x", "username": "a:b"}, {"password": b"pw-55aa"}, "colon"),
        ({"url": "https://h/x"}, {"bearer_token": b"t", "headers.authorization": b"u"}, "exclude each other"),
    ],
)
def test_what_cannot_be_sent_is_said(declared: dict[str, Any], secrets: dict[str, bytes], says: str) -> None:
    with pytest.raises(Stalled) as caught:
        merge(TYPE, declared, secrets)
    assert caught.value.reason is Reason.INVALID_CONFIG
    assert says in caught.value.message
    assert "55aa" not in caught.value.message


def test_one_url_in_two_spellings_is_one_destination() -> None:
    one = merge(TYPE, {"url": "HTTPS://Hooks.Example.com:443/a?b=C"}, {})
    other = merge(TYPE, {}, {"url": b"https://hooks.example.com/a?b=C"})
    assert one.url == other.url == "https://hooks.example.com/a?b=C"
    assert "b=C" not in repr(one)


def test_the_credential_of_a_request() -> None:
    config = merge(TYPE, {"url": "https://h/x"}, {"bearer_token": TOKEN.encode(), "headers.X": b"1"})
    assert request_headers(config) == {"X": "1", "Authorization": f"Bearer {TOKEN}"}
