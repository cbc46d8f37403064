"""The operator as a process of its own, under its own ServiceAccount and roles: demo, tests, benchmarks."""

import os
import secrets
import signal
import sys
import urllib.error
import urllib.request
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Self

from hack.cluster import ControlPlane
from hack.files import write_private
from hack.processes import Process, environment_without, free_port, wait_until

ROOT = Path(__file__).parents[1]
NAMESPACE = "honeyframe"
ACCOUNT = "honeyframe-operator"
_ROLES = ROOT / "charts/honeyframe-connectors/roles"


def install(cluster: ControlPlane) -> Path:
    """Apply CRDs and roles, and return a kubeconfig of the operator's ServiceAccount."""
    cluster.kubectl_run("apply", "-f", str(ROOT / "crds"))
    cluster.kubectl_run("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")
    kubeconfig = cluster.service_account_kubeconfig(NAMESPACE, ACCOUNT)
    cluster.kubectl_run(
        "apply", "-n", NAMESPACE, "-f", str(_ROLES / "operator.yaml"), "-f", str(_ROLES / "people.yaml")
    )
    _bind(cluster, "clusterrolebinding", ACCOUNT, "--clusterrole=honeyframe-operator")
    _bind(cluster, "rolebinding", f"{ACCOUNT}-lease", "--role=honeyframe-operator-lease", f"--namespace={NAMESPACE}")
    return kubeconfig


def install_namespaced(cluster: ControlPlane, namespace: str) -> Path:
    """Roles for one namespace and nothing cluster-wide, and a kubeconfig of a ServiceAccount there."""
    kubeconfig = cluster.service_account_kubeconfig(namespace, ACCOUNT)
    cluster.kubectl_run("apply", "-n", namespace, "-f", str(_ROLES / "operator-namespaced.yaml"))
    for name in ("honeyframe-operator", "honeyframe-operator-lease"):
        _bind(cluster, "rolebinding", name, f"--role={name}", f"--namespace={namespace}", account_namespace=namespace)
    return kubeconfig


def _bind(cluster: ControlPlane, kind: str, name: str, *what: str, account_namespace: str = NAMESPACE) -> None:
    cluster.kubectl_run("create", kind, name, *what, f"--serviceaccount={account_namespace}:{ACCOUNT}", check=False)


@dataclass
class OperatorProcess:
    """One operator; it ends with this process at the latest."""

    kubeconfig: Path
    directory: Path
    flags: Sequence[str] = ()
    secret_file: Path | None = None
    port: int = 0
    env: dict[str, str] = field(default_factory=dict)
    _process: Process | None = field(default=None, repr=False)

    def start(self, *, wait: bool = True) -> Self:
        """Start it, and wait until /readyz is content. It keeps its secret and store in `directory` over restarts."""
        self.directory.mkdir(parents=True, exist_ok=True)
        secret = self.secret_file or self.directory / "jwt-secret"
        if not secret.exists():
            write_private(secret, secrets.token_hex(32))
        self.port = free_port()
        command: list[str | Path] = [
            sys.executable,
            "-m",
            "honeyframe_operator",
            "--kubeconfig",
            self.kubeconfig,
            "--secret-file",
            secret,
            "--http-address",
            f"127.0.0.1:{self.port}",
        ]
        if not any(flag.startswith("--database") for flag in self.flags):
            command += ["--database", f"sqlite:///{self.directory}/honeyframe.db"]
        env = environment_without("HONEYFRAME_", "KUBE", "PG", "PYTHON") | self.env
        # A coverage or debugger hook of the caller has no place in the operator.
        env["PYTHONPATH"] = os.pathsep.join([str(ROOT), str(ROOT / "operator")])
        self._process = Process.start([*command, *self.flags], self.log_file, env=env)
        if wait:
            wait_until(lambda: self.get("/readyz") == "ok", [self._process], "the operator")
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    @property
    def log_file(self) -> Path:
        """Everything that it wrote, over restarts."""
        return self.directory / "operator.log"

    @property
    def pid(self) -> int:
        """Its process id."""
        assert self._process is not None  # noqa: S101 - for the type checker
        return self._process.pid

    def poll(self) -> int | None:
        """Its exit code, or None while it runs."""
        return self._process.poll() if self._process else None

    def get(self, path: str) -> str:
        """What it answers at /metrics, /healthz or /readyz; "" while it does not."""
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{path}", timeout=5) as answer:
                text: str = answer.read().decode()
        except urllib.error.HTTPError as error:
            return error.read().decode()
        except OSError:
            return ""
        return text

    def stop(self) -> None:
        """SIGTERM, and wait."""
        if self._process is not None:
            self._process.stop()

    def kill(self) -> None:
        """SIGKILL, and wait."""
        if self._process is not None and self._process.poll() is None:
            os.kill(self._process.pid, signal.SIGKILL)
            self._process.stop()
