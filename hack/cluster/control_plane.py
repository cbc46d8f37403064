"""Starts and stops the control plane."""

import contextlib
import http.client
import os
import shutil
import ssl
import subprocess
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import TracebackType
from typing import Self

from hack.cluster import commands
from hack.cluster.binaries import Binaries, Log, find_or_build
from hack.cluster.certificates import Identities
from hack.cluster.commands import Ports
from hack.errors import SetupError
from hack.files import FileLock
from hack.processes import PORT_ATTEMPTS, Process, free_port, wait_until

LOCK = "lock"
# On SIGTERM the API server stops listening at once, then waits up to a minute for clients to end their watches. What it
# acknowledged is in etcd by then.
_GRACE = {"kube-apiserver": 1.0}
_COMMANDS: dict[str, Callable[[Binaries, Path, Ports], list[str]]] = {
    "etcd": commands.etcd,
    "kube-apiserver": commands.api_server,
    "kube-controller-manager": commands.controller_manager,
}


@dataclass
class ControlPlane:
    """etcd, kube-apiserver and kube-controller-manager on loopback; they end with this process at the latest."""

    url: str
    directory: Path
    kubeconfig: Path
    ca_file: Path
    kubectl: Path
    _binaries: Binaries = field(repr=False)
    _identities: Identities = field(repr=False)
    _ports: Ports = field(repr=False)
    _lock: FileLock = field(repr=False)
    _temporary: bool = field(repr=False)
    _processes: dict[str, Process] = field(repr=False, default_factory=dict)

    @classmethod
    def start(cls, directory: Path | None = None, log: Log = print) -> Self:
        """Start a new, empty control plane and wait until it answers.

        Args:
            directory: where keys, data and logs go, kept at the end; without it a temporary one that is removed
            log: takes lines that a person should see, as of the first build
        """
        binaries = find_or_build(log)
        home = Path(tempfile.mkdtemp(prefix="honeyframe-cluster-")) if directory is None else directory.resolve()
        home.mkdir(parents=True, exist_ok=True)
        lock = FileLock(home / LOCK)
        if not lock.acquire(wait=False):
            raise SetupError(f"A control plane is already running in {home}.")
        try:
            return cls._start_in(home, binaries, lock, temporary=directory is None)
        except BaseException as error:
            lock.release()
            # A failed start names its logs in the error, so they stay.
            if directory is None and not isinstance(error, SetupError):
                shutil.rmtree(home, ignore_errors=True)
            raise

    @classmethod
    def _start_in(cls, home: Path, binaries: Binaries, lock: FileLock, *, temporary: bool) -> Self:
        identities = Identities(home)
        for attempt in range(1, PORT_ATTEMPTS + 1):
            ports = Ports(free_port(), free_port(), free_port(), free_port())
            plane = cls(
                url=f"https://127.0.0.1:{ports.api_server}",
                directory=home,
                kubeconfig=home / "kubeconfig",
                ca_file=identities.ca_file,
                kubectl=binaries.kubectl,
                _binaries=binaries,
                _identities=identities,
                _ports=ports,
                _lock=lock,
                _temporary=temporary,
            )
            if plane._come_up(last=attempt == PORT_ATTEMPTS):
                return plane
        raise AssertionError("the last attempt raises")

    def _come_up(self, *, last: bool) -> bool:
        """Whether all servers are up; False when a port was taken in between and this was not the last attempt."""
        shutil.rmtree(self.directory / "etcd-data", ignore_errors=True)
        self._identities.admin_kubeconfig(self.url, self.kubeconfig)
        self._identities.client_kubeconfig(
            self.url,
            self.directory / "kubeconfig-controller-manager",
            "system:kube-controller-manager",
            ["system:kube-controller-manager"],
        )
        try:
            self._launch("etcd")
            self._launch("kube-apiserver")
            self._wait_for_api_server()
            self._launch("kube-controller-manager")
            self._wait_for("the controller manager", self._ports.controller_manager, "/healthz")
        except BaseException as error:
            taken = [process for process in self._processes.values() if process.port_was_taken()]
            self._end_processes()
            if not (isinstance(error, SetupError) and taken):
                raise
            if last:
                raise SetupError(
                    f"{taken[0].name} found its port in use {PORT_ATTEMPTS} times, on new ports each time"
                    f" (log: {taken[0].log_file})."
                ) from error
            return False
        return True

    def stop(self) -> None:
        """End all processes and remove the directory where it was a temporary one; a second call does nothing."""
        self._end_processes()
        self._lock.release()
        if self._temporary:
            shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()

    def stop_api_server(self) -> None:
        """Take the API server away; etcd keeps what it had."""
        if (process := self._processes.pop("kube-apiserver", None)) is not None:
            process.stop()

    def start_api_server(self) -> None:
        """Bring the API server back on its old port and wait until it answers."""
        if "kube-apiserver" in self._processes:
            raise SetupError("The API server is already running.")
        self._launch("kube-apiserver")
        try:
            self._wait_for_api_server()
        except BaseException as error:
            process = self._processes["kube-apiserver"]
            taken = process.port_was_taken()
            self.stop_api_server()
            if isinstance(error, SetupError) and taken:
                raise SetupError(f"The API server's port {self._ports.api_server} is in use by now.") from error
            raise

    @property
    def pids(self) -> dict[str, int]:
        """The process ids of the servers that run, by the program's name."""
        return {name: process.pid for name, process in self._processes.items()}

    @property
    def api_server_pid(self) -> int:
        """The API server's process id; another one after a restart."""
        return self._processes["kube-apiserver"].pid

    def kubectl_run(
        self,
        *args: str,
        input: str | None = None,  # noqa: A002 - as subprocess.run calls it
        check: bool = True,
        kubeconfig: Path | None = None,
    ) -> subprocess.CompletedProcess[str]:
        """Run the control plane's own kubectl, as the administrator or with another kubeconfig.

        Raises:
            SetupError: kubectl failed and `check` is on; the message is what kubectl said
        """
        result = subprocess.run(
            [str(self.kubectl), *args],
            # Never our own standard input: `kubectl apply -f -` would wait for a person.
            input=input if input is not None else "",
            capture_output=True,
            text=True,
            check=False,
            env=kubectl_environment(self.directory, kubeconfig or self.kubeconfig),
        )
        if check and result.returncode != 0:
            raise SetupError(f"kubectl {' '.join(args)}: {result.stderr.strip()}")
        return result

    def client_kubeconfig(self, name: str, *groups: str) -> Path:
        """A kubeconfig for a user of these groups, by a client certificate."""
        path = self.directory / f"kubeconfig-user-{name.replace(':', '-')}"
        return self._identities.client_kubeconfig(self.url, path, name, groups)

    def service_account_kubeconfig(self, namespace: str, name: str) -> Path:
        """A kubeconfig with a day's token of a service account; namespace and account are made where missing."""
        self._create_if_missing("namespace", namespace)
        self._create_if_missing("serviceaccount", name, f"--namespace={namespace}")
        token = self.kubectl_run("create", "token", name, f"--namespace={namespace}", "--duration=24h").stdout.strip()
        path = self.directory / f"kubeconfig-{namespace}-{name}"
        return self._identities.token_kubeconfig(self.url, path, name, namespace, token)

    def _create_if_missing(self, *what: str) -> None:
        result = self.kubectl_run("create", *what, check=False)
        if result.returncode != 0 and "already exists" not in result.stderr:
            raise SetupError(f"kubectl create {' '.join(what)}: {result.stderr.strip()}")

    def _launch(self, name: str) -> None:
        command = _COMMANDS[name](self._binaries, self.directory, self._ports)
        log_file = self.directory / f"{name}.log"
        # The lock lasts until the last server ended, so that nobody clears data that is still in use.
        self._processes[name] = Process.start(
            command, log_file, grace=_GRACE.get(name, 5.0), pass_fds=(self._lock.descriptor,)
        )

    def _wait_for_api_server(self) -> None:
        self._wait_for("the API server", self._ports.api_server, "/readyz")
        # It is made shortly after readiness; the first thing that most callers do needs it.
        self._wait_for("the default namespace", self._ports.api_server, "/api/v1/namespaces/default")

    def _wait_for(self, what: str, port: int, path: str) -> None:
        context = self._identities.admin_context()
        wait_until(partial(_answers, port, path, context), list(self._processes.values()), what)

    def _end_processes(self) -> None:
        # All at once: the API server need not drain for clients that are going away too.
        for process in self._processes.values():
            process.request_stop()
        for process in self._processes.values():
            process.stop()
        self._processes.clear()


def kubectl_environment(directory: Path, kubeconfig: Path) -> dict[str, str]:
    """An environment in which kubectl heeds nothing of the person's own ~/.kube."""
    # The discovery cache goes by address, and a later control plane may get the same port.
    own = {"KUBECONFIG": str(kubeconfig), "KUBECACHEDIR": str(directory / "kubectl-cache"), "KUBERC": "off"}
    return {**os.environ, **own}


def _answers(port: int, path: str, context: ssl.SSLContext) -> bool:
    connection = http.client.HTTPSConnection("127.0.0.1", port, timeout=2, context=context)
    with contextlib.closing(connection), contextlib.suppress(OSError, http.client.HTTPException):
        connection.request("GET", path)
        return connection.getresponse().status == http.HTTPStatus.OK
    return False
