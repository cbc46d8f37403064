import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from hack.cluster import ControlPlane, SetupError

ROOT = Path(__file__).parents[2]
DIES = """
import json, os, signal, sys
from hack.cluster import ControlPlane
plane = ControlPlane.start(log=lambda line: None)
print(json.dumps([str(plane.directory), plane.pids]), flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.fixture(scope="module")
def cluster() -> Iterator[ControlPlane]:
    with ControlPlane.start() as plane:
        yield plane


def lives(pid: int) -> bool:
    try:
        state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return False
    # A zombie ran to its end; whether somebody collects it is the business of the machine's init.
    return state != "Z"


def processes_of(directory: str) -> list[int]:
    """Servers and supervisors: all of them name the directory."""
    found = []
    for file in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if directory.encode() in file.read_bytes() and lives(int(file.parent.name)):
                found.append(int(file.parent.name))
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def wait_until_gone(directory: str, seconds: float = 15.0) -> list[int]:
    deadline = time.monotonic() + seconds
    while (left := processes_of(directory)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left


def test_it_is_ready_and_speaks_the_pinned_version(cluster: ControlPlane) -> None:
    assert cluster.kubectl_run("get", "--raw", "/readyz").stdout == "ok"
    versions = json.loads(cluster.kubectl_run("version", "-o", "json").stdout)
    assert versions["serverVersion"]["minor"] == versions["clientVersion"]["minor"]
    assert set(cluster.pids) == {"etcd", "kube-apiserver", "kube-controller-manager"}


def test_rbac_denies_a_service_account_until_it_has_a_role(cluster: ControlPlane) -> None:
    kubeconfig = cluster.service_account_kubeconfig("team-a", "reader")
    assert kubeconfig.stat().st_mode & 0o777 == 0o600
    denied = cluster.kubectl_run("get", "secrets", check=False, kubeconfig=kubeconfig)
    assert denied.returncode != 0
    assert 'User "system:serviceaccount:team-a:reader" cannot list resource "secrets"' in denied.stderr
    cluster.kubectl_run(
        "create", "rolebinding", "reader", "--clusterrole=edit", "--serviceaccount=team-a:reader", "--namespace=team-a"
    )
    deadline = time.monotonic() + 10
    while cluster.kubectl_run("get", "secrets", check=False, kubeconfig=kubeconfig).returncode:
        assert time.monotonic() < deadline
        time.sleep(0.1)


def test_a_client_certificate_makes_a_user(cluster: ControlPlane) -> None:
    kubeconfig = cluster.client_kubeconfig("jane", "testers")
    answer = json.loads(cluster.kubectl_run("auth", "whoami", "-o", "json", kubeconfig=kubeconfig).stdout)
    assert answer["status"]["userInfo"]["username"] == "jane"
    assert "testers" in answer["status"]["userInfo"]["groups"]


def test_its_certificate_is_checked(cluster: ControlPlane, tmp_path: Path) -> None:
    config = json.loads(cluster.kubeconfig.read_text())
    del config["clusters"][0]["cluster"]["certificate-authority-data"]
    (tmp_path / "kubeconfig").write_text(json.dumps(config))
    refused = cluster.kubectl_run("get", "namespaces", check=False, kubeconfig=tmp_path / "kubeconfig")
    assert "certificate signed by unknown authority" in refused.stderr


def test_an_owner_takes_its_dependents_along(cluster: ControlPlane) -> None:
    owner = json.loads(cluster.kubectl_run("create", "configmap", "owner", "-o", "json").stdout)["metadata"]
    reference = {"apiVersion": "v1", "kind": "ConfigMap", "name": "owner", "uid": owner["uid"]}
    dependent = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "dependent", "ownerReferences": [reference]},
    }
    cluster.kubectl_run("create", "-f", "-", input=json.dumps(dependent))
    cluster.kubectl_run("delete", "configmap", "owner")
    cluster.kubectl_run("wait", "--for=delete", "configmap/dependent", "--timeout=30s")


def test_the_api_server_comes_back_on_its_port_with_its_data(cluster: ControlPlane) -> None:
    cluster.kubectl_run("create", "namespace", "kept")
    before, url = cluster.api_server_pid, cluster.url
    cluster.stop_api_server()
    assert not lives(before)
    assert cluster.kubectl_run("get", "namespaces", check=False).returncode != 0
    with socket.socket() as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        other.bind(("127.0.0.1", int(url.rpartition(":")[2])))
        other.listen()
        with pytest.raises(SetupError, match=r"port \d+ is in use"):
            cluster.start_api_server()
    cluster.start_api_server()
    assert cluster.url == url
    assert cluster.api_server_pid != before
    assert cluster.kubectl_run("get", "namespace", "kept", "-o", "name").stdout.strip() == "namespace/kept"


def test_a_directory_holds_one_control_plane(cluster: ControlPlane) -> None:
    with pytest.raises(SetupError, match="already running"):
        ControlPlane.start(cluster.directory)


def test_stop_leaves_no_process_and_no_temporary_directory() -> None:
    with ControlPlane.start() as plane:
        assert len(processes_of(str(plane.directory))) >= len(plane.pids)
    assert processes_of(str(plane.directory)) == []
    assert not plane.directory.exists()
    plane.stop()


def test_a_killed_parent_leaves_no_process() -> None:
    with subprocess.Popen([sys.executable, "-c", DIES], stdout=subprocess.PIPE, text=True, cwd=ROOT) as parent:
        assert parent.stdout is not None
        directory, pids = json.loads(parent.stdout.readline())
    assert parent.returncode == -signal.SIGKILL
    assert wait_until_gone(directory) == []
    assert not any(lives(pid) for pid in pids.values())
    shutil.rmtree(directory)


def test_the_command_line_holds_one_that_stays(tmp_path: Path) -> None:
    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "hack.cluster", *arguments]
        return subprocess.run(command, cwd=ROOT, env=dict(os.environ), capture_output=True, text=True, check=False)

    place = ("--dir", str(tmp_path))
    try:
        started = run("up", *place)
        assert f"export KUBECONFIG={tmp_path}/kubeconfig" in started.stdout, started.stderr
        assert run("up", *place).stdout == started.stdout
        assert run("kubectl", *place, "get", "--raw", "/readyz").stdout == "ok"
    finally:
        stopped = run("down", *place)
    assert stopped.returncode == 0, stopped.stderr
    assert processes_of(str(tmp_path)) == []
    assert "No control plane is running" in run("kubectl", *place, "get", "pods").stderr
