"""The operator on a real kube-apiserver, under its own ServiceAccount and roles; a namespace a test."""

import asyncio
import contextlib
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path

import pytest
import pytest_asyncio

from hack.cluster import ControlPlane
from hack.operator_process import OperatorProcess, install
from hack.postgres import PostgresServer
from hack.webhook_sink import WebhookSink
from honeyframe_operator.kube import KubeClient
from tests.support.cluster import Namespace, request
from tests.support.kstatus import faults

LOOPBACK = ("--allow-target", "127.0.0.1/32")
PASSWORD = "planted-Passw0rd-7f3a"
"""Every good password of these tests begins with it: it may be nowhere but in Secrets."""


@pytest.fixture(scope="session")
def installed(control_plane: ControlPlane) -> Path:
    """A kubeconfig of the operator's ServiceAccount."""
    return install(control_plane)


@pytest.fixture(scope="session")
def shared_operator(installed: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[OperatorProcess]:
    with OperatorProcess(installed, tmp_path_factory.mktemp("operator"), LOOPBACK) as operator:
        yield operator


@pytest.fixture
def operator(shared_operator: OperatorProcess) -> OperatorProcess:
    """The operator that most tests share; started again where a test stopped it."""
    if shared_operator.poll() is not None or shared_operator.port == 0:
        shared_operator.start()
    return shared_operator


@pytest.fixture
def own_operator(
    installed: Path, shared_operator: OperatorProcess, tmp_path: Path
) -> Iterator[Callable[..., OperatorProcess]]:
    """Operators of a test's own, with a store of their own; the shared one is stopped meanwhile."""
    shared_operator.stop()
    with contextlib.ExitStack() as stack:

        def make(
            *flags: str,
            directory: str = "own",
            allow: Sequence[str] = LOOPBACK,
            kubeconfig: Path = installed,
            env: dict[str, str] | None = None,
        ) -> OperatorProcess:
            process = OperatorProcess(kubeconfig, tmp_path / directory, (*allow, *flags), env=env or {})
            return stack.enter_context(process)

        yield make


@pytest_asyncio.fixture
async def client(control_plane: ControlPlane) -> AsyncIterator[KubeClient]:
    found = await KubeClient.login(control_plane.kubeconfig)
    yield found
    await found.close()


@pytest_asyncio.fixture
async def namespace(
    client: KubeClient, control_plane: ControlPlane, shared_operator: OperatorProcess, tmp_path: Path
) -> AsyncIterator[Namespace]:
    """A namespace whose objects are held against kstatus' rules, and in which no password may have leaked."""
    name = f"t-{secrets.token_hex(4)}"
    await client.post("/api/v1/namespaces", {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}})
    found = Namespace(client, name)
    yield found
    leaks = []
    for kind in ("Connector", "CatalogConfig", "ConnectorTest"):
        with contextlib.suppress(Exception):
            for body in await found.list(kind):
                assert faults(body) == [], f"{kind} {body['metadata']['name']}: {json.dumps(body['status'], indent=1)}"
                leaks.append((f"{kind} {body['metadata']['name']}", json.dumps(body)))
    leaks.append(("Events", json.dumps(await found.list("Event"))))
    for log in [shared_operator.log_file, *tmp_path.glob("*/operator.log")]:
        leaks += [(str(log), log.read_text())] if log.exists() else []
    if shared_operator.port:
        leaks.append(("/metrics", await asyncio.to_thread(shared_operator.get, "/metrics")))
    assert [where for where, text in leaks if PASSWORD in text] == []
    await request(client, "DELETE", f"/api/v1/namespaces/{name}")


@pytest.fixture(scope="session")
def sink() -> Iterator[WebhookSink]:
    with WebhookSink.start() as found:
        yield found


class Database:
    """A role and a database on the shared PostgreSQL."""

    def __init__(self, server: PostgresServer) -> None:
        self.server = server
        self.role = f"r{secrets.token_hex(4)}"
        self.password = f"{PASSWORD}-{secrets.token_hex(4)}"
        server.create_role(self.role, self.password)
        server.create_database(self.role, owner=self.role)

    @property
    def config(self) -> dict[str, dict[str, object]]:
        return {
            "postgresql": {
                "host": self.server.host,
                "port": self.server.port,
                "database": self.role,
                "username": self.role,
                "sslmode": "verify-full",
            }
        }

    def set_password(self, password: str) -> None:
        self.server.psql(f"ALTER ROLE {self.role} PASSWORD '{password}'")
        self.password = password


@pytest.fixture
def database(postgres: PostgresServer) -> Database:
    return Database(postgres)


@pytest.fixture
def trust(postgres: PostgresServer) -> Callable[[Namespace], Awaitable[dict[str, str]]]:
    """Puts the PostgreSQL's CA into a namespace and returns the caRef."""

    async def put(namespace: Namespace) -> dict[str, str]:
        await namespace.create("ConfigMap", "ca", data={"ca.crt": postgres.ca_file.read_text()})
        return {"kind": "ConfigMap", "name": "ca"}

    return put
