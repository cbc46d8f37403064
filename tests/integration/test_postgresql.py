"""PostgreSQL for real: what each refusal is, in the server's language, with client certificates and poolers' ways."""

import contextlib
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest
from psycopg.pq import Conninfo

from hack.certificates import Authority
from hack.postgres import PostgresServer
from honeyframe_connectors.connector_type import CheckResult, Checkup, Outcome, merge
from honeyframe_connectors.errors import CheckFailed, Reason, Refused, Stalled, Unanswered
from honeyframe_connectors.families import libpq
from honeyframe_connectors.types.postgresql import PostgreSQL
from tests.contract.bench import LOOPBACK, Situation, check

TYPE = PostgreSQL()
PASSWORD = "opensesame-6c1f9a"


def german() -> str | None:
    """A German locale of this machine; made where root may."""
    if "de_DE.utf8" not in _locales():
        command = [shutil.which("localedef") or "localedef", "-i", "de_DE", "-f", "UTF-8", "de_DE.UTF-8"]
        with contextlib.suppress(OSError):
            subprocess.run(command, capture_output=True, check=False)
    return "de_DE.utf8" if "de_DE.utf8" in _locales() else None


def _locales() -> list[str]:
    program = shutil.which("locale")
    if program is None:
        return []
    return subprocess.run([program, "-a"], capture_output=True, text=True, check=False).stdout.split()


@pytest.fixture(scope="module")
def authority() -> Authority:
    return Authority("integration tests")


@pytest.fixture(scope="module", params=["C", "de_DE"])
def server(request: pytest.FixtureRequest, authority: Authority) -> Iterator[PostgresServer]:
    settings: dict[str, str] = {"max_connections": "12", "superuser_reserved_connections": "3"}
    if request.param != "C":
        locale = german()
        if locale is None:
            pytest.skip("no German locale here, and none could be made")
        settings["lc_messages"] = locale
    with PostgresServer.start(tls=authority.server("postgresql"), settings=settings) as started:
        data = started.directory / "data"
        (data / "root.crt").write_bytes(authority.pem)
        (data / "root.crt").chmod(0o644)
        (data / "pg_hba.conf").write_text(
            "hostssl all certified 127.0.0.1/32 cert\n"
            "host all barred 127.0.0.1/32 reject\n"
            "host all elsewhere 192.0.2.0/24 scram-sha-256\n"
            "hostssl all all 127.0.0.1/32 scram-sha-256\n"
            "hostnossl all plain 127.0.0.1/32 scram-sha-256\n"
        )
        started.psql("alter system set ssl_ca_file = 'root.crt'")
        started.restart()
        for name in ("reader", "barred", "plain", "full", "certified", "outsider"):
            started.create_role(name, PASSWORD)
        started.create_database("analytics")
        started.psql(
            "revoke connect on database analytics from public;"
            "grant connect on database analytics to reader, plain, certified;"
            "alter role full connection limit 0;"
            "alter role reader set client_min_messages = debug1",
        )
        started.psql(
            'create schema closed; create schema "O\'dd ""name"; grant usage on schema "O\'dd ""name" to reader',
            database="analytics",
        )
        yield started


@pytest.fixture
def right(server: PostgresServer, authority: Authority) -> Situation:
    return Situation(
        declared={"host": "localhost", "port": server.port, "database": "analytics", "username": "reader"},
        secrets={"password": PASSWORD.encode()},
        ca=authority.pem,
    )


def declared(situation: Situation, **changes: Any) -> Situation:
    return replace(situation, declared={**situation.declared, **changes})


async def asked(situation: Situation) -> CheckResult:
    return await check(TYPE, situation)


def failed_at(result: CheckResult) -> str:
    (name,) = [step.name for step in result.steps if step.outcome is Outcome.FAILED]
    return name


async def test_all_steps_pass(right: Situation, capfd: pytest.CaptureFixture[str]) -> None:
    result = await asked(replace(right, output_schemas=("public", "O'dd \"name")))
    assert result.error is None
    assert {step.outcome for step in result.steps} == {Outcome.PASSED}
    assert result.server_version
    # libpq's default is to print what the server notices.
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize(
    ("changes", "secrets", "kind", "reason", "step", "state"),
    [
        ({}, {"password": b"wrong"}, Refused, Reason.AUTHENTICATION_FAILED, "authenticate", "28P01"),
        ({"username": "nobody"}, None, Refused, Reason.AUTHENTICATION_FAILED, "authenticate", "28P01"),
        ({}, {}, Refused, Reason.AUTHENTICATION_FAILED, "authenticate", ""),
        ({"username": "barred"}, None, Refused, Reason.AUTHORIZATION_FAILED, "authenticate", "28000"),
        ({"sslmode": "disable"}, None, Refused, Reason.AUTHORIZATION_FAILED, "authenticate", "28000"),
        ({"username": "certified"}, None, Refused, Reason.AUTHORIZATION_FAILED, "authenticate", "28000"),
        ({"username": "outsider"}, None, Refused, Reason.AUTHORIZATION_FAILED, "authorise", "42501"),
        ({"database": "nowhere"}, None, Refused, Reason.TARGET_NOT_FOUND, "authorise", "3D000"),
        (
            {"username": "full", "database": "postgres"},
            None,
            Unanswered,
            Reason.CONNECTION_FAILED,
            "authorise",
            "53300",
        ),
        ({"search_path": 'a,"'}, None, Refused, Reason.INVALID_CONFIG, "authorise", "22023"),
        ({"target_session_attrs": "standby"}, None, Unanswered, Reason.CONNECTION_FAILED, "authorise", ""),
    ],
)
async def test_what_each_refusal_is(
    right: Situation,
    changes: dict[str, Any],
    secrets: dict[str, bytes] | None,
    kind: type[CheckFailed],
    reason: Reason,
    step: str,
    state: str,
) -> None:
    situation = declared(right, **changes)
    if secrets is not None:
        situation = replace(situation, secrets=secrets)
    result = await asked(situation)
    assert type(result.error) is kind
    assert result.error.reason is reason
    assert failed_at(result) == step
    assert state in result.error.message


async def test_the_server_speaks_its_own_language(server: PostgresServer, right: Situation) -> None:
    result = await asked(replace(right, secrets={"password": b"wrong"}))
    assert result.error is not None
    is_german = server.psql("show lc_messages").startswith("de")
    assert ("fehlgeschlagen" in result.error.message) == is_german


async def test_a_newline_at_the_end_of_a_password_is_said(right: Situation) -> None:
    result = await asked(replace(right, secrets={"password": f"{PASSWORD}\n".encode()}))
    assert result.error is not None
    assert result.error.reason is Reason.AUTHENTICATION_FAILED
    assert "the value of password ends with a newline" in result.error.message
    assert PASSWORD not in repr(result)


async def test_too_many_connections_are_unanswered(server: PostgresServer, right: Situation) -> None:
    login = libpq.Login(
        host="localhost",
        port=server.port,
        options={"user": "reader", "password": PASSWORD, "dbname": "analytics", "sslmode": "require"},
    )
    held = [await libpq.connect(login, ["127.0.0.1"], Checkup(LOOPBACK)) for _ in range(9)]
    try:
        result = await asked(right)
    finally:
        for each in held:
            each.finish()
    assert isinstance(result.error, Unanswered)
    assert result.error.reason is Reason.CONNECTION_FAILED
    assert "53300" in result.error.message


async def test_schemas_are_asked_for(right: Situation) -> None:
    missing = await asked(replace(right, output_schemas=("public", "nowhere")))
    assert missing.error is not None
    assert missing.error.reason is Reason.TARGET_NOT_FOUND
    assert "nowhere" in missing.error.message
    closed = await asked(replace(right, output_schemas=("public", "closed")))
    assert closed.error is not None
    assert closed.error.reason is Reason.AUTHORIZATION_FAILED
    assert "grant usage on schema closed" in closed.error.message


@pytest.mark.parametrize("sslmode", ["require", "verify-ca", "verify-full"])
async def test_tls_modes(right: Situation, sslmode: str) -> None:
    assert (await asked(declared(right, sslmode=sslmode))).ok
    without = await asked(replace(declared(right, sslmode=sslmode), ca=None))
    assert without.ok == (sslmode == "require")
    other = await asked(replace(declared(right, sslmode=sslmode), ca=Authority("other").pem))
    assert not other.ok


async def test_in_the_clear(right: Situation) -> None:
    result = await asked(declared(right, sslmode="disable", username="plain"))
    assert result.ok
    assert {step.name: step.outcome for step in result.steps}["TLS"] is Outcome.NOT_TESTED


async def test_a_client_certificate_logs_in(right: Situation, authority: Authority) -> None:
    mine = authority.client("certified")
    secrets = {"ssl_cert": mine.certificate, "ssl_key": mine.key}
    result = await asked(replace(declared(right, username="certified"), secrets=secrets))
    assert result.error is None
    stranger = Authority("other").client("certified")
    secrets = {"ssl_cert": stranger.certificate, "ssl_key": stranger.key}
    result = await asked(replace(declared(right, username="certified"), secrets=secrets))
    assert isinstance(result.error, Refused)
    assert result.error.reason is Reason.AUTHENTICATION_FAILED
    result = await asked(replace(declared(right, username="certified"), secrets={**secrets, "ssl_key": mine.key}))
    assert result.error is not None
    assert result.error.reason is Reason.INVALID_CONFIG


async def test_a_uri_is_its_parts(server: PostgresServer, right: Situation) -> None:
    uri = f"postgresql://reader:{PASSWORD}@localhost:{server.port}/analytics?options=-csearch_path%3Dpublic&sslmode=verify-ca"
    situation = replace(right, declared={}, secrets={"uri": uri.encode()})
    config = situation.config(TYPE)
    assert PASSWORD not in repr(config)
    assert "uri=None" in repr(config)
    assert (await asked(situation)).ok


async def test_a_paused_server_runs_into_the_deadline(server: PostgresServer, right: Situation) -> None:
    server.pause()
    try:
        result = await check(TYPE, right, timeout=0.3)
    finally:
        server.resume()
    assert result.error is not None
    assert result.error.reason is Reason.TIMEOUT


def test_every_variable_that_libpq_reads_is_answered_for() -> None:

    written = Conninfo.parse(libpq._conninfo(libpq.Login("h", 1, {"user": "u", "dbname": "d"}), "192.0.2.1"))
    given = {option.keyword for option in written if option.val is not None}
    read = {option.keyword for option in Conninfo.get_defaults() if option.envvar}
    # An empty service would be looked for in files: its variable is taken away instead.
    assert read - given == {b"service"}
    assert "PGSERVICE" in libpq._WITHOUT_OPTION


async def test_a_library_that_is_not_verbose_is_understood_by_its_text(
    server: PostgresServer, right: Situation, monkeypatch: pytest.MonkeyPatch
) -> None:
    if server.psql("show lc_messages").startswith("de"):
        pytest.skip("without SQLSTATE only English is understood")
    monkeypatch.setattr(libpq, "_be_verbose", lambda _: None)
    result = await asked(replace(right, secrets={"password": b"wrong"}))
    assert isinstance(result.error, Refused)
    assert result.error.reason is Reason.AUTHENTICATION_FAILED


async def test_a_dead_address_of_several_is_passed_over(
    server: PostgresServer, right: Situation, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Nothing listens on the first: half of a dual-stack name is often like that.
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in ("127.0.0.9", "127.0.0.1")]
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: found)
    assert (await asked(right)).ok


async def test_who_answered_no_is_not_asked_again_elsewhere(
    server: PostgresServer, right: Situation, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, 0)) for address in ("127.0.0.1", "127.0.0.9")]
    monkeypatch.setattr("socket.getaddrinfo", lambda *_, **__: found)
    result = await asked(replace(right, secrets={"password": b"wrong"}))
    assert isinstance(result.error, Refused)
    assert result.error.reason is Reason.AUTHENTICATION_FAILED


@pytest.mark.parametrize(
    ("tail", "says"),
    [
        ("?passfile=/etc/passwd", r"\(passfile\)"),
        ("?service=x", r"\(service\)"),
        ("?sslrootcert=/x", r"\(sslrootcert\)"),
        ("?sslkey=/x", r"\(sslkey\)"),
        ("?hostaddr=127.0.0.1", r"\(hostaddr\)"),
        ("?host=other", r"\(host\)"),
        ("?pw-55aa=1", r"\(one\)"),
        ("?sslmode=prefer", "uri has a sslmode that cannot be used"),
        ("?options=-crole%3Dpw-55aa", "options other than a search_path"),
        ("?options=-csearch_path%3Da%20-crole%3Db", "options other than a search_path"),
        ("#pw-55aa", "write # in a password as %23"),
    ],
)
def test_a_uri_may_not_say_more(tail: str, says: str) -> None:
    with pytest.raises(Stalled, match=says) as caught:
        merge(TYPE, {}, {"uri": f"postgresql://u:pw-55aa@h/d{tail}".encode()})
    assert "55aa" not in caught.value.message


@pytest.mark.parametrize(
    "uri", ["mysql://u:pw-55aa@h/d", "postgresql:///d", "pw-55aa", "postgresql://u:pw-55aa@h:x55aa/d"]
)
def test_what_is_no_uri_is_not_shown(uri: str) -> None:
    with pytest.raises(Stalled) as caught:
        merge(TYPE, {}, {"uri": uri.encode()})
    assert "55aa" not in caught.value.message


def test_a_uri_and_its_parts_exclude_each_other() -> None:
    with pytest.raises(Stalled, match="uri and host say the same thing"):
        merge(TYPE, {"host": "h"}, {"uri": b"postgresql://u:p@h/d"})


def test_a_uri_is_read_as_libpq_reads_it() -> None:
    config = merge(
        TYPE, {}, {"uri": b"postgres://u%40x:p%2Fw%23@[fd12::1]:6432/d%20b?application_name=me&connect_timeout=9"}
    )
    assert (config.host, config.port, config.database, config.username) == ("fd12::1", 6432, "d b", "u@x")
    assert config.password is not None
    assert config.password.get_secret_value() == "p/w#"
    assert config.application_name == "me"
