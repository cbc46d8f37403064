"""Runs one program and ends it when the process that asked for it is gone.

Started by `hack.processes` as a script of its own, so it uses the standard library only. Its standard input is a pipe
whose other end the asking process holds: the kernel closes it however that process ends, SIGKILL included. A death
signal alone would not do: it follows the thread that forked, not the process.
"""

import contextlib
import ctypes
import json
import os
import select
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

PR_SET_PDEATHSIG = 1


def descendants(pid: int) -> list[int]:
    """The children of a process, theirs, and so on."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            # The name in parentheses may hold spaces and parentheses itself.
            parent = int(entry.read_text(errors="replace").rpartition(")")[2].split()[1])
            children.setdefault(parent, []).append(int(entry.parent.name))
    found: list[int] = []
    waiting = [pid]
    while waiting:
        below = children.get(waiting.pop(), [])
        found += below
        waiting += below
    return found


def send(pids: list[int], number: int) -> None:
    """Signal those that still live."""
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, number)


def end(program: subprocess.Popen[bytes], stop_signal: int, grace: float) -> None:
    """Ask the program to stop, and kill it with all below it when it does not."""
    program.send_signal(stop_signal)
    # PostgreSQL's backends have sessions of their own, so the group is not all. A stopped process does not hear.
    send([program.pid, *descendants(program.pid)], signal.SIGCONT)
    try:
        program.wait(grace)
    except subprocess.TimeoutExpired:
        send([*descendants(program.pid), program.pid], signal.SIGKILL)
        program.wait()


def wait_for_reason(program: subprocess.Popen[bytes], signals: int) -> None:
    """Return when the program ended, when we are told to stop, or when nobody holds the pipe any more."""
    while program.poll() is None:
        ready, _, _ = select.select([sys.stdin.fileno(), signals], [], [])
        if sys.stdin.fileno() in ready or signal.SIGTERM in os.read(signals, 64):
            return


def main() -> int:
    """Run the program that the first argument describes."""
    options: dict[str, Any] = json.loads(sys.argv[1])
    libc = ctypes.CDLL(None)
    signals, wakeup = os.pipe()
    os.set_blocking(wakeup, False)
    signal.set_wakeup_fd(wakeup)
    for number in (signal.SIGCHLD, signal.SIGTERM):
        signal.signal(number, lambda *_: None)
    try:
        program = subprocess.Popen(
            options["command"],
            stdin=subprocess.DEVNULL,
            stdout=sys.stderr,
            start_new_session=True,
            user=options["user"],
            group=options["group"],
            extra_groups=None if options["user"] is None else [],
            # This process has one thread, so here the death signal is safe: it covers a SIGKILL of the supervisor.
            preexec_fn=lambda: libc.prctl(PR_SET_PDEATHSIG, signal.SIGKILL),  # noqa: PLW1509
        )
    except OSError as error:
        print(error.strerror or error, flush=True)
        return 127
    print(program.pid, flush=True)
    try:
        wait_for_reason(program, signals)
    finally:
        if program.poll() is None:
            end(program, options["stop_signal"], options["grace"])
        with contextlib.suppress(ProcessLookupError):
            os.killpg(program.pid, signal.SIGKILL)
    return program.returncode if program.returncode >= 0 else 128 - program.returncode


if __name__ == "__main__":
    sys.exit(main())
