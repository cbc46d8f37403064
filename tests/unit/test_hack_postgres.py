import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hack import postgres
from hack.certificates import Authority
from hack.errors import SetupError
from hack.postgres import PostgresServer

ROOT = Path(postgres.__file__).parents[1]
SSL_REQUEST = b"\x00\x00\x00\x08\x04\xd2\x16\x2f"
DIES = """
import os, signal, sys
from pathlib import Path
from hack.postgres import PostgresServer
from hack.supervisor import descendants
server = PostgresServer.start(Path(sys.argv[1]))
print(*descendants(os.getpid()), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with PostgresServer.start(settings={"max_connections": "20"}) as started:
        yield started


def test_the_administrator_comes_by_tls(server: PostgresServer) -> None:
    assert server.psql("SELECT ssl FROM pg_stat_ssl WHERE pid = pg_backend_pid()") == "t"
    assert server.psql("SHOW max_connections") == "20"
    assert server.admin_password not in repr(server)


def test_another_authority_is_not_believed(server: PostgresServer, tmp_path: Path) -> None:
    other = tmp_path / "ca.crt"
    other.write_bytes(Authority("another").pem)
    right, server.ca_file = server.ca_file, other
    try:
        with pytest.raises(SetupError, match="certificate verify failed"):
            server.psql("SELECT 1")
    finally:
        server.ca_file = right


def test_odd_names_and_passwords_are_quoted(server: PostgresServer) -> None:
    server.create_role('o"dd', "it's")
    server.create_database("it's", owner='o"dd')
    owner = "SELECT pg_get_userbyid(datdba) FROM pg_database WHERE datname = current_database()"
    assert server.psql(owner, "it's") == 'o"dd'


def test_a_restart_keeps_port_and_data(server: PostgresServer) -> None:
    port = server.port
    server.create_database("kept")
    server.restart()
    assert server.port == port
    assert server.psql("SELECT current_database()", "kept") == "kept"


def test_paused_it_accepts_and_never_answers(server: PostgresServer) -> None:
    server.pause()
    try:
        with socket.create_connection((server.host, server.port), timeout=1) as client:
            client.sendall(SSL_REQUEST)
            with pytest.raises(TimeoutError):
                client.recv(1)
            server.resume()
            assert client.recv(1) == b"S"
    finally:
        server.resume()


def test_a_killed_parent_leaves_no_process() -> None:
    # Not pytest's own directory: the user that PostgreSQL runs as could not enter it.
    directory = tempfile.mkdtemp(prefix="honeyframe-pg-")
    with subprocess.Popen(
        [sys.executable, "-c", DIES, directory], stdout=subprocess.PIPE, text=True, cwd=ROOT
    ) as parent:
        assert parent.stdout is not None
        files = [Path(f"/proc/{pid}/stat") for pid in parent.stdout.readline().split()]
    assert len(files) > 1
    for _ in range(100):
        if not [file for file in files if file.exists() and ") Z " not in file.read_text()]:
            shutil.rmtree(directory)
            return
        time.sleep(0.1)
    raise AssertionError("processes are left after 10 s")


def test_without_postgresql_and_root_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(postgres, "_find", lambda: None)
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(SetupError, match=r"PostgreSQL is missing: install .*apt-get install postgresql"):
        PostgresServer.start()
