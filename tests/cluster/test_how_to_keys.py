"""The how-to pages on keys, word for word, on a control plane of their own: they speak of all Connectors."""

import json
import secrets
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest
import pytest_asyncio

from hack.cluster import ControlPlane
from hack.operator_process import NAMESPACE, OperatorProcess, install
from hack.webhook_sink import WebhookSink
from honeyframe_operator.kube import KubeClient
from tests.cluster.conftest import LOOPBACK, PASSWORD
from tests.support.cluster import Namespace
from tests.support.how_to import HowTo


@pytest.fixture(scope="module")
def plane() -> Iterator[ControlPlane]:
    with ControlPlane.start(log=lambda _: None) as found:
        yield found


@pytest.fixture
def operator(plane: ControlPlane, tmp_path: Path) -> Iterator[OperatorProcess]:
    with OperatorProcess(install(plane), tmp_path / "operator", LOOPBACK) as found:
        found.secret_file = tmp_path / "first"
        found.secret_file.write_text(secrets.token_hex(32))
        yield found.start()


@pytest.fixture
def page(plane: ControlPlane, operator: OperatorProcess, tmp_path: Path) -> Callable[[str], HowTo]:
    """A page's commands, with the cluster's kubectl and the files and variables that the operator's pod has."""
    home = tmp_path / "person"
    home.mkdir()
    (home / "kubectl").symlink_to(plane.kubectl)
    env = {
        "KUBECONFIG": str(plane.kubeconfig),
        "HONEYFRAME_DATABASE": f"sqlite:///{operator.directory}/honeyframe.db",
        "HONEYFRAME_SECRET_FILE": str(tmp_path / "next"),
    }
    return lambda name: HowTo(name, home, env)


@pytest_asyncio.fixture
async def namespace(plane: ControlPlane, operator: OperatorProcess, sink: WebhookSink) -> AsyncIterator[Namespace]:
    """A namespace with a Connector that serves."""
    client = await KubeClient.login(plane.kubeconfig)
    found = Namespace(client, "default")
    await found.secret("s", bearer_token=PASSWORD)
    await found.connector("c", {"webhook": {"url": sink.url}}, "s")
    await found.ready("c")
    yield found
    for kind, name in (("Connector", "c"), ("Secret", "s")):
        await found.delete(kind, name)
    await client.close()


def made(plane: ControlPlane, name: str, into: Path) -> None:
    """Mount the Secret that a page made, as the operator's pod does."""
    template = '{{index .data "jwt-secret" | base64decode}}'
    into.write_text(plane.kubectl_run("-n", NAMESPACE, "get", "secret", name, "-o", f"go-template={template}").stdout)
    plane.kubectl_run("-n", NAMESPACE, "delete", "secret", name)


def restart(operator: OperatorProcess, active: Path, *older: Path) -> None:
    operator.stop()
    operator.secret_file = active
    operator.env["HONEYFRAME_OLDER_SECRET_FILES"] = ",".join(map(str, older))
    operator.start()


async def test_exchange_the_jwt_secret(
    plane: ControlPlane,
    operator: OperatorProcess,
    page: Callable[[str], HowTo],
    namespace: Namespace,
    tmp_path: Path,
) -> None:
    first, after = tmp_path / "first", tmp_path / "next"
    with page("exchange-the-jwt-secret.md") as how_to:
        how_to.next(3)
        made(plane, "honeyframe-jwt-next", after)
        restart(operator, after, first)
        how_to.env["HONEYFRAME_OLDER_SECRET_FILES"] = str(first)
        assert "0 are not under the newest secret" in how_to.next()
        restart(operator, after)
        await namespace.ready("c")
        assert "default     c" in how_to.next()
    assert (await namespace.get("Connector", "c"))["status"]["servedVersion"] == 1


async def test_after_a_leak(
    operator: OperatorProcess, page: Callable[[str], HowTo], namespace: Namespace, tmp_path: Path
) -> None:
    first, after = tmp_path / "first", tmp_path / "next"
    after.write_text(secrets.token_hex(32))
    restart(operator, after, first)
    with page("after-a-leak.md") as how_to:
        how_to.env["HONEYFRAME_OLDER_SECRET_FILES"] = str(first)
        assert "default/c  webhook  Secret s" in how_to.next()
        await namespace.set_secret("s", bearer_token=f"{PASSWORD}-2")
        await namespace.wait("Connector", "c", lambda body: body["status"].get("servedVersion") == 2)
        assert "is not let in any more" in how_to.next()
    restart(operator, after)
    await namespace.ready("c")


async def test_recover_from_a_lost_key(
    plane: ControlPlane,
    operator: OperatorProcess,
    page: Callable[[str], HowTo],
    namespace: Namespace,
    tmp_path: Path,
) -> None:
    with page("recover-from-a-lost-key.md") as how_to:
        how_to.next(3)
        made(plane, "honeyframe-jwt-new", tmp_path / "next")
        restart(operator, tmp_path / "next")
        body = await namespace.ready("c", "False", "VaultUnavailable")
        assert "sealed with another secret than the one that is given" in json.dumps(body["status"])
        assert "default/c  versions gone: 1" in how_to.next(typed="y\n")
        how_to.next()
    assert (await namespace.get("Connector", "c"))["status"]["servedVersion"] == 2
