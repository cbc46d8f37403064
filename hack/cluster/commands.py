"""The command lines of the control plane's servers."""

from dataclasses import dataclass
from pathlib import Path

from hack.cluster.binaries import Binaries
from hack.cluster.certificates import SERVICE_RANGE

# Without nodes the others have nothing to do; each costs memory, watches and start-up time.
CONTROLLERS = (
    "clusterrole-aggregation-controller",
    "cronjob-controller",
    "garbage-collector-controller",
    "job-controller",
    "namespace-controller",
    "root-ca-certificate-publisher-controller",
    "serviceaccount-controller",
    "serviceaccount-token-controller",
    "ttl-after-finished-controller",
)


@dataclass(frozen=True)
class Ports:
    """One port of 127.0.0.1 for each listener."""

    etcd_client: int
    etcd_peer: int
    api_server: int
    controller_manager: int


def etcd(binaries: Binaries, directory: Path, ports: Ports) -> list[str]:
    """A single member that does not wait for the disk: nothing here outlives the run."""
    client, peer = f"http://127.0.0.1:{ports.etcd_client}", f"http://127.0.0.1:{ports.etcd_peer}"
    return [
        str(binaries.etcd),
        f"--data-dir={directory / 'etcd-data'}",
        "--unsafe-no-fsync",
        f"--listen-client-urls={client}",
        f"--advertise-client-urls={client}",
        f"--listen-peer-urls={peer}",
        f"--initial-advertise-peer-urls={peer}",
        f"--initial-cluster=default={peer}",
        "--log-level=warn",
    ]


def api_server(binaries: Binaries, directory: Path, ports: Ports) -> list[str]:
    """The API server, RBAC on."""
    return [
        str(binaries.kube_apiserver),
        f"--etcd-servers=http://127.0.0.1:{ports.etcd_client}",
        "--bind-address=127.0.0.1",
        f"--secure-port={ports.api_server}",
        # Else it looks for an address of the default route, which a machine without a network has not. Endpoints
        # refuse loopback addresses, and without pods nobody reads them.
        "--advertise-address=127.0.0.1",
        "--endpoint-reconciler-type=none",
        f"--tls-cert-file={directory / 'apiserver.crt'}",
        f"--tls-private-key-file={directory / 'apiserver.key'}",
        f"--client-ca-file={directory / 'ca.crt'}",
        f"--service-account-key-file={directory / 'service-accounts.pub'}",
        f"--service-account-signing-key-file={directory / 'service-accounts.key'}",
        "--service-account-issuer=https://kubernetes.default.svc",
        f"--service-cluster-ip-range={SERVICE_RANGE}",
        "--authorization-mode=RBAC",
        "--max-requests-inflight=2000",
        "--max-mutating-requests-inflight=1000",
        "--profiling=false",
    ]


def controller_manager(binaries: Binaries, directory: Path, ports: Ports) -> list[str]:
    """The controllers that work without nodes."""
    return [
        str(binaries.kube_controller_manager),
        f"--kubeconfig={directory / 'kubeconfig-controller-manager'}",
        "--bind-address=127.0.0.1",
        f"--secure-port={ports.controller_manager}",
        f"--tls-cert-file={directory / 'controller-manager.crt'}",
        f"--tls-private-key-file={directory / 'controller-manager.key'}",
        f"--root-ca-file={directory / 'ca.crt'}",
        f"--service-account-private-key-file={directory / 'service-accounts.key'}",
        "--use-service-account-credentials",
        "--leader-elect=false",
        f"--controllers={','.join(CONTROLLERS)}",
        # The default of 20 a second makes the end of a namespace of thousands of objects a matter of minutes.
        "--kube-api-qps=200",
        "--kube-api-burst=400",
        "--profiling=false",
    ]
