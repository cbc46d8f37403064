"""A real PostgreSQL on loopback, TLS on, for the demo and the tests."""

import contextlib
import os
import re
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from hack import debian
from hack.certificates import Authority, ServerCertificate
from hack.errors import SetupError
from hack.files import write_private
from hack.processes import PortTakenError, Process, environment_without, on_a_free_port, tail, wait_until
from hack.supervisor import descendants, send

PROGRAMS = ("initdb", "postgres", "psql", "pg_isready")
_WHAT_TO_INSTALL = "install PostgreSQL's server (Debian and Ubuntu: apt-get install postgresql) or put its bin on PATH"
_SETTINGS = {
    "listen_addresses": "127.0.0.1",
    "fsync": "off",
    "full_page_writes": "off",
    "synchronous_commit": "off",
    "max_connections": "100",
    "ssl": "on",
    "ssl_cert_file": "server.crt",
    "ssl_key_file": "server.key",
}
_HBA = "host all all 127.0.0.1/32 scram-sha-256\n"


@dataclass
class PostgresServer:
    """One server; it ends with this process at the latest."""

    host: ClassVar[str] = "127.0.0.1"
    admin_user: ClassVar[str] = "admin"

    port: int
    admin_password: str = field(repr=False)
    ca_file: Path
    directory: Path
    _bin: Path = field(repr=False)
    _settings: Mapping[str, str] = field(repr=False)
    _owner: tuple[int, int] | None = field(repr=False)
    _temporary: bool = field(repr=False)
    _process: Process | None = field(repr=False, default=None)

    @classmethod
    def start(
        cls,
        directory: Path | None = None,
        tls: ServerCertificate | None = None,
        settings: Mapping[str, str] | None = None,
    ) -> Self:
        """Start a new, empty server and wait until it answers.

        Args:
            directory: a new or empty directory for data and log, kept at the end; without it a temporary one
            tls: the certificate it shows; without it one by an authority of its own
            settings: what differs from our defaults in postgresql.conf
        """
        programs = find_or_install()
        owner = debian.account()
        temporary = directory is None
        home = Path(tempfile.mkdtemp(prefix="honeyframe-pg-")) if directory is None else directory.resolve()
        home.mkdir(parents=True, exist_ok=True)
        if owner is not None:
            os.chown(home, *owner)
        server = cls(
            port=0,
            admin_password=secrets.token_urlsafe(24),
            ca_file=home / "ca.crt",
            directory=home,
            _bin=programs,
            _settings={**_SETTINGS, **(settings or {})},
            _owner=owner,
            _temporary=temporary,
        )
        server._initialize(tls or Authority("honeyframe PostgreSQL").server("postgresql"))
        on_a_free_port(server._launch)
        return server

    @property
    def _data(self) -> Path:
        return self.directory / "data"

    def _initialize(self, tls: ServerCertificate) -> None:
        password = write_private(self.directory / "password", self.admin_password)
        self._give(password)
        uid, gid = self._owner or (None, None)
        try:
            result = subprocess.run(
                [
                    self._bin / "initdb",
                    f"--pgdata={self._data}",
                    f"--username={self.admin_user}",
                    f"--pwfile={password}",
                    "--auth=scram-sha-256",
                    "--encoding=UTF8",
                    "--locale=C",
                    "--no-sync",
                    "--no-instructions",
                ],
                user=uid,
                group=gid,
                extra_groups=None if uid is None else [],
                # Root's own directory may be closed to the user that initdb runs as.
                cwd="/",
                env=environment_without("PG"),
                capture_output=True,
                text=True,
                check=False,
            )
        finally:
            password.unlink()
        if result.returncode != 0:
            raise SetupError(f"initdb failed in {self.directory}: {tail(result.stderr)}")
        (self._data / "pg_hba.conf").write_text(_HBA)
        (self._data / "server.crt").write_bytes(tls.certificate)
        self._give(self._data / "server.crt")
        self._give(write_private(self._data / "server.key", tls.key))
        self.ca_file.write_bytes(tls.ca)

    def _give(self, path: Path) -> None:
        if self._owner is not None:
            os.chown(path, *self._owner)

    def _launch(self, port: int) -> None:
        self.port = port
        # The path of a socket may have 107 characters, so none is made: TCP is all that anybody uses.
        settings = {**self._settings, "port": str(self.port), "unix_socket_directories": ""}
        command: list[str | Path] = [self._bin / "postgres", "-D", self._data]
        for name, value in settings.items():
            command += ["-c", f"{name}={value}"]
        process = Process.start(
            command,
            self.directory / "postgres.log",
            env=environment_without("PG"),
            cwd=Path("/"),
            user=self._owner,
            # SIGTERM would wait for the clients to leave.
            stop_signal=signal.SIGINT,
        )
        try:
            wait_until(lambda: self.answers(port), [process], "PostgreSQL")
        except BaseException as error:
            process.stop()
            if process.port_was_taken() and isinstance(error, SetupError):
                raise PortTakenError(f"PostgreSQL's port {self.port} is in use.") from error
            raise
        self._process = process

    def answers(self, port: int) -> bool:
        """Whether something on a port of loopback, this server or a pooler, answers as PostgreSQL does."""
        result = subprocess.run(
            [self._bin / "pg_isready", "-q", "-h", self.host, "-p", str(port)],
            env=environment_without("PG"),
            check=False,
        )
        return result.returncode == 0

    def stop(self) -> None:
        """End it and remove the directory where it was a temporary one; a second call does nothing."""
        self._end()
        if self._temporary:
            shutil.rmtree(self.directory, ignore_errors=True)

    def _end(self) -> None:
        if self._process is not None:
            self._process.stop()
            self._process = None

    def restart(self) -> None:
        """Stop it and start it again, on the same port with the same data."""
        self._end()
        self._launch(self.port)

    def pause(self) -> None:
        """Let it accept connections and never answer, until `resume`."""
        postmaster = self._running()
        # The postmaster first, so that no child is born in between.
        send([postmaster], signal.SIGSTOP)
        send(descendants(postmaster), signal.SIGSTOP)

    def resume(self) -> None:
        """Let it answer again."""
        postmaster = self._running()
        send([*descendants(postmaster), postmaster], signal.SIGCONT)

    def _running(self) -> int:
        if self._process is None:
            raise SetupError("PostgreSQL is stopped.")
        return self._process.pid

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def psql(self, sql: str, database: str = "postgres") -> str:
        """Run statements as administrator; rows by line, columns by `|`.

        Raises:
            SetupError: a statement failed; the message is what the server said
        """
        environment = {
            **environment_without("PG"),
            "PGPASSWORD": self.admin_password,
            "PGSSLMODE": "verify-full",
            "PGSSLROOTCERT": str(self.ca_file),
            "PGCONNECT_TIMEOUT": "10",
        }
        arguments = ["-h", self.host, "-p", str(self.port), "-U", self.admin_user, "-d", database]
        result = subprocess.run(
            [self._bin / "psql", "-X", "-A", "-t", "-q", "-w", "-v", "ON_ERROR_STOP=1", *arguments, "-f", "-"],
            # Not an argument: statements carry passwords, and arguments are everybody's to see.
            input=sql,
            env=environment,
            capture_output=True,
            text=True,
            check=False,
        )
        if result.returncode != 0:
            raise SetupError(f"psql: {result.stderr.strip()}")
        return result.stdout.strip()

    def create_role(self, name: str, password: str) -> None:
        """Make a role that may log in."""
        self.psql(f"CREATE ROLE {_identifier(name)} LOGIN PASSWORD {_literal(password)}")

    def create_database(self, name: str, owner: str | None = None) -> None:
        """Make a database, the administrator's or another role's."""
        suffix = "" if owner is None else f" OWNER {_identifier(owner)}"
        self.psql(f"CREATE DATABASE {_identifier(name)}{suffix}")


def _identifier(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'


def _literal(value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def find_or_install() -> Path:
    """The directory of PostgreSQL's programs; as root on a machine with apt-get they are installed when missing."""
    if found := _find():
        return found
    _install(debian.apt_get("PostgreSQL", _WHAT_TO_INSTALL))
    if found := _find():
        return found
    raise SetupError(f"PostgreSQL is missing after its installation: {_WHAT_TO_INSTALL}.")


def _find() -> Path | None:
    candidates: list[Path] = []
    if pg_config := shutil.which("pg_config"):
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            answer = subprocess.run([pg_config, "--bindir"], capture_output=True, text=True, check=True)
            candidates.append(Path(answer.stdout.strip()))
    candidates += sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=_major, reverse=True)
    if postgres := shutil.which("postgres"):
        candidates.append(Path(postgres).resolve().parent)
    # A pg_config that came with the client library alone names a directory without a server.
    return next((path for path in candidates if all((path / name).is_file() for name in PROGRAMS)), None)


def _major(path: Path) -> int:
    found = re.match(r"\d+", path.parent.name)
    return int(found[0]) if found else 0


def _install(apt: str) -> None:
    # Debian's package makes a cluster of its own on port 5432 and starts it, unless this file says not to.
    own = Path("/etc/postgresql-common/createcluster.conf")
    if not own.exists():
        own.parent.mkdir(parents=True, exist_ok=True)
        own.write_text("create_main_cluster = false\n")
    debian.install(apt, "postgresql", _WHAT_TO_INSTALL)


def main() -> int:
    """Make sure that PostgreSQL's programs are there; the set-up calls this."""
    try:
        find_or_install()
    except SetupError as error:
        print(f"setup: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
