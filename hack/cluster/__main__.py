"""The command line: `python -m hack.cluster up|down|build|kubectl`."""

import argparse
import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hack.cluster.binaries import find_or_build
from hack.cluster.control_plane import LOCK, ControlPlane, kubectl_environment
from hack.errors import SetupError
from hack.files import is_locked

ROOT = Path(__file__).resolve().parents[2]
DEFAULT = Path(".run/cluster")
STATE = "cluster.json"
STOP_SECONDS = 30.0


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command."""
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    try:
        # Not by argparse: every argument that follows belongs to kubectl, dashes included.
        if arguments[:1] == ["kubectl"]:
            return kubectl(arguments[1:])
        options = _parser().parse_args(arguments)
        return int(options.run(options))
    except SetupError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m hack.cluster", description=__doc__)
    parsers = parser.add_subparsers(required=True, metavar="COMMAND")
    for name, run, text in (
        ("up", up, "start a new control plane that stays, and print how to reach it"),
        ("down", down, "stop it"),
        ("serve", serve, "run it in the foreground, until SIGTERM or Ctrl-C"),
    ):
        command = parsers.add_parser(name, help=text)
        command.add_argument("--dir", type=Path, default=DEFAULT, help=f"keys, data and logs (default: {DEFAULT})")
        command.set_defaults(run=run)
    parsers.add_parser("build", help="only build the programs").set_defaults(run=build)
    parsers.add_parser("kubectl", help="[--dir DIR] ARGUMENTS: the control plane's own kubectl, as administrator")
    return parser


def build(_options: argparse.Namespace) -> int:
    """Find or build the programs."""
    print(find_or_build(_say).kube_apiserver.parent)
    return 0


def up(options: argparse.Namespace) -> int:
    """Start a detached process that holds the control plane."""
    directory: Path = options.dir.resolve()
    if is_locked(directory / LOCK):
        _print_access(_state(directory))
        return 0
    # Here, where a person sees the progress, not in the background.
    find_or_build(_say)
    directory.mkdir(parents=True, exist_ok=True)
    (directory / STATE).unlink(missing_ok=True)
    log_file = directory / "serve.log"
    with log_file.open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "hack.cluster", "serve", "--dir", str(directory)],
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
    try:
        while not (directory / STATE).exists():
            if server.poll() is not None:
                print(log_file.read_text().strip(), file=sys.stderr)
                return 1
            time.sleep(0.05)
    except BaseException:
        server.terminate()
        server.wait()
        raise
    _print_access(_state(directory))
    return 0


def serve(options: argparse.Namespace) -> int:
    """Hold a control plane until told to stop."""
    directory: Path = options.dir.resolve()
    state = directory / STATE
    signal.signal(signal.SIGTERM, _interrupt)
    try:
        with ControlPlane.start(directory, log=_say) as plane:
            content = {"pid": os.getpid(), "kubeconfig": str(plane.kubeconfig), "kubectl": str(plane.kubectl)}
            written = state.with_suffix(".new")
            written.write_text(json.dumps(content) + "\n")
            # `up` waits for the file and must never read half of it.
            written.rename(state)
            print(f"{plane.url} is up; kubeconfig: {plane.kubeconfig}", flush=True)
            try:
                while True:
                    signal.pause()
            finally:
                state.unlink(missing_ok=True)
    except KeyboardInterrupt:
        return 0


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


def down(options: argparse.Namespace) -> int:
    """Stop what `up` started, and wait until its last process is gone."""
    directory: Path = options.dir.resolve()
    lock = directory / LOCK
    if not is_locked(lock):
        print(f"No control plane is running in {directory}.")
        return 0
    _terminate(_state(directory)["pid"])
    deadline = time.monotonic() + STOP_SECONDS
    while is_locked(lock):
        if time.monotonic() > deadline:
            raise SetupError(f"The control plane in {directory} still runs after {STOP_SECONDS:.0f} s.")
        time.sleep(0.05)
    return 0


def _terminate(pid: int) -> None:
    # The state outlives a holder that was killed, and its number may be another program's by now.
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        if b"hack.cluster" in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGTERM)


def kubectl(arguments: Sequence[str]) -> int:
    """Become kubectl."""
    directory = DEFAULT.resolve()
    if arguments[:1] == ["--dir"]:
        directory, arguments = Path(arguments[1]).resolve(), arguments[2:]
    if not is_locked(directory / LOCK):
        raise SetupError(f"No control plane is running in {directory}: start one with `python -m hack.cluster up`.")
    state = _state(directory)
    environment = kubectl_environment(directory, Path(state["kubeconfig"]))
    os.execve(state["kubectl"], ["kubectl", *arguments], environment)  # noqa: S606 - that is the purpose


def _state(directory: Path) -> dict[str, Any]:
    try:
        state: dict[str, Any] = json.loads((directory / STATE).read_text())
    except FileNotFoundError as error:
        raise SetupError(f"The control plane in {directory} is just starting, stopping, or part of a test.") from error
    return state


def _print_access(state: dict[str, Any]) -> None:
    print(f"kubeconfig: {state['kubeconfig']}")
    print(f"export KUBECONFIG={shlex.quote(state['kubeconfig'])}")


def _say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
