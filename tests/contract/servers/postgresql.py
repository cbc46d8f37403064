"""A real PostgreSQL with TLS, a role that may, and one that may not."""

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

from hack.certificates import Authority
from hack.postgres import PostgresServer
from tests.contract.bench import Bench, Situation

PASSWORD = "opensesame-6c1f9a"
TEN_MB = 10 * 1024 * 1024


@contextmanager
def start(authority: Authority) -> Iterator[Bench]:
    with PostgresServer.start(tls=authority.server("postgresql")) as server:
        server.create_role("reader", PASSWORD)
        server.create_database("analytics")
        server.psql("create schema closed", database="analytics")

        def at(host: str, port: int) -> Situation:
            return Situation(
                declared={"host": host, "port": port, "database": "analytics", "username": "reader"},
                secrets={"password": PASSWORD.encode()},
                ca=authority.pem,
            )

        right = replace(at("localhost", server.port), output_schemas=("public",))
        yield Bench(
            right=right,
            without_credential=replace(right, secrets={}),
            wrong_credential=replace(right, secrets={"password": b"not-it-93ab\n"}),
            no_permission=replace(right, output_schemas=("public", "closed")),
            not_there=replace(right, declared={**right.declared, "database": "nowhere"}),
            at=at,
            plain_at=lambda host, port: replace(
                at(host, port), declared={**at(host, port).declared, "sslmode": "disable"}
            ),
            before_tls=_accept_tls,
            huge=(
                (_message(b"E", b"SFATAL\0C28P01\0M" + b"x" * TEN_MB + b"\0\0"),),
                (_WELCOME, _rows(TEN_MB)),
                (_WELCOME + _message(b"N", b"SNOTICE\0C00000\0M" + b"x" * TEN_MB + b"\0\0") + _rows(1),),
            ),
            environment={
                "PGPASSWORD": PASSWORD,
                "PGSERVICE": "planted",
                "PGSSLMODE": "disable",
                "PGOPTIONS": "-crole=nobody",
                "PGHOSTADDR": "192.0.2.1",
            },
            home={
                ".pgpass": f"*:*:*:*:{PASSWORD}\n",
                ".pg_service.conf": f"[planted]\npassword={PASSWORD}\n",
                ".postgresql/root.crt": "planted",
                ".postgresql/root.crl": "planted",
                ".postgresql/postgresql.crt": "planted",
                ".postgresql/postgresql.key": "planted",
            },
        )


def _accept_tls(connection: socket.socket) -> None:
    connection.recv(8)
    connection.sendall(b"S")


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!i", len(body) + 4) + body


def _rows(size: int) -> bytes:
    column = b"?column?\0" + struct.pack("!ihihih", 0, 0, 25, -1, -1, 0)
    return (
        _message(b"T", struct.pack("!h", 1) + column)
        + _message(b"D", struct.pack("!hi", 1, size) + b"1" * size)
        + _message(b"C", b"SELECT 1\0")
        + _message(b"Z", b"I")
    )


_WELCOME = (
    _message(b"R", struct.pack("!i", 0))
    + _message(b"S", b"server_version\0" + b"9" * 2000 + b"\0")
    + _message(b"Z", b"I")
)
