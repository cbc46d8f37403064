"""A credential's life on a real API server, against a real PostgreSQL whose role really changes its password."""

import asyncio
import socket
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from threading import Thread

from hack.operator_process import OperatorProcess
from hack.postgres import PostgresServer
from tests.cluster.conftest import PASSWORD, Database
from tests.support.cluster import Body, Namespace, condition

Trust = Callable[[Namespace], Awaitable[dict[str, str]]]
BULLETS = "••••••••"


def served(version: int) -> Callable[[Body], bool]:
    return lambda body: body["status"].get("servedVersion") == version


def in_state(state: str) -> Callable[[Body], bool]:
    return lambda body: (body["status"].get("credentials") or {}).get("state") == state


async def annotate(namespace: Namespace, name: str, value: str) -> None:
    await namespace.patch("Connector", "c", {"metadata": {"annotations": {f"honeyframe.io/{name}": value}}})


def token(version: int) -> str:
    return f"{version}@{datetime.now(UTC).isoformat()}"


async def rotated(namespace: Namespace, database: Database, trust: Trust) -> list[str]:
    """A Connector at version 2; the passwords of both."""
    passwords = [database.password, f"{PASSWORD}-second"]
    await namespace.secret("s", password=database.password)
    await namespace.connector("c", database.config, "s", caRef=await trust(namespace))
    await namespace.wait("Connector", "c", served(1))
    database.set_password(passwords[1])
    await namespace.set_secret("s", password=passwords[1])
    await namespace.wait("Connector", "c", served(2))
    return passwords


async def test_a_rollback_holds_the_secret_back_until_it_shows_something_else(
    namespace: Namespace, operator: OperatorProcess, database: Database, trust: Trust
) -> None:
    first, _ = await rotated(namespace, database, trust)
    database.set_password(first)
    await annotate(namespace, "rollback-to", token(1))
    body = await namespace.wait("Connector", "c", in_state("Held"))
    assert body["status"]["servedVersion"] == 3
    newest = body["status"]["credentials"]["history"][0]
    assert (newest["testStatus"], newest["restoredFrom"]) == ("rollback", 1)
    assert condition(body, "Ready")["status"] == "True"
    assert condition(body, "CredentialsInSync")["reason"] == "RotationHeld"
    await namespace.event("RolledBack")
    third = f"{PASSWORD}-third"
    database.set_password(third)
    await namespace.set_secret("s", password=third)
    body = await namespace.wait("Connector", "c", in_state("InSync"))
    assert body["status"]["servedVersion"] == 4


async def test_a_rollback_to_a_password_that_no_longer_works(
    namespace: Namespace, operator: OperatorProcess, database: Database, trust: Trust
) -> None:
    await rotated(namespace, database, trust)
    at = token(1)
    await annotate(namespace, "rollback-to", at)
    body = await namespace.wait(
        "Connector", "c", lambda b: b["status"].get("lastHandledRollbackAt") == at.partition("@")[2]
    )
    assert (body["status"]["servedVersion"], body["status"]["credentials"]["state"]) == (2, "InSync")
    await namespace.event("RollbackRejected")


async def test_force_lets_in_what_is_pending_and_a_check_proves_it_later(
    namespace: Namespace, operator: OperatorProcess, database: Database, trust: Trust
) -> None:
    await namespace.secret("s", password=database.password)
    await namespace.connector("c", database.config, "s", caRef=await trust(namespace), interval="1s")
    await namespace.wait("Connector", "c", served(1))
    second = f"{PASSWORD}-second"
    await namespace.set_secret("s", password=second)
    body = await namespace.wait("Connector", "c", in_state("Refused"))
    await namespace.event("RotationRejected")
    await annotate(namespace, "force-rotation", body["status"]["credentials"]["pending"]["id"])
    body = await namespace.wait("Connector", "c", in_state("Forced"))
    assert condition(body, "Ready")["reason"] == "RotationForced"
    assert body["status"]["credentials"]["history"][0]["testStatus"] == "failed"
    await namespace.event("RotationForced")
    database.set_password(second)
    at = datetime.now(UTC).isoformat()
    await namespace.patch("Connector", "c", {"metadata": {"annotations": {"reconcile.fluxcd.io/requestedAt": at}}})
    body = await namespace.wait("Connector", "c", in_state("InSync"), patience=40)
    assert condition(body, "Ready")["status"] == "True"


async def test_alter_role_first_and_the_secret_later(
    namespace: Namespace, operator: OperatorProcess, database: Database, trust: Trust
) -> None:
    await namespace.secret("s", password=database.password)
    await namespace.connector("c", database.config, "s", caRef=await trust(namespace), interval="1s")
    await namespace.wait("Connector", "c", served(1))
    database.set_password(f"{PASSWORD}-second")
    await namespace.wait("Connector", "c", lambda body: not body["status"]["health"]["ok"])
    await namespace.set_secret("s", password=f"{PASSWORD}-second")
    body = await namespace.wait("Connector", "c", served(2))
    assert condition(body, "Healthy")["status"] == "True"


async def test_a_target_that_is_away_in_the_middle_of_a_rotation(
    namespace: Namespace, operator: OperatorProcess
) -> None:
    with PostgresServer.start() as server:
        database = Database(server)
        await namespace.create("ConfigMap", "ca", data={"ca.crt": server.ca_file.read_text()})
        ca = {"kind": "ConfigMap", "name": "ca"}
        await namespace.secret("s", password=database.password)
        await namespace.connector("c", database.config, "s", caRef=ca, timeout="1s")
        await namespace.wait("Connector", "c", served(1))
        database.set_password(f"{PASSWORD}-second")
        server.pause()
        await namespace.set_secret("s", password=database.password)
        body = await namespace.wait("Connector", "c", in_state("Unanswered"))
        assert condition(body, "CredentialsInSync")["reason"] == "Timeout"
        assert body["status"]["servedVersion"] == 1
        server.resume()
        server.restart()
        await namespace.wait("Connector", "c", served(2), patience=40)
        await namespace.delete("Connector", "c")


async def test_two_secrets_edited_in_the_same_second(
    namespace: Namespace, operator: OperatorProcess, database: Database, trust: Trust
) -> None:
    """The role's next password comes by both; each Connector takes its own, and what was between them is no version."""
    ca = await trust(namespace)
    for name in ("a", "b"):
        await namespace.secret(name, password=database.password)
        await namespace.connector(name, database.config, name, caRef=ca)
        await namespace.wait("Connector", name, served(1))
    database.set_password(f"{PASSWORD}-second")
    await asyncio.gather(
        *(namespace.set_secret(name, password=value) for value in ("never", database.password) for name in ("a", "b"))
    )
    await asyncio.gather(*(namespace.set_secret(name, password=database.password) for name in ("a", "b")))
    for name in ("a", "b"):
        body = await namespace.wait("Connector", name, lambda b: served(2)(b) and in_state("InSync")(b), patience=40)
        assert [each["version"] for each in body["status"]["credentials"]["history"]] == [2, 1]


async def test_bullets_and_a_reason(
    namespace: Namespace, operator: OperatorProcess, database: Database, trust: Trust
) -> None:
    await namespace.secret("s", password=database.password)
    await namespace.connector("c", database.config, "s", caRef=await trust(namespace))
    await namespace.wait("Connector", "c", served(1))
    database.set_password(f"{PASSWORD}-second")
    await namespace.patch(
        "Secret", "s", {"metadata": {"annotations": {"honeyframe.io/rotation-reason": "the auditor asked"}}}
    )
    await namespace.set_secret("s", password=database.password)
    body = await namespace.wait("Connector", "c", served(2))
    assert body["status"]["credentials"]["history"][0]["reason"] == "the auditor asked"
    await namespace.set_secret("s", password=BULLETS)
    await namespace.patch("Connector", "c", {"spec": {"config": {"postgresql": {"application_name": "other"}}}})
    body = await namespace.wait("Connector", "c", served(3))
    assert "reason" not in body["status"]["credentials"]["history"][0], "a config edit is no rotation"


@contextmanager
def listener() -> Iterator[tuple[int, list[bytes]]]:
    """An attacker's: its port, and what was sent to it."""
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def hear() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                with connection:
                    heard.append(connection.recv(65536))

        thread = Thread(target=hear, daemon=True)
        thread.start()
        yield server.getsockname()[1], heard
        server.shutdown(socket.SHUT_RDWR)
    thread.join()


async def test_who_may_write_connectors_gets_no_stored_password(
    namespace: Namespace, operator: OperatorProcess, database: Database, trust: Trust
) -> None:
    """Bullets, a missing Secret, a rollback, force and a hold, each with the host turned to a listener."""
    first, _ = await rotated(namespace, database, trust)
    with listener() as (port, heard):
        elsewhere = {"spec": {"config": {"postgresql": {"port": port, "sslmode": "disable"}}}}
        home = {"spec": {"config": {"postgresql": {"port": database.server.port, "sslmode": "verify-full"}}}}
        await namespace.set_secret("s", password=BULLETS)
        await namespace.patch("Connector", "c", elsewhere)
        body = await namespace.ready("c", "False", "TargetChanged")
        await annotate(namespace, "force-rotation", body["status"]["credentials"]["pending"]["id"])
        await namespace.delete("Secret", "s")
        await namespace.ready("c", "False", "SecretNotFound")
        at = token(1)
        await annotate(namespace, "rollback-to", at)
        handled = at.partition("@")[2]
        await namespace.wait("Connector", "c", lambda b: b["status"].get("lastHandledRollbackAt") == handled)
        database.set_password(first)
        await namespace.patch("Connector", "c", home)
        await namespace.secret("s", password=f"{PASSWORD}-second")
        await annotate(namespace, "rollback-to", token(1))
        await namespace.wait("Connector", "c", in_state("Held"))
        await namespace.patch("Connector", "c", elsewhere)
        await namespace.ready("c", "False", "TargetChanged")
        assert heard == []


async def test_a_secret_names_its_targets(
    namespace: Namespace, operator: OperatorProcess, database: Database, trust: Trust
) -> None:
    await namespace.secret("s", password=database.password)
    targets = f"127.0.0.1:{database.server.port}"
    await namespace.patch("Secret", "s", {"metadata": {"annotations": {"honeyframe.io/targets": targets}}})
    await namespace.connector("c", database.config, "s", caRef=await trust(namespace))
    await namespace.ready("c")
    with listener() as (port, heard):
        await namespace.patch("Connector", "c", {"spec": {"config": {"postgresql": {"port": port}}}})
        await namespace.ready("c", "False", "TargetNotAllowed")
        assert heard == []
    await namespace.patch("Connector", "c", {"spec": {"config": {"postgresql": {"port": database.server.port}}}})
    await namespace.ready("c")
    await namespace.patch("Secret", "s", {"metadata": {"annotations": {"honeyframe.io/targets": "db.corp"}}})
    await namespace.wait("Connector", "c", in_state("Revoked"))
    await namespace.patch("Secret", "s", {"metadata": {"annotations": {"honeyframe.io/targets": None}}})
    assert (await namespace.ready("c"))["status"]["servedVersion"] == 1


async def test_fifty_connectors_of_one_wrong_secret(
    namespace: Namespace, operator: OperatorProcess, database: Database, trust: Trust
) -> None:
    """As many logins as the ladder allows for one: two at most in the first minute."""
    ca = await trust(namespace)
    await namespace.secret("s", password="wrong")
    await asyncio.gather(*(namespace.connector(f"c{number}", database.config, "s", caRef=ca) for number in range(50)))
    for number in range(50):
        await namespace.ready(f"c{number}", "False", "AuthenticationFailed")
    assert 1 <= refused_logins(database) <= 2


def refused_logins(database: Database) -> int:
    log = (database.server.directory / "postgres.log").read_text()
    return log.count(f'password authentication failed for user "{database.role}"')
