"""PostgreSQL and what speaks its protocol, by psycopg's libpq."""

import contextlib
from collections.abc import Mapping
from typing import Annotated, Any, ClassVar, Final, Literal, get_args
from urllib.parse import parse_qsl, unquote, urlsplit

from pydantic import Field, SecretStr, field_validator, model_validator

from honeyframe_connectors.connector_type import Category, Checkup, ConnectorType, Guard, Mark
from honeyframe_connectors.families import libpq, sql, tls

SslMode = Literal["disable", "require", "verify-ca", "verify-full"]
SessionAttributes = Literal["any", "read-write", "read-only", "primary", "standby", "prefer-standby"]

# Everything else is refused by name: libpq has parameters that name files, services, other hosts and identities.
_URI_PARAMETERS: Final = ("application_name", "connect_timeout", "options", "sslmode", "target_session_attrs")
_CHOICES: Final = {"sslmode": get_args(SslMode), "target_session_attrs": get_args(SessionAttributes)}
_OPTIONS_PREFIXES: Final = ("-csearch_path=", "-c search_path=", "--search_path=")


class PostgreSQLConfig(tls.ClientCertificate, sql.Pool):
    """How to reach a database of PostgreSQL."""

    host: Annotated[
        str,
        Mark.DESTINATION,
        Mark.MAPPABLE,
        Field(description="Host name or address of the server. May come from the Secret."),
    ]
    port: Annotated[
        int,
        Mark.DESTINATION,
        Mark.MAPPABLE,
        Field(ge=1, le=65_535, description="TCP port of the server. Default: 5432. May come from the Secret."),
    ] = 5432
    database: Annotated[
        str,
        Mark.MAPPABLE,
        Field(min_length=1, max_length=63, description="Database to connect to. May come from the Secret."),
    ]
    username: Annotated[
        str,
        Mark.ACCOUNT,
        Mark.MAPPABLE,
        Field(min_length=1, max_length=255, description="Role to log in as. May come from the Secret."),
    ]
    password: Annotated[
        SecretStr | None,
        Mark.SECRET,
        Field(description="Password of the role. Not needed where a client certificate is enough."),
    ] = None
    uri: Annotated[
        SecretStr | None,
        Mark.SECRET,
        Field(
            description="Instead of `host`, `port`, `database`, `username` and `password`: "
            "`postgresql://username:password@host:port/database`, as CloudNativePG writes it into its Secrets. "
            f"Parameters that it may have: {', '.join(_URI_PARAMETERS)}."
        ),
    ] = None
    sslmode: Annotated[
        SslMode,
        Field(
            description="`verify-full` checks the server's certificate and its name, `verify-ca` the certificate only, "
            "`require` encrypts and checks nothing (with a caRef: as `verify-ca`), `disable` sends everything in the "
            "clear. Default: `verify-full`."
        ),
    ] = "verify-full"
    search_path: Annotated[
        str | None,
        Field(max_length=1024, description="Schemas to look for tables in, separated by commas. Default: the role's."),
    ] = None
    target_session_attrs: Annotated[
        SessionAttributes,
        Field(description="What the server must be (`read-write`, `standby` …) to be used. Default: `any`."),
    ] = "any"
    application_name: Annotated[
        str,
        Field(min_length=1, max_length=63, description="Shown in pg_stat_activity. Default: `honeyframe`."),
    ] = "honeyframe"
    statement_timeout: Annotated[
        int | None,
        Field(
            ge=1,
            le=86_400_000,
            description="Milliseconds after which the server ends a statement. Default: the role's.",
        ),
    ] = None

    @model_validator(mode="before")
    @classmethod
    def _uri_is_its_parts(cls, values: Any) -> Any:
        if not isinstance(values, Mapping) or values.get("uri") is None:
            return values
        uri = values["uri"]
        found = _parse(uri.get_secret_value() if isinstance(uri, SecretStr) else str(uri))
        for name in found:
            if name in values:
                raise ValueError(f"uri and {name} say the same thing: give one of them")
        # Forgotten, so that there is one place where each thing stands.
        return {**{name: value for name, value in values.items() if name != "uri"}, **found}

    @field_validator("host")
    @classmethod
    def _one_host(cls, host: str) -> str:
        return sql.host_name(host)

    @field_validator("database", "username", "application_name", "search_path")
    @classmethod
    def _one_line(cls, value: str | None) -> str | None:
        if value is not None and not value.isprintable():
            raise ValueError("it holds line ends or control characters: write it without, with printf instead of echo")
        return value


def _parse(uri: str) -> dict[str, Any]:
    try:
        parts = urlsplit(uri.strip())
        port = parts.port
    except ValueError:
        # From outside, so that the first error, which quotes the input, is not its context.
        parts, port = None, None
    if parts is None or parts.scheme not in {"postgresql", "postgres"} or not parts.netloc:
        raise ValueError("uri is none that can be read: write postgresql://username:password@host:port/database")
    if "," in parts.netloc.rpartition("@")[2]:
        raise ValueError("uri names several hosts: name one")
    if parts.fragment:
        raise ValueError("uri has a part behind #: write # in a password as %23")
    found: dict[str, Any] = {
        "host": unquote(parts.hostname or ""),
        "port": port,
        "database": unquote(parts.path.removeprefix("/")),
        "username": unquote(parts.username or ""),
        "password": SecretStr(unquote(parts.password)) if parts.password else None,
    }
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name not in _URI_PARAMETERS:
            # The name may be a password's end, where an & in it was not written as %26.
            shown = name if name in libpq.KNOWN_PARAMETERS else "one"
            raise ValueError(
                f"uri has a parameter that it may not have ({shown}): it may have {', '.join(_URI_PARAMETERS)}"
            )
        if name == "options":
            found["search_path"] = _search_path(value)
        elif name in _CHOICES and value not in _CHOICES[name]:
            raise ValueError(f"uri has a {name} that cannot be used: it may be {', '.join(_CHOICES[name])}")
        elif name != "connect_timeout":
            # The deadline of a check is spec.timeout; a URI's own is read and does nothing.
            found[name] = value
    return {name: value for name, value in found.items() if value not in (None, "")}


def _search_path(options: str) -> str:
    for prefix in _OPTIONS_PREFIXES:
        if options.startswith(prefix) and "-" not in options[len(prefix) :].replace("\\ ", "").partition(" ")[2]:
            return options[len(prefix) :].replace("\\ ", " ")
    raise ValueError("uri has options other than a search_path: write options=-csearch_path=SCHEMA, or none")


class PostgreSQL(ConnectorType[PostgreSQLConfig]):
    """PostgreSQL, Amazon RDS and Aurora, CloudNativePG, and poolers before them."""

    name: ClassVar[str] = "postgresql"
    title: ClassVar[str] = "PostgreSQL"
    category: ClassVar[Category] = Category.DATABASE
    queryable: ClassVar[bool] = True
    aliases: ClassVar[tuple[str, ...]] = ("rds", "postgres", "pg")
    driver: ClassVar[str | None] = "psycopg"
    extra: ClassVar[str | None] = "postgresql"
    steps: ClassVar[tuple[str, ...]] = ("resolve", "connect", "TLS", "authenticate", "authorise", "query")
    guard: ClassVar[Guard] = Guard.PINNED
    config = PostgreSQLConfig

    def endpoints(self, config: PostgreSQLConfig) -> tuple[tuple[str, int], ...]:
        """The server."""
        return ((config.host, config.port),)

    def strictness(self, config: PostgreSQLConfig, ca: bytes | None) -> int:
        """By sslmode; `require` with a CA verifies as `verify-ca` does."""
        mode = "verify-ca" if config.sslmode == "require" and ca is not None else config.sslmode
        return get_args(SslMode).index(mode)

    async def check(self, config: PostgreSQLConfig, checkup: Checkup) -> None:
        """Log in, ask for USAGE on the output schemas, and `select 1` in a transaction that may only read."""
        self.require_driver()
        addresses = await checkup.targets.resolve(config.host, config.port)
        checkup.passed("resolve")
        if config.sslmode == "disable":
            checkup.not_tested("TLS", "sslmode is disable")
        with contextlib.ExitStack() as files:
            login = libpq.Login(
                host=config.host,
                port=config.port,
                options=_options(config, checkup.ca, files),
            )
            connection = await libpq.connect(login, addresses, checkup)
        try:
            await libpq.may_use(connection, checkup.output_schemas)
            checkup.passed("authorise", "" if checkup.output_schemas else "may connect to the database")
            await libpq.query(connection, "start transaction read only; select 1; rollback")
            checkup.passed("query")
        finally:
            connection.finish()


def _options(config: PostgreSQLConfig, ca: bytes | None, files: contextlib.ExitStack) -> dict[str, str]:
    settings = []
    if config.search_path is not None:
        settings.append(f"-csearch_path={_escaped(config.search_path)}")
    if config.statement_timeout is not None:
        settings.append(f"-cstatement_timeout={config.statement_timeout}")
    options = {
        "user": config.username,
        "dbname": config.database,
        "password": "" if config.password is None else config.password.get_secret_value(),
        "sslmode": config.sslmode,
        "target_session_attrs": config.target_session_attrs,
        "application_name": config.application_name,
        "options": " ".join(settings),
    }
    if ca is not None and config.sslmode != "disable":
        # Read here first: libpq would tell a bundle without certificates as an error of the server.
        tls.context(ca)
        options["sslrootcert"] = files.enter_context(tls.memory_file(ca))
    elif config.sslmode.startswith("verify"):
        # The library that psycopg brings looks for the public roots where its builder had them.
        options["sslrootcert"] = tls.system_bundle()
    if config.ssl_cert is not None and config.ssl_key is not None and config.sslmode != "disable":
        # Loaded here first: libpq would tell a wrong passphrase as an error of the server.
        tls.context(ca, config)
        options["sslcert"] = files.enter_context(tls.memory_file(config.ssl_cert.encode()))
        options["sslkey"] = files.enter_context(tls.memory_file(config.ssl_key.get_secret_value().encode()))
        options["sslcertmode"] = "allow"
        if config.ssl_key_password is not None:
            options["sslpassword"] = config.ssl_key_password.get_secret_value()
    return options


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace(" ", "\\ ")
