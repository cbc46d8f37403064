"""A real pgbouncer on loopback in front of a PostgreSQL, TLS on both sides, for the tests."""

import os
import shutil
import sys
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import ClassVar, Self

from hack import debian
from hack.certificates import Authority
from hack.errors import SetupError
from hack.files import write_private
from hack.postgres import PostgresServer
from hack.processes import PortTakenError, Process, on_a_free_port, wait_until

_WHAT_TO_INSTALL = "install it (Debian and Ubuntu: apt-get install pgbouncer) or put it on PATH"
_UNIT = Path("/etc/systemd/system/pgbouncer.service")
_SETTINGS = """\
[databases]
{database} = host={server.host} port={server.port} auth_user={server.admin_user}

[pgbouncer]
listen_addr = {self.host}
listen_port = {self.port}
unix_socket_dir =
pool_mode = transaction
auth_type = scram-sha-256
auth_file = {self.directory}/users.txt
client_tls_sslmode = require
client_tls_cert_file = {self.directory}/server.crt
client_tls_key_file = {self.directory}/server.key
server_tls_sslmode = verify-full
server_tls_ca_file = {self.directory}/upstream.crt
"""
"""What a role's password is, is asked of the server at each login (auth_query)."""


@dataclass
class PgBouncer:
    """A pooler of transactions that lets every role of the server log in; it ends with this process at the latest."""

    host: ClassVar[str] = "127.0.0.1"

    server: PostgresServer
    database: str
    directory: Path
    port: int = 0
    _process: Process | None = field(repr=False, default=None)

    @classmethod
    def start(cls, server: PostgresServer, database: str) -> Self:
        """Start it for one database of a server, in a temporary directory, and wait until it answers."""
        program, owner = find_or_install(), debian.account()
        home = Path(tempfile.mkdtemp(prefix="honeyframe-pgbouncer-"))
        pooler = cls(server, database, home)
        tls = Authority("honeyframe pgbouncer").server("pgbouncer")
        pooler.ca_file.write_bytes(tls.ca)
        (home / "upstream.crt").write_bytes(server.ca_file.read_bytes())
        (home / "server.crt").write_bytes(tls.certificate)
        write_private(home / "server.key", tls.key)
        write_private(home / "users.txt", f'"{server.admin_user}" "{server.admin_password}"\n')
        if owner is not None:
            for path in (home, *home.iterdir()):
                os.chown(path, *owner)
        on_a_free_port(lambda port: pooler._launch(program, owner, port))
        return pooler

    @property
    def ca_file(self) -> Path:
        """What verifies its certificate."""
        return self.directory / "ca.crt"

    @property
    def log_file(self) -> Path:
        """Everything that it wrote."""
        return self.directory / "pgbouncer.log"

    def _launch(self, program: Path, owner: tuple[int, int] | None, port: int) -> None:
        self.port = port
        settings = self.directory / "pgbouncer.ini"
        settings.write_text(_SETTINGS.format(self=self, server=self.server, database=self.database))
        process = Process.start([program, settings], self.log_file, cwd=Path("/"), user=owner)
        try:
            wait_until(lambda: self.server.answers(port), [process], "pgbouncer")
        except BaseException as error:
            process.stop()
            if process.port_was_taken() and isinstance(error, SetupError):
                raise PortTakenError(f"pgbouncer's port {port} is in use.") from error
            raise
        self._process = process

    def stop(self) -> None:
        """End it and remove its directory; a second call does nothing."""
        if self._process is not None:
            self._process.stop()
            self._process = None
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def find_or_install() -> Path:
    """Pgbouncer's program; as root on a machine with apt-get it is installed when missing."""
    if found := _find():
        return found
    apt = debian.apt_get("pgbouncer", _WHAT_TO_INSTALL)
    # Debian's package starts one of its own on port 6432, now and at every boot, unless its unit is masked.
    if not _UNIT.exists() and _UNIT.parent.is_dir():
        _UNIT.symlink_to("/dev/null")
    debian.install(apt, "pgbouncer", _WHAT_TO_INSTALL)
    if found := _find():
        return found
    raise SetupError(f"pgbouncer is missing after its installation: {_WHAT_TO_INSTALL}.")


def _find() -> Path | None:
    # Debian keeps it where only root's PATH leads.
    found = shutil.which("pgbouncer", path=os.pathsep.join([os.environ.get("PATH", ""), "/usr/sbin"]))
    return Path(found) if found else None


def main() -> int:
    """Make sure that the program is there; the set-up calls this."""
    try:
        find_or_install()
    except SetupError as error:
        print(f"setup: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
