import pytest

from hack import pgbouncer, processes
from hack.errors import SetupError
from hack.pgbouncer import PgBouncer
from hack.postgres import PostgresServer
from tests.support.targets_servers import closed_port


def test_it_goes_with_all_that_it_made(postgres: PostgresServer) -> None:
    with PgBouncer.start(postgres, "postgres") as pooler:
        assert postgres.answers(pooler.port)
        assert postgres.admin_password not in repr(pooler)
        assert postgres.admin_password not in pooler.log_file.read_text()
    assert not postgres.answers(pooler.port)
    assert not pooler.directory.exists()


def test_a_port_that_is_taken_is_left_for_another(monkeypatch: pytest.MonkeyPatch, postgres: PostgresServer) -> None:
    with closed_port() as taken:
        ports = iter([taken, processes.free_port()])
        monkeypatch.setattr(processes, "free_port", lambda: next(ports))
        with PgBouncer.start(postgres, "postgres") as pooler:
            assert pooler.port != taken


def test_without_it_and_root_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pgbouncer, "_find", lambda: None)
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    with pytest.raises(SetupError, match=r"pgbouncer is missing: install it .*apt-get install pgbouncer"):
        pgbouncer.find_or_install()
