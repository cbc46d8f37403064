"""`make demo`: a real control plane, a real PostgreSQL, the operator, and the examples as they settle."""

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml

from hack.cluster import ControlPlane
from hack.errors import SetupError
from hack.operator_process import OperatorProcess, install
from hack.postgres import PostgresServer
from hack.webhook_sink import WebhookSink

EXAMPLES = Path(__file__).parents[1] / "examples/manifests"
NAMESPACE = "demo"
SETTLED = {
    "analytics": ("True", "Succeeded"),
    "incidents": ("True", "Succeeded"),
    "late-secret": ("True", "Succeeded"),
    "suspended": ("Unknown", "Suspended"),
    "wrong-password": ("False", "AuthenticationFailed"),
}
"""How each example ends: Ready's status and reason. The manifest of `refused` never gets in."""
LATE_SECONDS = 10.0
PATIENCE_SECONDS = 90.0


def main() -> int:
    """Run the demo; the exit code is 0 if everything settled as it should."""
    parser = argparse.ArgumentParser(prog="make demo", description=__doc__)
    parser.add_argument("--once", action="store_true", help="end as soon as everything has settled (make demo ONCE=1)")
    once: bool = parser.parse_args().once
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        with (
            tempfile.TemporaryDirectory(prefix="honeyframe-demo-") as directory,
            ControlPlane.start() as cluster,
            PostgresServer.start() as postgres,
            WebhookSink.start() as sink,
            OperatorProcess(install(cluster), Path(directory), ["--allow-target", "127.0.0.1/32"]).start() as operator,
        ):
            ok = _show(cluster, postgres, sink)
            if not once:
                _go_on(cluster, operator)
    except SetupError as error:
        print(f"demo: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0
    print("demo: everything settled as it should" if ok else "demo: NOT everything settled as it should")
    return 0 if ok else 1


def _show(cluster: ControlPlane, postgres: PostgresServer, sink: WebhookSink) -> bool:
    postgres.create_role("honeyframe_ro", "demo-password")
    postgres.create_role("analytics_app", "first-password")
    postgres.create_database("analytics", owner="honeyframe_ro")
    cluster.kubectl_run("create", "namespace", NAMESPACE)
    _apply(cluster, _config_map("postgres-ca", {"ca.crt": postgres.ca_file.read_text()}))
    _apply(cluster, _postgres_secret("analytics-postgres", postgres, "first-password", role="analytics_app"))
    _apply(cluster, _postgres_secret("wrong-password", postgres, "not-the-password"))
    _apply(cluster, _secret("incidents", {"url": sink.url}))

    print("\n$ kubectl apply -f examples/manifests/ -f examples/manifests/demo/", flush=True)
    started = time.monotonic()
    refused = False
    for path in sorted([*EXAMPLES.glob("*.yaml"), *EXAMPLES.glob("demo/*.yaml")]):
        result = cluster.kubectl_run("apply", "-n", NAMESPACE, "-f", os.path.relpath(path), check=False)
        print((result.stdout + result.stderr).strip())
        refused |= path.stem == "refused" and result.returncode != 0
    return _settle(cluster, postgres, started) and refused and _life_of_a_credential(cluster, postgres)


def _life_of_a_credential(cluster: ControlPlane, postgres: PostgresServer) -> bool:
    """A rotation that is refused, one that passes, and a rollback."""
    print("A new password that the server does not know is refused, and the old one goes on serving:\n")
    refused = _honeyframe(cluster, "rotate", "analytics", "--from-env", "password=NEW", NEW="second-password")
    print("The server learns it:\n\n$ psql -c \"ALTER ROLE analytics_app PASSWORD '...'\"\n", flush=True)
    postgres.psql("ALTER ROLE analytics_app PASSWORD 'second-password'")
    served = _honeyframe(cluster, "wait", "analytics", "--for", "insync", "--timeout", "60s")
    print("Second thoughts, on the server and here:\n\n$ psql -c \"ALTER ROLE analytics_app PASSWORD '...'\"\n")
    postgres.psql("ALTER ROLE analytics_app PASSWORD 'first-password'")
    back = _honeyframe(cluster, "rollback", "analytics", "--to", "1")
    _honeyframe(cluster, "history", "analytics")
    print("$ kubectl get connectors")
    print(cluster.kubectl_run("get", "connectors", "-n", NAMESPACE).stdout, flush=True)
    return (refused, served, back) == (1, 0, 0)


def _honeyframe(cluster: ControlPlane, *command: str, **values: str) -> int:
    print(f"$ kubectl honeyframe {' '.join(command)}", flush=True)
    result = subprocess.run(
        [sys.executable, "-m", "honeyframe_connectors.cli", *command, "-n", NAMESPACE],
        env={**os.environ, "KUBECONFIG": str(cluster.kubeconfig), **values},
        check=False,
    )
    print(f"(exit code {result.returncode})\n", flush=True)
    return result.returncode


def _settle(cluster: ControlPlane, postgres: PostgresServer, started: float) -> bool:
    shown: dict[str, tuple[str, str]] = {}
    late = False
    while time.monotonic() < started + PATIENCE_SECONDS:
        if not late and time.monotonic() > started + LATE_SECONDS:
            late = True
            print("\nThe Secret of late-secret arrives now.")
            _apply(cluster, _postgres_secret("late-secret", postgres, "demo-password"))
        found = {item["metadata"]["name"]: _ready(item) for item in _items(cluster, "connectors")}
        if found != shown:
            shown = found
            table = cluster.kubectl_run("get", "connectors", "-n", NAMESPACE).stdout
            print(
                f"\n$ kubectl get connectors        ({time.monotonic() - started:.0f} s)\n{table}", end="", flush=True
            )
        catalogs = [_ready(item) for item in _items(cluster, "catalogconfigs")]
        if found == SETTLED and catalogs == [("True", "Succeeded")]:
            table = cluster.kubectl_run("get", "catalogconfigs", "-n", NAMESPACE).stdout
            print(f"\n$ kubectl get catalogconfigs\n{table}")
            print("$ kubectl get events --field-selector type=Warning")
            columns = "custom-columns=REASON:.reason,CONNECTOR:.involvedObject.name,MESSAGE:.message"
            events = ("get", "events", "-n", NAMESPACE, "--field-selector", "type=Warning", "-o", columns)
            print(cluster.kubectl_run(*events).stdout, flush=True)
            return True
        time.sleep(0.2)
    return False


def _go_on(cluster: ControlPlane, operator: OperatorProcess) -> None:
    print(
        f"""It goes on running until Ctrl-C. In another terminal:

  export KUBECONFIG={cluster.kubeconfig}
  alias kubectl={cluster.kubectl}
  kubectl get connectors -n {NAMESPACE} -o wide
  kubectl explain connector.spec.config
  kubectl honeyframe status -n {NAMESPACE}       (or: .venv/bin/honeyframe)
  kubectl describe connector wrong-password -n {NAMESPACE}
  kubectl patch secret wrong-password -n {NAMESPACE} -p '{{"stringData": {{"password": "demo-password"}}}}'
  kubectl get connector wrong-password -n {NAMESPACE} -w
  tail -f {operator.log_file}
""",
        flush=True,
    )
    signal.pause()


def _items(cluster: ControlPlane, plural: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = json.loads(cluster.kubectl_run("get", plural, "-n", NAMESPACE, "-o", "json").stdout)[
        "items"
    ]
    return found


def _ready(item: Mapping[str, Any]) -> tuple[str, str]:
    conditions = {condition["type"]: condition for condition in item.get("status", {}).get("conditions", [])}
    ready = conditions.get("Ready")
    return (ready["status"], ready["reason"]) if ready else ("", "")


def _apply(cluster: ControlPlane, document: Mapping[str, Any]) -> None:
    # Not client-side: `kubectl apply` keeps the whole Secret in an annotation.
    cluster.kubectl_run("apply", "--server-side", "-n", NAMESPACE, "-f", "-", input=yaml.safe_dump(dict(document)))


def _secret(name: str, values: Mapping[str, str]) -> dict[str, Any]:
    metadata = {"name": name, "labels": {"honeyframe.io/credentials": "true"}}
    return {"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "stringData": dict(values)}


def _postgres_secret(name: str, postgres: PostgresServer, password: str, role: str = "honeyframe_ro") -> dict[str, Any]:
    values = {
        "host": postgres.host,
        "port": str(postgres.port),
        "username": role,
        "password": password,
    }
    return _secret(name, values)


def _config_map(name: str, values: Mapping[str, str]) -> dict[str, Any]:
    return {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": dict(values)}


if __name__ == "__main__":
    sys.exit(main())
