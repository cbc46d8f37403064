import os
import stat
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from hack.cluster import binaries
from hack.cluster.binaries import NAMES, cache_directory, find_or_build, pinned_version
from hack.errors import SetupError

GO_ENV = 'if [ "$1" = env ]; then echo linux; echo amd64; exit 0; fi\n'
# Its target is what follows -o: a directory for Kubernetes, a file for etcd.
GO_BUILDS = f"""{GO_ENV}
echo build >> "$GO_CALLS"
while [ "$1" != -o ]; do shift; done
case "$2" in
  */) for name in kube-apiserver kube-controller-manager kubectl; do echo '#!/bin/sh' > "$2$name"; done ;;
  *) echo '#!/bin/sh' > "$2" ;;
esac
for file in "${{2%/*}}"/*; do /bin/chmod +x "$file"; done
"""
GO_FAILS = f"""{GO_ENV}
echo k8s.io/kubernetes/pkg/api >&2
echo 'go: k8s.io/kubernetes@v1.36.3: no space left on device' >&2
echo k8s.io/kubernetes/pkg/apis >&2
exit 1
"""


def silent(_line: str) -> None:
    pass


def script(path: Path, body: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)


def programs(directory: Path, version: str, etcd: str | None = None) -> None:
    for name in NAMES:
        script(directory / name, f"echo '{name} version {etcd if name == 'etcd' and etcd else version}'\n")


@pytest.fixture
def path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The only directory on PATH."""
    directory = tmp_path / "bin"
    directory.mkdir()
    monkeypatch.setenv("PATH", str(directory))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("GO_CALLS", str(tmp_path / "calls"))
    monkeypatch.delenv("KUBEBUILDER_ASSETS", raising=False)
    return directory


def calls() -> int:
    file = Path(os.environ["GO_CALLS"])
    return len(file.read_text().splitlines()) if file.exists() else 0


@pytest.mark.usefixtures("path")
def test_without_go_it_says_what_to_install() -> None:
    with pytest.raises(SetupError, match=r"no Go toolchain is on PATH: install Go 1\.\d+ or newer, or let KUBEBUILDER"):
        find_or_build()


def test_a_failed_build_says_why_and_leaves_nothing_half_done(path: Path) -> None:
    script(path / "go", GO_FAILS)
    with pytest.raises(SetupError, match=r"build of the control plane failed \(go: .*no space left") as caught:
        find_or_build(silent)
    assert "pkg/api" not in str(caught.value)
    log_file = Path(str(caught.value).rpartition("its log is ")[2].rstrip("."))
    assert "no space left" in log_file.read_text()
    assert [entry for entry in log_file.parent.iterdir() if entry.is_dir()] == []


def test_it_builds_once_and_says_how_long_that_takes(path: Path) -> None:
    script(path / "go", GO_BUILDS)
    lines: list[str] = []
    found = find_or_build(lines.append)
    assert found.kubectl == cache_directory().resolve() / "kubectl"
    assert "minutes" in lines[0]
    assert find_or_build(lines.append) == found
    assert calls() == 2
    assert len(lines) == 2


def test_a_long_build_shows_that_it_goes_on(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(binaries, "PROGRESS_SECONDS", 0.2)
    script(path / "go", f"{GO_BUILDS}\necho k8s.io/kubernetes/pkg/api >&2\n/bin/sleep 0.7\n")
    lines: list[str] = []
    find_or_build(lines.append)
    assert any(line.endswith("k8s.io/kubernetes/pkg/api") and "still building" in line for line in lines)


def test_two_runs_do_not_build_at_once(path: Path) -> None:
    script(path / "go", f"{GO_BUILDS}\n/bin/sleep 0.4\n")
    lines: list[str] = []
    runs = [threading.Thread(target=find_or_build, args=(lines.append,)) for _ in range(2)]
    for run in runs:
        run.start()
    for run in runs:
        run.join()
    assert calls() == 2
    assert any(line.startswith("Another run is building") for line in lines)


def test_a_killed_build_leaves_no_compiler(path: Path, tmp_path: Path) -> None:
    script(
        path / "go",
        f"{GO_ENV}\necho $$ > {tmp_path}/pid.new\n/bin/mv {tmp_path}/pid.new {tmp_path}/pid\nexec /bin/sleep 60\n",
    )
    root = Path(binaries.__file__).parents[2]
    command = [sys.executable, "-c", "from hack.cluster.binaries import find_or_build; find_or_build()"]
    with subprocess.Popen(command, cwd=root, stdout=subprocess.DEVNULL) as run:
        wait_for((tmp_path / "pid").exists)
        run.kill()
    stat_file = Path("/proc") / (tmp_path / "pid").read_text().strip() / "stat"
    wait_for(lambda: not stat_file.exists() or ") Z " in stat_file.read_text())


def wait_for(condition: Callable[[], bool]) -> None:
    for _ in range(100):
        if condition():
            return
        threading.Event().wait(0.1)
    raise AssertionError("it did not happen within 10 s")


def test_the_same_minor_on_path_is_used(path: Path) -> None:
    minor = pinned_version("kubectl").rpartition(".")[0]
    programs(path, f"{minor}.99", pinned_version("etcd"))
    assert find_or_build().kube_apiserver == path / "kube-apiserver"


def test_another_minor_on_path_is_refused_in_one_line(path: Path) -> None:
    programs(path, "v1.20.4", pinned_version("etcd"))
    script(path / "go", GO_BUILDS)
    lines: list[str] = []
    found = find_or_build(lines.append)
    assert found.kube_apiserver.parent == cache_directory().resolve()
    assert [line for line in lines if "is not used" in line] == [
        f"The control plane on PATH is not used: {path}/kube-apiserver is v1.20.4, not {pinned_version('kubectl')}."
    ]


def test_a_lone_kubectl_on_path_is_not_mixed_in(path: Path) -> None:
    script(path / "kubectl", f"echo {pinned_version('kubectl')}\n")
    script(path / "go", GO_BUILDS)
    assert find_or_build(silent).kubectl.parent == cache_directory().resolve()


def test_the_assets_come_first(path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    programs(path, pinned_version("kubectl"), pinned_version("etcd"))
    programs(tmp_path / "assets", "v1.30.0")
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path / "assets"))
    assert find_or_build().etcd == (tmp_path / "assets" / "etcd").resolve()


def test_assets_that_lack_a_program_are_passed_over_aloud(
    path: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    programs(path, pinned_version("kubectl"), pinned_version("etcd"))
    programs(tmp_path / "assets", "v1.30.0")
    (tmp_path / "assets" / "kube-controller-manager").unlink()
    monkeypatch.setenv("KUBEBUILDER_ASSETS", str(tmp_path / "assets"))
    lines: list[str] = []
    assert find_or_build(lines.append).etcd == path / "etcd"
    assert lines == [f"KUBEBUILDER_ASSETS={tmp_path}/assets is not used: it lacks kube-controller-manager."]
