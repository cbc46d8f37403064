"""A pgbouncer in front of PostgreSQL: it answers for the server, in words of its own."""

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pytest

from hack.pgbouncer import PgBouncer
from hack.postgres import PostgresServer
from honeyframe_connectors.errors import Reason, Refused
from honeyframe_connectors.types.postgresql import PostgreSQL
from tests.contract.bench import Situation, check

PASSWORD = "opensesame-6c1f9a"


@pytest.fixture(scope="module")
def pooler(postgres: PostgresServer) -> Iterator[PgBouncer]:
    postgres.create_role("pooled", PASSWORD)
    postgres.create_database("pooled", owner="pooled")
    with PgBouncer.start(postgres, "pooled") as started:
        yield started


@pytest.fixture
def right(pooler: PgBouncer) -> Situation:
    return Situation(
        declared={"host": "localhost", "port": pooler.port, "database": "pooled", "username": "pooled"},
        secrets={"password": PASSWORD.encode()},
        ca=pooler.ca_file.read_bytes(),
        output_schemas=("public",),
    )


async def test_all_steps_pass(right: Situation) -> None:
    assert (await check(PostgreSQL(), right)).ok


@pytest.mark.parametrize(
    ("changes", "password", "reason", "says"),
    [
        ({}, "wrong\n", Reason.AUTHENTICATION_FAILED, "the value of password ends with a newline"),
        ({"username": "nobody"}, None, Reason.AUTHENTICATION_FAILED, "put the right username and password"),
        # It looks for the role in the database that it was asked for, unless it has the role in a file.
        ({"database": "nowhere"}, None, Reason.AUTHENTICATION_FAILED, "name a database that the pooler knows"),
        ({"database": "nowhere", "username": "admin"}, "admin", Reason.TARGET_NOT_FOUND, "name a database"),
        ({"sslmode": "disable"}, None, Reason.AUTHORIZATION_FAILED, "sslmode"),
        ({"search_path": "public"}, None, Reason.INVALID_CONFIG, "leave search_path and statement_timeout out"),
    ],
)
async def test_what_each_refusal_is(
    postgres: PostgresServer,
    right: Situation,
    changes: dict[str, Any],
    password: str | None,
    reason: Reason,
    says: str,
) -> None:
    password = {"admin": postgres.admin_password, None: PASSWORD}.get(password, password)
    secrets = {"password": str(password).encode()}
    result = await check(PostgreSQL(), replace(right, declared={**right.declared, **changes}, secrets=secrets))
    assert isinstance(result.error, Refused)
    assert result.error.reason is reason
    assert says in result.error.message
