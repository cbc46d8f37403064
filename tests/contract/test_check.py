"""How a type's check tells things apart, against real servers and hostile ones."""

import asyncio
import ctypes
import os
import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from hack.certificates import Authority
from honeyframe_connectors.connector_type import CheckResult, ConnectorType, Outcome
from honeyframe_connectors.errors import Reason, Refused, Stalled, Unanswered
from honeyframe_connectors.redact import MESSAGE_LIMIT
from honeyframe_connectors.targets import Targets
from tests.contract.bench import SHORT, Bench, Situation, check
from tests.support import targets_servers as servers


def assert_told(type_: ConnectorType[Any], situation: Situation, result: CheckResult) -> None:
    """What holds of every result."""
    assert [step.name for step in result.steps] == list(type_.steps)
    texts = [step.message for step in result.steps] + [repr(result)]
    if result.error is not None:
        texts += [str(result.error), result.error.message]
        assert len(result.error.message) <= MESSAGE_LIMIT
        assert result.error.message.strip()
        failed = [step for step in result.steps if step.outcome is Outcome.FAILED]
        assert [step.message for step in failed] == [result.error.message]
        behind = result.steps[result.steps.index(failed[0]) + 1 :]
        assert all(step.outcome is not Outcome.PASSED for step in behind)
    for value in situation.secrets.values():
        for text in texts:
            assert value.decode().strip() not in text


async def test_the_right_credential_is_accepted(type_: ConnectorType[Any], bench: Bench) -> None:
    result = await check(type_, bench.right)
    assert result.error is None
    assert result.credential_tested
    assert {step.outcome for step in result.steps} == {Outcome.PASSED}
    assert_told(type_, bench.right, result)


def _descriptors() -> list[str]:
    # The one that lists is among them, both times.
    return sorted(path.name for path in Path("/proc/self/fd").iterdir())


async def test_it_leaves_nothing_open(type_: ConnectorType[Any], bench: Bench) -> None:
    with servers.listening(servers.silent) as server:
        hanging = bench.at("localhost", server.port)
        for situation in (bench.right, hanging):
            await check(type_, situation, timeout=SHORT)
        before = _descriptors()
        tasks = asyncio.all_tasks()
        for situation in (bench.right, bench.wrong_credential or bench.right):
            await check(type_, situation)
        assert _descriptors() == before
        assert asyncio.all_tasks() == tasks


async def test_a_wrong_credential_is_refused(type_: ConnectorType[Any], bench: Bench) -> None:
    if bench.wrong_credential is None:
        pytest.skip("it has no credential")
    result = await check(type_, bench.wrong_credential)
    assert isinstance(result.error, Refused)
    assert result.error.reason is Reason.AUTHENTICATION_FAILED
    assert not result.credential_tested
    assert_told(type_, bench.wrong_credential, result)


async def test_a_missing_permission_is_told_from_a_wrong_credential(type_: ConnectorType[Any], bench: Bench) -> None:
    if bench.no_permission is None:
        pytest.skip("it has no permissions")
    result = await check(type_, bench.no_permission)
    assert isinstance(result.error, Refused)
    assert result.error.reason is Reason.AUTHORIZATION_FAILED
    assert_told(type_, bench.no_permission, result)


async def test_what_is_not_there_is_told(type_: ConnectorType[Any], bench: Bench) -> None:
    if bench.not_there is None:
        pytest.skip("there is nothing that could be missing")
    result = await check(type_, bench.not_there)
    assert isinstance(result.error, Refused)
    assert result.error.reason is Reason.TARGET_NOT_FOUND
    assert_told(type_, bench.not_there, result)


async def test_a_closed_port_is_unanswered(type_: ConnectorType[Any], bench: Bench) -> None:
    with servers.closed_port() as port:
        situation = bench.at("localhost", port)
        result = await check(type_, situation)
    assert isinstance(result.error, Unanswered)
    assert result.error.reason is Reason.CONNECTION_FAILED
    assert_told(type_, situation, result)


@pytest.mark.parametrize("plain", [True, False], ids=["plain", "TLS"])
async def test_a_silent_port_runs_into_the_deadline(type_: ConnectorType[Any], bench: Bench, plain: bool) -> None:
    with servers.listening(servers.silent) as server:
        situation = (bench.plain_at if plain else bench.at)("localhost", server.port)
        result = await check(type_, situation, timeout=SHORT)
    assert isinstance(result.error, Unanswered)
    assert result.error.reason is Reason.TIMEOUT
    assert f"within {SHORT} s while" in result.error.message
    assert_told(type_, situation, result)


@pytest.mark.parametrize("plain", [True, False], ids=["plain", "TLS"])
async def test_garbage_is_unanswered(type_: ConnectorType[Any], bench: Bench, plain: bool) -> None:
    with servers.listening(servers.garbage) as server:
        situation = (bench.plain_at if plain else bench.at)("localhost", server.port)
        result = await check(type_, situation)
    assert isinstance(result.error, Unanswered)
    assert result.error.reason in {Reason.CONNECTION_FAILED, Reason.TLS_VERIFICATION_FAILED}
    assert_told(type_, situation, result)


@pytest.mark.parametrize("fault", ["unknown CA", "expired", "wrong name"])
async def test_a_certificate_that_does_not_verify_is_unanswered(
    type_: ConnectorType[Any], bench: Bench, authority: Authority, fault: str
) -> None:
    certificate = {
        "unknown CA": lambda: Authority("somebody else").server("server"),
        "expired": lambda: servers.expired(authority),
        "wrong name": lambda: authority.server("server", names=["elsewhere.example"]),
    }[fault]()
    with servers.listening(servers.tls(certificate, bench.before_tls)) as server:
        situation = bench.at("localhost", server.port)
        result = await check(type_, situation)
    assert isinstance(result.error, Unanswered)
    assert result.error.reason is Reason.TLS_VERIFICATION_FAILED
    assert "TLS" in [step.name for step in result.steps if step.outcome is Outcome.FAILED]
    assert_told(type_, situation, result)


async def test_public_roots_do_not_vouch_for_a_private_server(type_: ConnectorType[Any], bench: Bench) -> None:
    situation = Situation(bench.right.declared, bench.right.secrets, None, bench.right.output_schemas)
    result = await check(type_, situation)
    assert isinstance(result.error, Unanswered)
    assert result.error.reason is Reason.TLS_VERIFICATION_FAILED
    assert "spec.caRef" in result.error.message


async def test_a_ca_that_is_none_is_said(type_: ConnectorType[Any], bench: Bench) -> None:
    situation = Situation(bench.right.declared, bench.right.secrets, b"no certificate", bench.right.output_schemas)
    result = await check(type_, situation)
    assert isinstance(result.error, Stalled)
    assert result.error.reason is Reason.CA_NOT_FOUND


async def test_a_name_that_does_not_resolve(
    type_: ConnectorType[Any], bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unknown(*_: object, **__: object) -> None:
        raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")

    monkeypatch.setattr("socket.getaddrinfo", unknown)
    situation = bench.at("db.nowhere.example", 1234)
    result = await check(type_, situation)
    assert isinstance(result.error, Unanswered)
    assert result.error.reason is Reason.CONNECTION_FAILED
    assert "db.nowhere.example does not resolve" in result.error.message
    assert_told(type_, situation, result)


async def test_a_resolver_that_hangs_runs_into_the_deadline(
    type_: ConnectorType[Any], bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    release = threading.Event()

    def hang(*_: object, **__: object) -> list[Any]:
        release.wait()
        return []

    monkeypatch.setattr("socket.getaddrinfo", hang)
    try:
        result = await check(type_, bench.at("db.slow.example", 1234), timeout=SHORT)
    finally:
        release.set()
    assert result.error is not None
    assert result.error.reason is Reason.TIMEOUT


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "127.1", "rebinding.example"])
async def test_an_address_that_is_refused_is_not_dialled(
    type_: ConnectorType[Any], bench: Bench, monkeypatch: pytest.MonkeyPatch, host: str
) -> None:
    if host == "rebinding.example":
        found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in ("192.0.2.7", "127.0.0.1")]
        monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: found)
    with servers.listening(servers.silent) as server:
        situation = bench.at(host, server.port)
        result = await check(type_, situation, targets=Targets())
        assert server.connections() == 0
    assert isinstance(result.error, Stalled)
    assert result.error.reason is Reason.TARGET_NOT_ALLOWED
    assert "--allow-target" in result.error.message
    assert_told(type_, situation, result)


async def test_a_name_is_resolved_once(
    type_: ConnectorType[Any], bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, asked = socket.getaddrinfo, []

    def counted(host: Any, *args: Any, **kwargs: Any) -> Any:
        asked.append(host)
        return real(host, *args, **kwargs)

    monkeypatch.setattr("socket.getaddrinfo", counted)
    result = await check(type_, bench.right)
    assert result.ok
    # Literal addresses are no names: what a driver looks up after that finds nothing to rebind.
    assert [host for host in asked if host != "127.0.0.1"] == ["localhost"]


@contextmanager
def watched(folder: Path) -> Iterator[list[str]]:
    """The names of files that were opened below a folder, once the block has ended."""
    libc = ctypes.CDLL(None, use_errno=True)
    descriptor = libc.inotify_init1(os.O_NONBLOCK | os.O_CLOEXEC)
    opened: list[str] = []
    try:
        for path in (folder, *(each for each in folder.rglob("*") if each.is_dir())):
            assert libc.inotify_add_watch(descriptor, os.fsencode(path), 0x00000020 | 0x00000001) >= 0
        yield opened
        try:
            events = os.read(descriptor, 65_536)
        except BlockingIOError:
            events = b""
        while events:
            (length,) = struct.unpack_from("I", events, 12)
            opened.append(os.fsdecode(events[16 : 16 + length].rstrip(b"\0")))
            events = events[16 + length :]
    finally:
        os.close(descriptor)


async def test_nothing_ambient_is_read(
    type_: ConnectorType[Any], bench: Bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    for name, content in bench.home.items():
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
        path.chmod(0o600)
    # Once before, so that a module that is imported late does not count.
    await check(type_, bench.right)
    monkeypatch.setenv("HOME", str(tmp_path))
    for name, value in bench.environment.items():
        monkeypatch.setenv(name, value)
    with watched(tmp_path) as opened:
        right = await check(type_, bench.right)
        without = await check(type_, bench.without_credential)
    assert right.error is None
    assert without.error is not None
    assert without.error.reason is Reason.AUTHENTICATION_FAILED
    assert opened == []


async def test_a_planted_file_would_be_seen(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "planted").write_text("x")
    with watched(tmp_path) as opened:
        (tmp_path / "below" / "planted").read_text()
    assert "planted" in opened


async def test_ten_megabytes_are_no_harm(type_: ConnectorType[Any], bench: Bench) -> None:
    for replies in bench.huge:
        with servers.listening(servers.scripted(replies)) as server:
            situation = bench.plain_at("localhost", server.port)
            result = await check(type_, situation)
        assert result.error is None or result.error.reason is not Reason.TIMEOUT
        assert_told(type_, situation, result)
        assert len(result.server_version or "") <= 128


async def test_cancelled_it_lets_go_at_once(type_: ConnectorType[Any], bench: Bench) -> None:
    connected, gone = asyncio.Event(), asyncio.Event()

    async def watch(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.set()
        while await reader.read(4096):
            pass
        gone.set()
        writer.close()

    async with await asyncio.start_server(watch, "127.0.0.1", 0) as server:
        port = server.sockets[0].getsockname()[1]
        task = asyncio.create_task(check(type_, bench.at("127.0.0.1", port)))
        await connected.wait()
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await gone.wait()
