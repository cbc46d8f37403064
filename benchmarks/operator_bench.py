"""The operator beside a Go client that does only the calls that no operator can do without.

A round: a new control plane; the Go client does GET Secret and merge-PATCH of the status of every object with no
operator running; then the same objects, made anew, are reconciled by an operator with an empty store. The time of a
cold start runs from the moment that the operator leads, before which it acts on no event, to its last status write as
the Go program sees it on a watch.
"""

import json
import math
import os
import re
import shutil
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hack.cluster import ControlPlane
from hack.errors import SetupError
from hack.operator_process import OperatorProcess, install
from hack.processes import Process, free_port, tail, wait_until

HERE = Path(__file__).parent
NAMESPACE = "bench"
FLAGS = ("--allow-target", "127.0.0.1/32")
GOALS = {
    "cold_ratio_to_go": ">= 0.75",
    "cpu_ms_per_object": "<= 2.0",
    "gets_per_object": "1.0",
    "writes_per_object": "1.0",
    "restart_gets": "0",
    "restart_writes": "0",
    "restart_seconds": "<= 5",
    "first_write_p99_ms": "<= 250",
    "writes_per_minute_at_rest": "0",
    "rss_mib": "<= 200",
}
LEADING = b" leading as "
INTERVAL = 30.0
"""Seconds between two checks of a Connector of the benchmark: after as long, each was looked at again."""
_TICKS = os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Size:
    """How much is measured."""

    objects: int
    rounds: int
    fresh: int
    rest_seconds: float


FULL = Size(objects=2000, rounds=3, fresh=100, rest_seconds=120)
QUICK = Size(objects=200, rounds=1, fresh=10, rest_seconds=10)


def run(*, quick: bool = False) -> dict[str, float]:
    """Measure, print the table, and return the figures by their keys."""
    size = QUICK if quick else FULL
    limit = _build()
    rounds: list[dict[str, float]] = []
    late: dict[str, float] = {}
    for number in range(size.rounds):
        with _arena(limit) as (cluster, url):
            go_rate = _go(cluster, limit, size, url)
            with tempfile.TemporaryDirectory(prefix="honeyframe-bench-") as home:
                operator = OperatorProcess(install(cluster), Path(home), FLAGS)
                with operator:
                    cold = _cold(cluster, limit, size, operator)
                    rounds.append({**cold, "go": go_rate, "ratio": cold["rate"] / go_rate})
                    print(f"round {number + 1}: Go {go_rate:.0f}/s, operator {cold['rate']:.0f}/s", flush=True)
                    if number == size.rounds - 1:
                        late = _settled(cluster, limit, size, operator, url)
    figures = {
        "cold_ratio_to_go": _median(rounds, "ratio"),
        "cpu_ms_per_object": _median(rounds, "cpu_ms"),
        "gets_per_object": _median(rounds, "gets"),
        "writes_per_object": _median(rounds, "writes"),
        **late,
    }
    _print_table(figures, rounds, size)
    return figures


def _go(cluster: ControlPlane, limit: Path, size: Size, url: str) -> float:
    """Objects a second of the Go client."""
    install(cluster)
    _limit(cluster, limit, "seed", size, "--url", url)
    seconds = _limit(cluster, limit, "reconcile", size)[-1]["seconds"]
    _limit(cluster, limit, "clear", size)
    _limit(cluster, limit, "seed", size, "--url", url)
    return size.objects / float(seconds)


def _cold(cluster: ControlPlane, limit: Path, size: Size, operator: OperatorProcess) -> dict[str, float]:
    watch = subprocess.Popen(
        [limit, "watch", "--namespace", NAMESPACE, "--objects", str(size.objects)],
        env={**os.environ, "KUBECONFIG": str(cluster.kubeconfig)},
        stdout=subprocess.PIPE,
        text=True,
    )
    assert watch.stdout is not None  # noqa: S101 - for the type checker
    watch.stdout.readline()
    before = _calls(cluster)
    operator.start(wait=False)
    samples: list[tuple[int, float]] = []
    ended = threading.Event()
    sampler = threading.Thread(target=_sample, args=(operator.pid, samples, ended), daemon=True)
    sampler.start()
    first = _leads(operator)
    line = watch.stdout.readline()
    watch.wait()
    ended.set()
    sampler.join()
    if not line:
        raise SetupError(f"the cold start did not end: {tail(operator.log_file.read_text())}")
    last = json.loads(line)["last"]
    after = _calls(cluster)
    cpu = _at(samples, last) - _at(samples, first)
    return {
        "rate": size.objects / ((last - first) / 1e9),
        "cpu_ms": 1000 * cpu / size.objects,
        "gets": (after["gets"] - before["gets"]) / size.objects,
        "writes": (after["writes"] - before["writes"]) / size.objects,
    }


def _leads(operator: OperatorProcess) -> int:
    """When it began to work, in nanoseconds."""
    while LEADING not in operator.log_file.read_bytes():
        if operator.poll() is not None:
            raise SetupError(f"the operator ended: {tail(operator.log_file.read_text())}")
        time.sleep(0.002)
    return time.time_ns()


def _settled(cluster: ControlPlane, limit: Path, size: Size, operator: OperatorProcess, url: str) -> dict[str, float]:
    """What a restart, new objects and rest cost where everything is settled."""
    wait_until(lambda: operator.get("/readyz") == "ok", [], "the operator")
    time.sleep(2.0)  # the last rows are written behind the last status
    rss = _peak_rss(operator.pid)
    operator.stop()
    before = _calls(cluster)
    started = time.monotonic()
    operator.start()
    restart_seconds = time.monotonic() - started
    time.sleep(INTERVAL + 10.0)  # what a restart forgot may also show only when an object's next check is due
    after = _calls(cluster)
    fresh = _limit(cluster, limit, "fresh", size, "--url", url, namespace="fresh", objects=size.fresh)[-1]
    took = sorted(fresh["milliseconds"])
    at_rest = _calls(cluster)
    time.sleep(size.rest_seconds)
    writes = _calls(cluster)["all_writes"] - at_rest["all_writes"]
    return {
        "restart_gets": after["gets"] - before["gets"],
        "restart_writes": after["writes"] - before["writes"],
        "restart_seconds": restart_seconds,
        "first_write_p99_ms": took[max(0, math.ceil(len(took) * 0.99) - 1)],
        "writes_per_minute_at_rest": writes * 60 / size.rest_seconds,
        "rss_mib": max(rss, _peak_rss(operator.pid)),
    }


@contextmanager
def _arena(limit: Path) -> Iterator[tuple[ControlPlane, str]]:
    """A control plane and a target that accepts and closes."""
    with ControlPlane.start(log=lambda _: None) as cluster:
        port = free_port()
        process = Process.start([limit, "target", "--listen", f"127.0.0.1:{port}"], cluster.directory / "target.log")
        try:
            yield cluster, f"http://127.0.0.1:{port}/hook"
        finally:
            process.stop()


def _build() -> Path:
    """The Go program, built once into the user's cache."""
    go = shutil.which("go")
    if go is None:
        raise SetupError("Go is not on PATH: the reference is a Go client; install Go 1.26 or newer.")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "honeyframe"
    cache.mkdir(parents=True, exist_ok=True)
    program = cache / "bench-limit"
    command = [go, "build", "-trimpath", "-o", str(program), "."]
    result = subprocess.run(command, cwd=HERE / "limit", capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise SetupError(f"the Go client cannot be built: {tail(result.stderr)}")
    return program


def _limit(
    cluster: ControlPlane,
    limit: Path,
    command: str,
    size: Size,
    *more: str,
    namespace: str = NAMESPACE,
    objects: int | None = None,
) -> list[dict[str, Any]]:
    arguments: list[str | Path] = [
        limit,
        command,
        "--namespace",
        namespace,
        "--objects",
        str(objects or size.objects),
        *more,
    ]
    env = {**os.environ, "KUBECONFIG": str(cluster.kubeconfig)}
    result = subprocess.run(arguments, env=env, capture_output=True, text=True, check=False)
    if result.returncode != 0:
        raise SetupError(f"{command} of the Go client failed: {tail(result.stderr)}")
    return [json.loads(line) for line in result.stdout.splitlines()]


def _calls(cluster: ControlPlane) -> dict[str, float]:
    """What the API server has counted: GETs of Secrets, writes of our status, and those with Events."""
    text = cluster.kubectl_run("get", "--raw", "/metrics").stdout
    counted = {"gets": 0.0, "writes": 0.0, "all_writes": 0.0}
    for labels, value in re.findall(r"^apiserver_request_total\{(.*?)\} (\S+)$", text, re.MULTILINE):
        label = dict(re.findall(r'(\w+)="(.*?)"', labels))
        writes = label["verb"] in ("POST", "PUT", "PATCH", "APPLY")
        if label["resource"] == "secrets" and label["verb"] == "GET":
            counted["gets"] += float(value)
        if label["resource"] == "connectors" and label["subresource"] == "status" and writes:
            counted["writes"] += float(value)
            counted["all_writes"] += float(value)
        if label["resource"] == "events" and writes:
            counted["all_writes"] += float(value)
    return counted


def _sample(pid: int, samples: list[tuple[int, float]], ended: threading.Event) -> None:
    while not ended.wait(0.02):
        samples.append((time.time_ns(), _cpu(pid)))
    samples.append((time.time_ns(), _cpu(pid)))


def _at(samples: list[tuple[int, float]], moment: int) -> float:
    return next((cpu for at, cpu in samples if at >= moment), samples[-1][1])


def _cpu(pid: int) -> float:
    """CPU seconds of a process and its children that ended."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return sum(map(int, fields[11:15])) / _TICKS


def _peak_rss(pid: int) -> float:
    status = Path(f"/proc/{pid}/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+)", status)
    return int(found.group(1)) / 1024 if found else 0.0


def _median(rounds: list[dict[str, float]], key: str) -> float:
    return statistics.median(each[key] for each in rounds)


def _print_table(figures: Mapping[str, float], rounds: list[dict[str, float]], size: Size) -> None:
    print(f"\n{size.objects} Connectors with a Secret each, {size.rounds} rounds, medians; {os.cpu_count()} cores")
    print(f"Go client {_median(rounds, 'go'):.0f} objects/s, operator {_median(rounds, 'rate'):.0f} objects/s\n")
    print(f"{'figure':<28}{'measured':>10}  goal")
    for key, goal in GOALS.items():
        print(f"{key:<28}{figures[key]:>10.2f}  {goal}")
    print("\nLease renewals are not counted as writes at rest.\n")
