"""How to run the operator, word for word, on a control plane where nothing is installed yet."""

from pathlib import Path

from hack.cluster import ControlPlane
from hack.operator_process import ACCOUNT, NAMESPACE, ROOT, OperatorProcess
from hack.webhook_sink import WebhookSink
from honeyframe_operator.kube import KubeClient
from tests.cluster.conftest import LOOPBACK
from tests.support.cluster import Namespace
from tests.support.how_to import HowTo


async def test_run_the_operator(sink: WebhookSink, tmp_path: Path) -> None:
    for name in ("crds", "charts"):
        (tmp_path / name).symlink_to(ROOT / name)
    with ControlPlane.start(log=lambda _: None) as plane:
        (tmp_path / "kubectl").symlink_to(plane.kubectl)
        with HowTo("run-the-operator.md", tmp_path, {"KUBECONFIG": str(plane.kubeconfig)}) as page:
            page.next(len(page.left))
        kubeconfig = plane.service_account_kubeconfig(NAMESPACE, ACCOUNT)
        client = await KubeClient.login(plane.kubeconfig)
        with OperatorProcess(kubeconfig, tmp_path / "operator", LOOPBACK).start():
            namespace = Namespace(client, "default")
            await namespace.connector("c", {"webhook": {"url": sink.url}})
            await namespace.ready("c")
        await client.close()
