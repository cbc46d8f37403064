"""Supervised processes and free ports."""

import contextlib
import json
import os
import random
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from hack import supervisor
from hack.errors import SetupError

PORT_ATTEMPTS = 3
_LOWEST_PORT = 20_000
_RANDOM = random.SystemRandom()


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on.

    It lies below the ephemeral range where there is room: a client that dials a stopped server of an ephemeral port
    can be given that very port as its own, connect to itself, and so keep the server from coming back.
    """
    try:
        ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    except (OSError, ValueError):
        ephemeral = 0
    candidates = range(_LOWEST_PORT, ephemeral)
    wanted = _RANDOM.sample(candidates, min(50, len(candidates)))
    for port in [*wanted, 0]:
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            found: int = probe.getsockname()[1]
            return found
    raise SetupError("No port of 127.0.0.1 is free.")


class PortTakenError(SetupError):
    """Somebody took the port between the moment it was found free and the start of the program."""


def on_a_free_port(launch: Callable[[int], None]) -> None:
    """Start something on a free port, and on another one where that was taken meanwhile.

    Raises:
        PortTakenError: that happened too often
    """
    for _ in range(PORT_ATTEMPTS - 1):
        with contextlib.suppress(PortTakenError):
            return launch(free_port())
    return launch(free_port())


@dataclass
class Process:
    """A program that ends when this process does, even by SIGKILL."""

    name: str
    pid: int
    log_file: Path
    _log_start: int
    _supervisor: subprocess.Popen[str] = field(repr=False)

    @classmethod
    def start(
        cls,
        command: Sequence[str | Path],
        log_file: Path,
        *,
        env: Mapping[str, str] | None = None,
        cwd: Path | None = None,
        user: tuple[int, int] | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
        grace: float = 10.0,
        pass_fds: Sequence[int] = (),
    ) -> "Process":
        """Start a program, its output appended to `log_file`.

        Args:
            command: the program and its arguments; every local user can see them
            log_file: where stdout and stderr go
            env: the whole environment, or None for ours
            cwd: the directory to run in
            user: user and group id to run as
            stop_signal: what asks the program to stop
            grace: seconds until it is killed after that
            pass_fds: descriptors, as of locks, that the supervisor holds until the program ended
        """
        name = Path(command[0]).name
        uid, gid = user or (None, None)
        options = {
            "command": [str(part) for part in command],
            "stop_signal": int(stop_signal),
            "grace": grace,
            "user": uid,
            "group": gid,
        }
        with log_file.open("ab") as log:
            log_start = log.tell()
            process = subprocess.Popen(
                # No site-packages: a third of the start-up time, and nothing of the environment gets in.
                [sys.executable, "-I", "-S", supervisor.__file__, json.dumps(options)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
                env=env,
                cwd=cwd,
                pass_fds=pass_fds,
                # Ctrl-C is for us; we stop them in order.
                start_new_session=True,
            )
        assert process.stdout is not None  # noqa: S101 - for the type checker
        answer = process.stdout.readline().strip()
        process.stdout.close()
        if not answer.isdecimal():
            _close(process)
            raise SetupError(f"{command[0]} cannot be started: {answer or 'the supervisor ended'}.")
        return cls(name, int(answer), log_file, log_start, process)

    def poll(self) -> int | None:
        """The exit code, 128 + signal when killed, or None while it runs."""
        return self._supervisor.poll()

    def request_stop(self) -> None:
        """Ask it to stop and return at once."""
        # Closing the pipe alone would not do where a forked child of ours holds a copy.
        if self.poll() is None:
            self._supervisor.send_signal(signal.SIGTERM)

    def stop(self) -> None:
        """Stop it and wait until it is gone; a second call does nothing."""
        self.request_stop()
        _close(self._supervisor)

    def output(self) -> str:
        """What it wrote since it started."""
        with self.log_file.open("rb") as log:
            log.seek(self._log_start)
            return log.read().decode(errors="replace")

    def port_was_taken(self) -> bool:
        """Whether it ended because somebody else had the port by then."""
        return self.poll() is not None and "address already in use" in self.output().lower()


def _close(process: subprocess.Popen[str]) -> None:
    if process.stdin is not None:
        process.stdin.close()
    process.wait()


def tail(text: str, lines: int = 3, *, width: int = 300, nothing: str = "it wrote nothing") -> str:
    """The last lines as one, for an error sentence."""
    last = [line.strip()[:width] for line in text.splitlines() if line.strip()][-lines:]
    return " | ".join(last) or nothing


def wait_until(ready: Callable[[], bool], processes: Sequence[Process], what: str, timeout: float = 60.0) -> None:
    """Wait until `ready`; raise when one of the processes ends or the time is over."""
    deadline = time.monotonic() + timeout
    while not ready():
        for process in processes:
            if (code := process.poll()) is not None:
                raise SetupError(
                    f"{process.name} ended with {code} before {what} was ready: {tail(process.output())}"
                    f" (log: {process.log_file})"
                )
        if time.monotonic() > deadline:
            last = processes[-1]
            raise SetupError(
                f"{what} was not ready after {timeout:.0f} s: {tail(last.output())} (log: {last.log_file})"
            )
        time.sleep(0.05)


def environment_without(*prefixes: str) -> dict[str, str]:
    """Our environment without the variables of these prefixes."""
    return {name: value for name, value in os.environ.items() if not name.startswith(prefixes)}
