"""Finds the control plane's programs, or builds them once from the pinned Go modules beside this file."""

import hashlib
import os
import platform
import re
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from hack.errors import SetupError
from hack.files import FileLock
from hack.processes import Process, tail

Log = Callable[[str], object]

HERE = Path(__file__).parent
NAMES = ("etcd", "kube-apiserver", "kube-controller-manager", "kubectl")
PROGRESS_SECONDS = 15.0
USUAL_DURATION = "about 7 minutes on 2 cores"

_VERSION_ARGUMENTS = {"kubectl": ("version", "--client")}
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}


@dataclass(frozen=True)
class Binaries:
    """Where the programs are."""

    etcd: Path
    kube_apiserver: Path
    kube_controller_manager: Path
    kubectl: Path


def find_or_build(log: Log = print) -> Binaries:
    """The programs of KUBEBUILDER_ASSETS, of PATH, of the cache, or built into the cache, in this order."""
    return _from_assets(log) or _from_path(log) or _from_cache() or _build(log)


def _from_assets(log: Log) -> Binaries | None:
    if not (assets := os.environ.get("KUBEBUILDER_ASSETS")):
        return None
    found = _in_directory(Path(assets))
    if found is None:
        missing = [name for name in NAMES if not (Path(assets) / name).is_file()]
        log(f"KUBEBUILDER_ASSETS={assets} is not used: it lacks {', '.join(missing)}.")
    return found


def _from_path(log: Log) -> Binaries | None:
    found = {name: path for name in NAMES if (path := shutil.which(name))}
    if len(found) < len(NAMES):
        return None
    for name, path in found.items():
        wanted = pinned_version(name)
        actual = _version_of(name, path)
        if _minor(actual) != _minor(wanted):
            log(f"The control plane on PATH is not used: {path} is {actual or 'of no known version'}, not {wanted}.")
            return None
    return _binaries({name: Path(path) for name, path in found.items()})


def _from_cache() -> Binaries | None:
    return _in_directory(cache_directory())


def _in_directory(directory: Path) -> Binaries | None:
    paths = {name: (directory / name).resolve() for name in NAMES}
    if all(path.is_file() and os.access(path, os.X_OK) for path in paths.values()):
        return _binaries(paths)
    return None


def _binaries(paths: Mapping[str, Path]) -> Binaries:
    return Binaries(**{name.replace("-", "_"): path for name, path in paths.items()})


def pinned_version(name: str) -> str:
    """The version that go.mod pins for a program."""
    folder, module = ("etcd", "go.etcd.io/etcd/server/v3") if name == "etcd" else ("k8s", "k8s.io/kubernetes")
    found = re.search(rf"^\s*{re.escape(module)} (v\S+)", (HERE / folder / "go.mod").read_text(), re.MULTILINE)
    if found is None:
        raise SetupError(f"{HERE / folder / 'go.mod'} does not require {module}.")
    return found[1]


def _version_of(name: str, path: str) -> str:
    try:
        answer = subprocess.run(
            [path, *_VERSION_ARGUMENTS.get(name, ("--version",))],
            capture_output=True,
            text=True,
            timeout=20,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return ""
    found = re.search(r"\bv?(\d+\.\d+\.\d+\S*)", answer.stdout)
    return f"v{found[1]}" if found else ""


def _minor(version: str) -> list[str]:
    return version.removeprefix("v").split(".")[:2]


def cache_directory() -> Path:
    """Where programs built from exactly these modules, for this system, belong."""
    digest = hashlib.sha256()
    for folder in ("k8s", "etcd"):
        for file in ("go.mod", "go.sum"):
            digest.update((HERE / folder / file).read_bytes())
    digest.update(_target().encode())
    root = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return root / "honeyframe" / "control-plane" / digest.hexdigest()[:16]


def _target() -> str:
    if go := shutil.which("go"):
        try:
            answer = subprocess.run([go, "env", "GOOS", "GOARCH"], capture_output=True, text=True, check=True)
        except (OSError, subprocess.SubprocessError) as error:
            raise SetupError(f"The Go toolchain {go} does not work: {error}.") from error
        return "/".join(answer.stdout.split())
    # What was built once is found without Go, too.
    machine = platform.machine()
    return f"{platform.system().lower()}/{_ARCHITECTURES.get(machine, machine)}"


def _build(log: Log) -> Binaries:
    go = shutil.which("go")
    if go is None:
        raise SetupError(
            "The Kubernetes control plane is not built yet and no Go toolchain is on PATH:"
            f" install Go {_go_version()} or newer, or let KUBEBUILDER_ASSETS name a directory with {', '.join(NAMES)}."
        )
    target = cache_directory()
    lock = FileLock(target.with_name(f"{target.name}.lock"))
    if not lock.acquire(wait=False):
        log(f"Another run is building the control plane ({USUAL_DURATION}); waiting for it.")
        lock.acquire(wait=True)
    try:
        return _from_cache() or _build_into(target, go, lock, log)
    finally:
        lock.release()


def _build_into(target: Path, go: str, lock: FileLock, log: Log) -> Binaries:
    for left_over in target.parent.glob(f"{target.name}.building-*"):
        shutil.rmtree(left_over, ignore_errors=True)
    version = pinned_version("kube-apiserver")
    log(f"Building Kubernetes {version} and etcd {pinned_version('etcd')}, once: {USUAL_DURATION}.")
    started = time.monotonic()
    # Beside its target, so that the rename is atomic: whoever sees the directory sees all of it.
    directory = Path(tempfile.mkdtemp(prefix=f"{target.name}.building-", dir=target.parent))
    log_file = target.with_name(f"{target.name}.log")
    log_file.unlink(missing_ok=True)
    try:
        for folder, arguments in (
            ("k8s", _kubernetes_arguments(version, directory)),
            ("etcd", _etcd_arguments(directory)),
        ):
            _run_go([go, "build", "-v", "-trimpath", *arguments], HERE / folder, log_file, (lock, log, started))
        if _in_directory(directory) is None:
            raise SetupError(f"The build of the control plane left no programs behind; its log is {log_file}.")
        directory.chmod(0o755)
        # Only an incomplete directory can be in the way: a complete one would have been used.
        shutil.rmtree(target, ignore_errors=True)
        directory.rename(target)
    finally:
        shutil.rmtree(directory, ignore_errors=True)
    log(f"Built the control plane in {_elapsed(started)}: {target}")
    found = _in_directory(target)
    assert found is not None  # noqa: S101 - checked before the rename
    return found


def _kubernetes_arguments(version: str, directory: Path) -> list[str]:
    major, minor = _minor(version)
    component = "k8s.io/component-base/version"
    stamps = {"gitVersion": version, "gitMajor": major, "gitMinor": minor}
    # Unstamped programs call themselves v0.0.0-master, and clients that ask for the version believe it.
    flags = " ".join(["-s -w", *(f"-X {component}.{name}={value}" for name, value in stamps.items())])
    packages = [f"k8s.io/kubernetes/cmd/{name}" for name in NAMES if name != "etcd"]
    return ["-ldflags", flags, "-o", f"{directory}/", *packages]


def _etcd_arguments(directory: Path) -> list[str]:
    return ["-ldflags", "-s -w", "-o", str(directory / "etcd"), "go.etcd.io/etcd/server/v3"]


def _run_go(command: Sequence[str], folder: Path, log_file: Path, run: tuple[FileLock, Log, float]) -> None:
    lock, log, started = run
    process = Process.start(
        command,
        log_file,
        cwd=folder,
        # A workspace of the surrounding directories would replace the pinned modules.
        env={**os.environ, "GOWORK": "off"},
        stop_signal=signal.SIGINT,
        pass_fds=(lock.descriptor,),
    )
    try:
        next_line = time.monotonic() + PROGRESS_SECONDS
        while (code := process.poll()) is None:
            time.sleep(0.1)
            if time.monotonic() >= next_line:
                # Go says nothing while it links, nor about what its own cache has.
                log(f"  still building after {_elapsed(started)}: {tail(process.output(), 1, nothing='linking')}")
                next_line += PROGRESS_SECONDS
    finally:
        process.stop()
    if code != 0:
        # `-v` writes bare package names; what went wrong has words.
        words = "\n".join(line for line in process.output().splitlines() if " " in line.strip())
        raise SetupError(f"The build of the control plane failed ({tail(words)}); its log is {log_file}.")


def _go_version() -> str:
    found = re.search(r"^go (\d+\.\d+)", (HERE / "k8s" / "go.mod").read_text(), re.MULTILINE)
    return found[1] if found else ""


def _elapsed(started: float) -> str:
    minutes, seconds = divmod(round(time.monotonic() - started), 60)
    return f"{minutes} min {seconds} s" if minutes else f"{seconds} s"
