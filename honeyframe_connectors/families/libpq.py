"""libpq's own state machine, driven step by step, with nothing taken from the environment.

psycopg has no SQLSTATE for a connection that was refused, only a text in the server's language. libpq writes the
SQLSTATE and the place in the server's source into that text, once it is told to be verbose: so what a refusal means is
known in every language.
"""

import asyncio
import ctypes
import functools
import os
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Final

from honeyframe_connectors.connector_type import Checkup
from honeyframe_connectors.errors import CheckFailed, Reason, Refused, Unanswered
from honeyframe_connectors.families import sql, tcp, tls

if TYPE_CHECKING:
    from psycopg.pq.abc import PGconn, PGresult

KNOWN_PARAMETERS: Final = frozenset(
    name
    for names in (
        "channel_binding client_encoding dbname fallback_application_name gssdelegation gssencmode gsslib host",
        "keepalives keepalives_count keepalives_idle keepalives_interval krbsrvname load_balance_hosts passfile",
        "max_protocol_version min_protocol_version oauth_client_id oauth_client_secret oauth_issuer oauth_scope",
        "port password hostaddr replication require_auth requirepeer requiressl scram_client_key scram_server_key",
        "service servicefile ssl_max_protocol_version ssl_min_protocol_version sslcert sslcertmode sslcompression",
        "sslcrl sslkey sslcrldir sslkeylogfile sslnegotiation sslpassword sslrootcert sslsni tcp_user_timeout user",
    )
    for name in names.split()
)
"""Parameters of libpq that a person may be told are refused."""

NOWHERE: Final = "/dev/null/none"
"""A path that can never exist, for options whose default is a file in the home directory."""

# What libpq would else take from the environment or the home directory.
_DEFAULTS: Final[Mapping[str, str]] = {
    "application_name": "honeyframe",
    "channel_binding": "prefer",
    "client_encoding": "UTF8",
    "connect_timeout": "0",
    "gssdelegation": "0",
    "gssencmode": "disable",
    "krbsrvname": "postgres",
    "load_balance_hosts": "disable",
    "max_protocol_version": "3.0",
    "min_protocol_version": "3.0",
    "options": "",
    "passfile": NOWHERE,
    "password": "",
    # No Kerberos ticket of the machine, no OAuth flow that a server starts.
    "require_auth": "password,md5,scram-sha-256,none",
    "requirepeer": "",
    "ssl_max_protocol_version": "",
    "ssl_min_protocol_version": "TLSv1.2",
    "sslcert": NOWHERE,
    "sslcertmode": "disable",
    "sslcompression": "0",
    "sslcrl": NOWHERE,
    "sslcrldir": "",
    "sslkey": NOWHERE,
    "sslnegotiation": "postgres",
    "sslrootcert": NOWHERE,
    "sslsni": "1",
    "target_session_attrs": "any",
}
# Read by libpq with no option that would stand before them.
_WITHOUT_OPTION: Final = ("PGSERVICE", "PGDATESTYLE", "PGTZ", "PGGEQO", "PGOAUTHDEBUG")

_VERBOSE: Final = 2
_BAD: Final = 1
_ERROR: Final = re.compile(r"(?:^|: )[^\s:]+:  ([0-9A-Z]{5}): ([^\n]*)")
_LOCATION: Final = re.compile(r"^LOCATION:  (\w+), ", re.MULTILINE)
_PREFIX: Final = re.compile(r"^connection to server (?:at|on) [^\n]*? failed: ")
# Functions of the server that refuse only whom they know already, and states that only such a one is told.
_AFTER_LOGIN: Final = frozenset({"InitPostgres", "CheckMyDatabase"})
_BAD_SETTINGS: Final = frozenset({"22023", "42602", "42704"})
_ROLE_IS_FULL: Final = ("53300", "InitializeSessionUserId")
_READS: Final = 4096
"""Times that an answer may take to arrive in full: a bound on what libpq keeps in memory."""


@dataclass(frozen=True, slots=True)
class Login:
    """Where to log in, and libpq's options for it."""

    host: str
    port: int
    options: Mapping[str, str] = field(repr=False)

    @property
    def where(self) -> str:
        """Host and port, for messages."""
        return f"{self.host}:{self.port}"


async def connect(login: Login, addresses: Sequence[str], checkup: Checkup) -> "PGconn":
    """Log in at the first address that can be connected to; notes connect, TLS and authenticate.

    Raises:
        Refused: the server said no.
        Unanswered: no answer that counts.
    """
    for address in addresses[:-1]:
        try:
            async with asyncio.timeout(tcp.NEXT_ADDRESS_AFTER) as limit:
                return await _log_in(login, address, checkup, limit)
        except (TimeoutError, Unanswered):
            # One that was connected to has answered for all of them.
            if "connect" in checkup.steps:
                raise
    return await _log_in(login, addresses[-1], checkup, None)


async def _log_in(login: Login, address: str, checkup: Checkup, limit: asyncio.Timeout | None) -> "PGconn":
    from psycopg import pq  # noqa: PLC0415 - the driver is an extra

    for name in _WITHOUT_OPTION:
        os.environ.pop(name, None)
    connection = pq.PGconn.connect_start(_conninfo(login, address))
    try:
        _be_verbose(connection)
        logged_in = await _poll(connection, checkup, limit)
    except BaseException:
        connection.finish()
        raise
    if not logged_in:
        error = _not_logged_in(login, connection, checkup)
        connection.finish()
        raise error
    version = connection.parameter_status(b"server_version")
    checkup.server_version = None if version is None else version.decode("utf-8", "replace")
    return connection


async def _poll(connection: "PGconn", checkup: Checkup, limit: asyncio.Timeout | None) -> bool:
    from psycopg.pq import PollingStatus  # noqa: PLC0415 - the driver is an extra

    # As the manual has it: before the first call, wait as if it had asked to write.
    wanted = PollingStatus.WRITING
    while wanted in (PollingStatus.WRITING, PollingStatus.READING) and connection.status != _BAD:
        await tcp.ready(connection.socket, write=wanted == PollingStatus.WRITING)
        wanted = PollingStatus(connection.connect_poll())
        _note(connection.status, checkup)
        if limit is not None and "connect" in checkup.steps:
            limit.reschedule(None)
    return wanted == PollingStatus.OK


def _note(status: int, checkup: Checkup) -> None:
    from psycopg.pq import ConnStatus  # noqa: PLC0415 - the driver is an extra

    if status in (ConnStatus.BAD, ConnStatus.STARTED, ConnStatus.NEEDED):
        return
    checkup.passed("connect")
    if status not in (ConnStatus.MADE, ConnStatus.SSL_STARTUP) and "TLS" not in checkup.steps:
        checkup.passed("TLS")
    if status in (ConnStatus.AUTH_OK, ConnStatus.OK):
        checkup.passed("authenticate")


def _conninfo(login: Login, address: str) -> bytes:
    given = {**_DEFAULTS, **login.options, "host": login.host, "hostaddr": address, "port": str(login.port)}
    # What a newer libpq takes from the environment is emptied too.
    given = {**dict.fromkeys(_from_environment(), ""), **{k: v for k, v in given.items() if k in _known()}}
    return " ".join(f"{name}='{_quoted(value)}'" for name, value in given.items()).encode()


def _quoted(value: str) -> str:
    return value.replace("\\", "\\\\").replace("'", "\\'")


@functools.cache
def _known() -> frozenset[str]:
    from psycopg.pq import Conninfo  # noqa: PLC0415 - the driver is an extra

    return frozenset(option.keyword.decode() for option in Conninfo.get_defaults())


@functools.cache
def _from_environment() -> frozenset[str]:
    from psycopg.pq import Conninfo  # noqa: PLC0415 - the driver is an extra

    # An empty service is looked for in files; its variable is removed instead.
    found = (option.keyword.decode() for option in Conninfo.get_defaults() if option.envvar)
    return frozenset(name for name in found if name not in {"service", "servicefile"})


@functools.cache
def _library() -> ctypes.CDLL | None:
    # The very library that psycopg loaded: another copy would not know its connections.
    for line in Path("/proc/self/maps").read_text().splitlines():
        path = line.partition("/")[2]
        if path.rpartition("/")[2].startswith("libpq") and ".so" in path:
            try:
                return ctypes.CDLL(f"/{path}")
            except OSError:
                return None
    return None


def _be_verbose(connection: "PGconn") -> None:
    library, pointer = _library(), getattr(connection, "pgconn_ptr", None)
    if library is not None and pointer is not None:
        library.PQsetErrorVerbosity(ctypes.c_void_p(pointer), _VERBOSE)


def _not_logged_in(login: Login, connection: "PGconn", checkup: Checkup) -> CheckFailed:
    text = connection.error_message.decode("utf-8", "replace")[:8192]
    found = _ERROR.search(text)
    if found is None:
        return _without_sqlstate(login, text, checkup)
    place = _LOCATION.search(text)
    function = place[1] if place is not None else ""
    if function in _AFTER_LOGIN or found[1] in _BAD_SETTINGS or (found[1], function) == _ROLE_IS_FULL:
        checkup.passed("authenticate")
    return _pooler_refusal(login, found[1], found[2].strip()) or _refusal(login, found[1], found[2], function)


def _pooler_refusal(login: Login, state: str, text: str) -> CheckFailed | None:
    if state == _POOLER_STATE:
        for said, reason, mend in _POOLER:
            if said.fullmatch(text):
                return Refused(reason, f"{login.where} says: {text} (SQLSTATE {state}): {mend}{_hint(login, reason)}")
    return None


def _refusal(login: Login, state: str, text: str, function: str) -> CheckFailed:
    says = f"{login.where} says: {text.strip()} (SQLSTATE {state})"
    if state.startswith("28"):
        # In every language: the one who looks through pg_hba.conf, not the one who compares passwords.
        if function == "ClientAuthentication":
            return Refused(
                Reason.AUTHORIZATION_FAILED,
                f"{says}: let this role connect from the operator's address in pg_hba.conf, "
                "with the TLS and the client certificate that it asks for",
            )
        hint = _hint(login, Reason.AUTHENTICATION_FAILED)
        return Refused(
            Reason.AUTHENTICATION_FAILED, f"{says}: put the right username and password into the Secret{hint}"
        )
    if state == "3D000":
        return Refused(Reason.TARGET_NOT_FOUND, f"{says}: name a database that exists")
    if state == "42501":
        return Refused(Reason.AUTHORIZATION_FAILED, f"{says}: grant the role what it lacks")
    if state in _BAD_SETTINGS:
        return Refused(Reason.INVALID_CONFIG, f"{says}: mend search_path or the other settings of this Connector")
    mend = "it is tried again by itself"
    if state in {"53300", "53400"}:
        mend = "it is tried again by itself; if it stays so, raise the server's or the role's limit of connections"
    return Unanswered(Reason.CONNECTION_FAILED, f"{says}: {mend}")


def _hint(login: Login, reason: Reason) -> str:
    return sql.password_hint(login.options.get("password")) if reason is Reason.AUTHENTICATION_FAILED else ""


# pgbouncer gives all that it says itself the state of a broken protocol, and says it in English. A refusal of the
# server's that it repeats ("server login has been failing, …") is of its own login and says nothing of ours.
_POOLER_STATE: Final = "08P01"
_POOLER: Final[tuple[tuple[re.Pattern[str], Reason, str], ...]] = (
    (
        re.compile(r"\S+ authentication failed|no such user"),
        Reason.AUTHENTICATION_FAILED,
        "put the right username and password into the Secret, and name a database that the pooler knows",
    ),
    (re.compile("no such database.*"), Reason.TARGET_NOT_FOUND, "name a database that the pooler knows"),
    (re.compile("SSL required"), Reason.AUTHORIZATION_FAILED, "write another sslmode than disable"),
    (
        re.compile("unsupported startup parameter.*"),
        Reason.INVALID_CONFIG,
        "leave search_path and statement_timeout out and set them on the role, with ALTER ROLE … SET",
    ),
)

_NOT_THIS_ROLE: Final = (
    "it is not what target_session_attrs asks for: name another host, or another target_session_attrs"
)
# What libpq itself says, or a pooler that sends no SQLSTATE; libpq speaks English here, whatever the server does.
_TEXTS: Final[tuple[tuple[str, type[CheckFailed], Reason, str], ...]] = (
    (
        "certificate verify failed",
        Unanswered,
        Reason.TLS_VERIFICATION_FAILED,
        f"the server's certificate has expired, or is signed by no CA that is trusted here: renew it, or {tls.MEND_CA}",
    ),
    (
        "does not match host name",
        Unanswered,
        Reason.TLS_VERIFICATION_FAILED,
        "the server's certificate is for another name: name the host that it is for, or have it issued anew",
    ),
    (
        "server does not support SSL",
        Unanswered,
        Reason.TLS_VERIFICATION_FAILED,
        "the server speaks no TLS: turn it on there, or write sslmode: disable if everything may be read on the way",
    ),
    ("password authentication failed", Refused, Reason.AUTHENTICATION_FAILED, "put the right password into the Secret"),
    ("no password supplied", Refused, Reason.AUTHENTICATION_FAILED, "put a password into the Secret"),
    (
        "authentication method requirement",
        Refused,
        Reason.AUTHENTICATION_FAILED,
        "the server asks for a way to log in that is not supported: let the role log in by password or certificate",
    ),
    ("no pg_hba.conf entry", Refused, Reason.AUTHORIZATION_FAILED, "let the role connect in pg_hba.conf"),
    ("no such database", Refused, Reason.TARGET_NOT_FOUND, "name a database that exists"),
    (
        "alert",
        Refused,
        Reason.AUTHENTICATION_FAILED,
        "the server does not accept the client certificate: give one that it trusts in ssl_cert and ssl_key",
    ),
    *(
        (said, Unanswered, Reason.CONNECTION_FAILED, _NOT_THIS_ROLE)
        for said in ("session is read-only", "session is not read-only", "hot standby mode")
    ),
)


def _without_sqlstate(login: Login, text: str, checkup: Checkup) -> CheckFailed:
    # The first line: those behind it ask whether the server runs.
    said = _PREFIX.sub("", text).strip().partition("\n")[0].strip()
    for part, kind, reason, mend in _TEXTS:
        if part in text and (part != "alert" or "certificate" in text or "unknown ca" in text):
            if mend is _NOT_THIS_ROLE:
                # What the server is, is asked of it by who is logged in.
                checkup.passed("authenticate")
            return kind(reason, f"{login.where}: {said}: {mend}{_hint(login, reason)}")
    if "connect" not in checkup.steps:
        return Unanswered(
            Reason.CONNECTION_FAILED,
            f"cannot connect to {login.where}: {said}; make sure that the host and the port are right, that the server "
            "listens, and that firewalls and network policies let the operator through",
        )
    tls_asked = checkup.steps.get("TLS") is None
    return Unanswered(
        Reason.TLS_VERIFICATION_FAILED if tls_asked and "SSL error" in text else Reason.CONNECTION_FAILED,
        f"{login.where}: {said}: make sure that a PostgreSQL server answers on this port",
    )


async def may_use(connection: "PGconn", schemas: Sequence[str]) -> None:
    """Make sure that the role may use schemas.

    Raises:
        Refused: `TargetNotFound` or `AuthorizationFailed`, naming them.
        Unanswered: the connection broke.
    """
    if not schemas:
        return
    names = ",".join(f"({_literal(connection, name)})" for name in schemas)
    result = await query(
        connection,
        "select wanted.name, has_schema_privilege(found.oid, 'USAGE') "  # noqa: S608 - quoted by libpq
        f"from (values {names}) as wanted(name) left join pg_catalog.pg_namespace found on found.nspname = wanted.name",
    )
    rows = {_text(result.get_value(row, 0)): result.get_value(row, 1) for row in range(result.ntuples)}
    missing = [name for name in schemas if rows.get(name) is None]
    if missing:
        raise Refused(
            Reason.TARGET_NOT_FOUND,
            f"there is no schema {', '.join(missing)} in this database: name schemas that exist in spec.outputSchemas",
        )
    barred = [name for name in schemas if rows.get(name) != b"t"]
    if barred:
        raise Refused(
            Reason.AUTHORIZATION_FAILED,
            f"the role may not use the schema {', '.join(barred)}: grant usage on schema {', '.join(barred)} to it",
        )


def _literal(connection: "PGconn", value: str) -> str:
    from psycopg.pq import Escaping  # noqa: PLC0415 - the driver is an extra

    return bytes(Escaping(connection).escape_literal(value.encode())).decode()


def _text(value: bytes | None) -> str:
    return (value or b"").decode("utf-8", "replace")


async def query(connection: "PGconn", statement: str) -> "PGresult":
    """Run SQL by the simple protocol, which every pooler passes on; the last result that has rows, or the last.

    Raises:
        Refused: the server said no.
        Unanswered: the connection broke, or the answer has no end.
    """
    from psycopg.pq import ExecStatus  # noqa: PLC0415 - the driver is an extra

    connection.nonblocking = 1
    connection.send_query(statement.encode())
    while connection.flush():
        await tcp.ready(connection.socket, write=True)
    kept: PGresult | None = None
    reads = 0
    while True:
        while connection.is_busy():
            await tcp.ready(connection.socket, write=False)
            reads += 1
            if reads > _READS:
                raise Unanswered(
                    Reason.CONNECTION_FAILED,
                    "the answer to a check has no end: make sure that this is a PostgreSQL server",
                )
            _consume(connection)
        result = connection.get_result()
        if result is None and kept is not None:
            return kept
        if result is None:
            raise Unanswered(Reason.CONNECTION_FAILED, "the server answered nothing: it is tried again by itself")
        if result.status in (ExecStatus.TUPLES_OK, ExecStatus.COMMAND_OK):
            kept = result if result.status == ExecStatus.TUPLES_OK or kept is None else kept
            continue
        raise _query_failed(result)


def _consume(connection: "PGconn") -> None:
    from psycopg import OperationalError  # noqa: PLC0415 - the driver is an extra

    try:
        connection.consume_input()
    except OperationalError as error:
        raise Unanswered(
            Reason.CONNECTION_FAILED, f"the server ended the connection: {' '.join(str(error).split())}: see its log"
        ) from None


def _query_failed(result: "PGresult") -> CheckFailed:
    from psycopg.pq import DiagnosticField  # noqa: PLC0415 - the driver is an extra

    state = _text(result.error_field(DiagnosticField.SQLSTATE))
    text = _text(result.error_field(DiagnosticField.MESSAGE_PRIMARY)) or " ".join(_text(result.error_message).split())
    if state == "42501":
        return Refused(Reason.AUTHORIZATION_FAILED, f"the server says: {text}: grant the role what it lacks")
    return Unanswered(
        Reason.CONNECTION_FAILED, f"the server says: {text} (SQLSTATE {state}): it is tried again by itself"
    )
