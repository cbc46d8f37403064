"""The command line as people run it: a process of its own, under just the rights that it names."""

import asyncio
import base64
import json
import os
import re
import secrets
import subprocess
import sys
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml
from kubernetes.config import incluster_config

from hack.cluster import ControlPlane
from hack.operator_process import OperatorProcess
from hack.webhook_sink import WebhookSink
from honeyframe_connectors.api.kinds import now, timestamp
from honeyframe_connectors.cli.cluster import connect
from tests.cluster.conftest import PASSWORD, Database
from tests.support.cluster import Body, Namespace

ROOT = Path(__file__).parents[2]
Trust = Callable[[Namespace], Awaitable[dict[str, str]]]
HONEYFRAME = (sys.executable, "-m", "honeyframe_connectors.cli")
DEAD = {"webhook": {"url": "http://127.0.0.1:1/"}}


@dataclass
class Ran:
    """How a command ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass
class Cli:
    """The command as one user runs it in one namespace."""

    kubeconfig: Path
    namespace: str

    async def __call__(self, command: str, *args: str, typed: str = "", **env: str) -> Ran:
        """Run a command to its end."""
        return await self.start(command, *args, typed=typed, **env)

    def start(self, command: str, *args: str, typed: str = "", **env: str) -> "asyncio.Task[Ran]":
        """Run a command, to be waited for later."""
        own = ("--kubeconfig", str(self.kubeconfig), "-n", self.namespace)
        return asyncio.create_task(run(*HONEYFRAME, command, *args, *own, typed=typed, **env))


async def run(*command: str | Path, typed: str = "", **env: str) -> Ran:
    """Run anything; no password may be in what it was given or wrote."""
    assert PASSWORD not in " ".join(map(str, command))
    ran = await asyncio.to_thread(
        subprocess.run,
        command,
        env=environment() | env,
        input=typed,
        capture_output=True,
        text=True,
        check=False,
        timeout=90,
    )
    assert PASSWORD not in ran.stdout + ran.stderr
    assert "Traceback" not in ran.stderr
    return Ran(ran.returncode, ran.stdout, ran.stderr)


def environment() -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("KUBE", "PYTHON", "HONEYFRAME"))}
    return kept | {"PYTHONPATH": f"{ROOT}:{ROOT / 'operator'}", "COLUMNS": "200"}


class People:
    """Users of one namespace who have the roles that they are given, and no other right."""

    def __init__(self, cluster: ControlPlane, namespace: str) -> None:
        self.cluster = cluster
        self.namespace = namespace

    def certificate(self, *roles: str, secret: str | None = None) -> Cli:
        """Somebody with a client certificate."""
        name = f"u-{secrets.token_hex(4)}"
        self._bind(name, f"--user={name}", roles, secret)
        return Cli(self.cluster.client_kubeconfig(name), self.namespace)

    def token(self, *roles: str, secret: str | None = None) -> Cli:
        """A service account with a token."""
        name = f"u-{secrets.token_hex(4)}"
        kubeconfig = self.cluster.service_account_kubeconfig(self.namespace, name)
        self._bind(name, f"--serviceaccount={self.namespace}:{name}", roles, secret)
        return Cli(kubeconfig, self.namespace)

    def _bind(self, name: str, who: str, roles: tuple[str, ...], secret: str | None) -> None:
        for role in roles:
            self._run("create", "rolebinding", f"{name}-{role}", f"--clusterrole={role}", who)
        if secret:
            self._run("create", "role", name, "--verb=patch", "--resource=secrets", f"--resource-name={secret}")
            self._run("create", "rolebinding", name, f"--role={name}", who)

    def _run(self, *args: str) -> None:
        self.cluster.kubectl_run("-n", self.namespace, *args)


READ, EDIT = "honeyframe-connector-read", "honeyframe-connector-edit"


@pytest.fixture
def people(control_plane: ControlPlane, namespace: Namespace) -> People:
    return People(control_plane, namespace.name)


@pytest.fixture(params=["certificate", "token"])
def reader(request: pytest.FixtureRequest, people: People) -> Cli:
    found: Cli = getattr(people, request.param)(READ)
    return found


@pytest.fixture(params=["certificate", "token"])
def editor(request: pytest.FixtureRequest, people: People) -> Cli:
    """May edit Connectors, and patch the Secret s."""
    found: Cli = getattr(people, request.param)(EDIT, secret="s")
    return found


@pytest.fixture
def by_hand(namespace: Namespace, shared_operator: OperatorProcess) -> "ByHand":
    """The test is the operator: nobody else writes a status."""
    shared_operator.stop()
    return ByHand(namespace)


class ByHand:
    """What the operator would do, done by the test.

    Switch to the real operator where it does this by itself: history, rollback, force, usage.
    """

    def __init__(self, namespace: Namespace) -> None:
        self.namespace = namespace
        self.name = "c"

    async def connector(self, *, name: str = "c", **status: Any) -> Body:
        """A Connector with Secret s that works, with more in its status."""
        self.name = name
        await self.namespace.connector(name, DEAD, "s")
        return await self.write({"servedVersion": 2, **status}, generation=1)

    async def write(self, status: dict[str, Any], *, generation: int = 1, **conditions: tuple[str, str, str]) -> Body:
        said = {"Ready": ("True", "Succeeded", "it works"), "CredentialsInSync": ("True", "Succeeded", "in sync")}
        shown = [
            {
                "type": type_,
                "status": state,
                "reason": reason,
                "message": message,
                "observedGeneration": generation,
                "lastTransitionTime": "2026-01-01T00:00:00Z",
            }
            for type_, (state, reason, message) in (said | conditions).items()
        ]
        body = {"status": {"observedGeneration": generation, "conditions": shown, **status}}
        return await self.namespace.patch("Connector", self.name, body, "/status")

    async def annotated(self, annotation: str) -> str:
        """Wait until somebody sets an annotation, and return what it says."""

        def value(body: Body) -> str | None:
            found: str | None = body["metadata"].get("annotations", {}).get(annotation)
            return found

        found = value(await self.namespace.wait("Connector", self.name, lambda body: value(body) is not None))
        assert found is not None
        return found

    async def event(self, reason: str, message: str) -> None:
        body = await self.namespace.get("Connector", self.name)
        at = timestamp(now())
        await self.namespace.create(
            "Event",
            f"{self.name}.{secrets.token_hex(4)}",
            involvedObject={
                "kind": "Connector",
                "name": self.name,
                "namespace": self.namespace.name,
                "uid": body["metadata"]["uid"],
            },
            type="Warning",
            reason=reason,
            message=message,
            firstTimestamp=at,
            lastTimestamp=at,
        )


def version(number: int, test_status: str = "passed", **more: Any) -> dict[str, Any]:
    return {"version": number, "at": "2026-01-02T03:04:05Z", "testStatus": test_status, **more}


# --- reading ---------------------------------------------------------------------------------------------------------


async def test_status_and_its_exit_code(
    namespace: Namespace, operator: OperatorProcess, sink: WebhookSink, reader: Cli
) -> None:
    await namespace.connector("good", {"webhook": {"url": sink.url}}, displayName="The [red]good[/red] one\x1b[31m")
    await namespace.ready("good")
    one = await reader("status", "good")
    assert (one.code, one.err) == (0, "")
    assert "The [red]good[/red] one" in one.out
    assert "Ready · credential 1" in one.out
    assert "\x1b" not in one.out
    await namespace.connector("bad", DEAD)
    await namespace.ready("bad", "False", "ConnectionFailed")
    both = await reader("status", "-o", "json")
    assert both.code == 1
    assert [(each["name"], each["ready"], each["state"]) for each in both.json] == [
        ("bad", False, "progressing"),
        ("good", True, "ready"),
    ]
    wide = await reader("status", "-o", "wide")
    assert "ConnectionFailed" in wide.out
    assert yaml.safe_load((await reader("status", "good", "-o", "yaml")).out)["type"] == "webhook"


async def test_what_may_not_be_read_is_named(namespace: Namespace, operator: OperatorProcess, people: People) -> None:
    nobody, reader = people.certificate(), people.token(READ)
    ran = await nobody("status", "c")
    assert (ran.code, ran.out) == (2, "")
    assert ran.err == (
        f"you may not get connectors/c in namespace {namespace.name}: the ClusterRole honeyframe-connector-read "
        "grants it; ask for a binding to it\n"
    )
    ran = await reader("status", "-A")
    assert ran.code == 2
    assert "you may not list connectors in any namespace" in ran.err
    ran = await reader("status", "nope")
    assert (ran.code, "there is no Connector nope" in ran.err) == (2, True)
    assert (await reader("status")).code == 0


async def test_usage(namespace: Namespace, by_hand: ByHand, reader: Cli) -> None:
    await by_hand.connector()
    assert "not counted yet" in (await reader("usage", "c")).out
    recent = [{"kind": "agentTool", "name": "lookup", "lastUsedAt": "2026-01-01T00:00:00Z"}]
    usage = {"datasets": 3, "agentTools": 1, "lastUsedAt": "2026-01-01T00:00:00Z", "recent": recent}
    await by_hand.write({"usage": usage})
    ran = await reader("usage", "c")
    assert (ran.code, "📦 3 datasets · 🔧 1 tool · ⏱" in ran.out, "lookup" in ran.out) == (0, True, True)
    assert (await reader("usage", "c", "-o", "json")).json == {
        "dataset_count": 3,
        "agent_tool_count": 1,
        "last_used_at": "2026-01-01T00:00:00Z",
        "recent": [{"kind": "agentTool", "name": "lookup", "last_used_at": "2026-01-01T00:00:00Z"}],
    }
    assert "📦 3 datasets · 🔧 1 tool" in (await reader("status", "c")).out


async def test_history(namespace: Namespace, by_hand: ByHand, reader: Cli) -> None:
    kept = [version(2, "rollback", restoredFrom=1), version(1, reason="quarterly")]
    await by_hand.connector(credentials={"state": "InSync", "summary": "2", "version": 2, "history": kept})
    assert (await reader("history", "c", "-o", "json")).json == [
        {
            "version": 2,
            "serves": True,
            "at": "2026-01-02T03:04:05Z",
            "test_status": "rollback",
            "reason": None,
            "restored_from": 1,
        },
        {
            "version": 1,
            "serves": False,
            "at": "2026-01-02T03:04:05Z",
            "test_status": "passed",
            "reason": "quarterly",
            "restored_from": None,
        },
    ]
    assert "quarterly" in (await reader("history", "c")).out


# --- waiting ---------------------------------------------------------------------------------------------------------


async def test_wait_sees_it_come(
    namespace: Namespace, operator: OperatorProcess, sink: WebhookSink, reader: Cli
) -> None:
    await namespace.connector("c", {"webhook": {"url": sink.url}}, "s")
    await namespace.ready("c", "False", "SecretNotFound")
    waiting = reader.start("wait", "c", "--for", "ready", "--timeout", "60s")
    await namespace.secret("s", bearer_token=PASSWORD)
    ran = await waiting
    assert (ran.code, ran.out.split(":")[:2]) == (0, ["c", " Ready=True"])
    assert (await reader("wait", "c", "--for", "insync")).code == 0
    assert (await reader("wait", "c", "--for", "Healthy=True", "-o", "json")).json[0]["ok"] is True


async def test_wait_ends_at_the_timeout_or_where_a_person_must_act(
    namespace: Namespace, operator: OperatorProcess, people: People
) -> None:
    reader = people.certificate(READ)
    await namespace.connector("c", DEAD)
    ran = await reader("wait", "c", "--timeout", "1s")
    assert (ran.code, ran.err.startswith("c: not ready after 1s")) == (124, True)
    await namespace.connector("d", {"webhook": {"url": "http://169.254.169.254/"}})
    ran = await reader("wait", "d", "--timeout", "60s")
    assert (ran.code, "d: Stalled=True: TargetNotAllowed" in ran.out) == (1, True)
    assert (await reader("wait", "d", "--for", "Ready=False")).code == 0
    assert (await reader("wait", "d", "--for", "rready")).code == 2


# --- rotating --------------------------------------------------------------------------------------------------------


async def test_rotate_writes_the_secret_and_waits_until_it_serves(
    namespace: Namespace, operator: OperatorProcess, database: Database, trust: Trust, editor: Cli, tmp_path: Path
) -> None:
    await namespace.secret("s", PGPASSWORD=database.password)
    await namespace.connector("c", database.config, "s", keys={"password": "PGPASSWORD"}, caRef=await trust(namespace))
    await namespace.ready("c")
    database.set_password(f"{PASSWORD}-rotated")
    (tmp_path / "password").write_text(f"{PASSWORD}-rotated\n")
    ran = await editor("rotate", "c", "--from-file", f"password={tmp_path / 'password'}", "--reason", "quarterly")
    assert (ran.code, ran.out) == (0, "c: version 2 serves\n"), ran
    assert "the newline at its end is left away" in ran.err
    secret = await namespace.get("Secret", "s")
    assert base64.b64decode(secret["data"]["PGPASSWORD"]).decode() == f"{PASSWORD}-rotated"
    assert secret["metadata"]["annotations"]["honeyframe.io/rotation-reason"] == "quarterly"
    assert "honeyframe-cli" in [each["manager"] for each in secret["metadata"]["managedFields"]]
    again = await editor("rotate", "c", "--from-env", "password=NEXT", "-o", "json", NEXT=f"{PASSWORD}-rotated")
    assert again.json["ok"] is True
    assert again.json["message"] == "version 2 serves already, with these values"
    assert "annotations" not in (await namespace.get("Secret", "s"))["metadata"], "an old reason is none for new values"


async def test_rotate_says_why_values_are_refused_and_what_goes_on_serving(
    namespace: Namespace, operator: OperatorProcess, database: Database, trust: Trust, editor: Cli
) -> None:
    await namespace.secret("s", password=database.password)
    await namespace.connector("c", database.config, "s", caRef=await trust(namespace))
    await namespace.ready("c")
    ran = await editor("rotate", "c", "--from-stdin", "password", typed=f"{PASSWORD}-wrong\n")
    assert ran.code == 1
    assert "the new values do not serve: AuthenticationFailed" in ran.out
    assert "version 1 goes on serving; tried again at" in ran.out
    ran = await editor("rotate", "c", "--from-env", "password=NEXT", "-o", "json", NEXT=f"{PASSWORD}-worse")
    assert (ran.code, ran.json["ok"], ran.json["reason"]) == (1, False, "AuthenticationFailed")


async def test_rotate_changes_nothing_where_a_right_is_missing(
    namespace: Namespace, operator: OperatorProcess, sink: WebhookSink, people: People
) -> None:
    await namespace.secret("s", bearer_token=PASSWORD)
    await namespace.connector("c", {"webhook": {"url": sink.url}}, "s")
    await namespace.ready("c")
    before = (await namespace.get("Secret", "s"))["metadata"]["resourceVersion"]
    args = ("rotate", "c", "--from-env", "bearer_token=NEXT")
    ran = await people.certificate(EDIT)(*args, NEXT=f"{PASSWORD}-2")
    assert ran.code == 2
    assert f"you may not patch secrets/s in namespace {namespace.name}: Kubernetes' own role edit grants it" in ran.err
    ran = await people.token(READ, secret="s")(*args, NEXT=f"{PASSWORD}-2")
    assert (ran.code, "you may not patch connectors/c" in ran.err, EDIT in ran.err) == (2, True, True)
    assert (await namespace.get("Secret", "s"))["metadata"]["resourceVersion"] == before


async def test_rotate_with_force_lets_in_what_was_refused(
    namespace: Namespace, operator: OperatorProcess, database: Database, trust: Trust, editor: Cli
) -> None:
    await namespace.secret("s", password=database.password)
    await namespace.connector("c", database.config, "s", caRef=await trust(namespace))
    await namespace.ready("c")
    ran = await editor("rotate", "c", "--from-env", "password=NEXT", "--force", NEXT=f"{PASSWORD}-tonight")
    assert (ran.code, ran.out.startswith("c: version 2 serves; it is not Ready: ")) == (0, True), ran
    assert "the new values do not serve: AuthenticationFailed" in ran.err
    history = (await editor("history", "c", "-o", "json")).json
    assert [(each["version"], each["serves"], each["test_status"]) for each in history] == [
        (2, True, "failed"),
        (1, False, "passed"),
    ]


async def test_force_alone_lets_in_what_was_refused_before(
    namespace: Namespace, operator: OperatorProcess, database: Database, trust: Trust, people: People
) -> None:
    editor = people.certificate(EDIT)
    await namespace.secret("s", password=database.password)
    await namespace.connector("c", database.config, "s", caRef=await trust(namespace))
    await namespace.ready("c")
    assert (await editor("rotate", "c", "--force")).out == "c: version 1 serves\n", "there is nothing to force"
    await namespace.set_secret("s", password=f"{PASSWORD}-tonight")
    await namespace.wait("Connector", "c", lambda body: body["status"]["credentials"]["state"] == "Refused")
    ran = await editor("rotate", "c", "--force", "-o", "json")
    assert (ran.code, ran.json["version"], ran.json["state"]) == (0, 2, "Forced"), ran


# --- rolling back ----------------------------------------------------------------------------------------------------


async def rotated(namespace: Namespace, database: Database, trust: Trust, name: str = "c") -> None:
    """A Connector with two versions, of which the server takes the first one's password again."""
    first = database.password
    await namespace.secret("s", password=first)
    await namespace.connector(name, database.config, "s", caRef=await trust(namespace))
    await namespace.ready(name)
    database.set_password(f"{PASSWORD}-second")
    await namespace.set_secret("s", password=database.password)
    await namespace.wait("Connector", name, lambda body: body["status"].get("servedVersion") == 2)
    database.set_password(first)


async def test_rollback(
    namespace: Namespace, operator: OperatorProcess, database: Database, trust: Trust, people: People
) -> None:
    editor = people.certificate(EDIT)
    await rotated(namespace, database, trust)
    ran = await editor("rollback", "c", "--to", "1")
    assert (ran.code, ran.out) == (0, "c: version 3 serves, with the secret values of version 1\n"), ran
    body = await namespace.get("Connector", "c")
    assert body["status"]["credentials"]["summary"] == "3 (held)"
    assert "honeyframe-cli" in [each["manager"] for each in body["metadata"]["managedFields"]]
    history = (await editor("history", "c", "-o", "json")).json
    assert [(each["version"], each["test_status"], each["restored_from"]) for each in history] == [
        (3, "rollback", 1),
        (2, "passed", None),
    ], "of two versions with the same values the newest is kept"
    ran = await editor("rollback", "c", "--to", "3", "-o", "json")
    assert (ran.code, ran.json["version"], "as before" in ran.json["message"]) == (0, 3, True), ran


async def test_a_rollback_that_is_rejected(
    namespace: Namespace, operator: OperatorProcess, database: Database, trust: Trust, people: People
) -> None:
    editor = people.certificate(EDIT)
    await rotated(namespace, database, trust)
    database.set_password(f"{PASSWORD}-second")
    for version, why in (
        ("7", "the rollback to version 7 is rejected"),
        ("1", "the rollback to version 1 is rejected"),
    ):
        ran = await editor("rollback", "c", "--to", version, "-o", "json")
        assert (ran.code, ran.json["ok"], ran.json["version"]) == (1, False, 2), ran
        assert why in ran.json["message"]


async def test_nothing_is_changed_of_what_is_suspended(
    namespace: Namespace, operator: OperatorProcess, people: People
) -> None:
    editor = people.certificate(EDIT, secret="s")
    await namespace.connector("c", DEAD, "s", suspend=True)
    for args in (("rollback", "c", "--to", "1"), ("rotate", "c", "--from-env", "bearer_token=NEXT")):
        ran = await editor(*args, NEXT=PASSWORD)
        assert (ran.code, "resume it first" in ran.err) == (2, True)
    assert "annotations" not in (await namespace.get("Connector", "c"))["metadata"]


# --- testing ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["certificate", "token"])
async def test_a_live_connector_is_tested(
    namespace: Namespace, operator: OperatorProcess, database: Database, trust: Trust, people: People, how: str
) -> None:
    editor: Cli = getattr(people, how)(EDIT)
    await namespace.secret("s", password=database.password)
    await namespace.connector("c", database.config, "s", caRef=await trust(namespace))
    await namespace.ready("c")
    ran = await editor("test", "c")
    assert (ran.code, re.search(r"c: it works in \d+ ms", ran.out) is not None) == (0, True), ran
    assert await namespace.list("ConnectorTest") == [], "it is deleted once it was read"
    database.set_password(f"{PASSWORD}-elsewhere")
    ran = await editor("test", "c", "-o", "json")
    assert (ran.code, ran.json["ok"], "password authentication failed" in ran.json["error"]) == (1, False, True), ran


async def test_a_connector_that_is_not_applied_is_tested(
    namespace: Namespace, operator: OperatorProcess, people: People, tmp_path: Path
) -> None:
    editor = people.certificate(EDIT)
    manifest = tmp_path / "c.yaml"
    manifest.write_text(yaml.safe_dump(_connector("c", config=DEAD, timeout="3s", interval="1h")))
    ran = await editor("test", "-f", str(manifest))
    assert (ran.code, "cannot connect to 127.0.0.1:1" in ran.out, "not tested" in ran.out) == (1, True, True), ran
    operator.stop()
    ran = await editor("test", "-f", str(manifest), "--timeout", "1s")
    assert (ran.code, ": the test has no answer after 1s" in ran.err) == (124, True)
    assert await namespace.list("ConnectorTest") == [], "deleted although nobody answered"
    ran = await people.certificate(READ)("test", "c")
    assert (ran.code, "you may not create connectortests" in ran.err, EDIT in ran.err) == (2, True, True)


async def test_a_test_on_the_spot_needs_no_cluster(database: Database, sink: WebhookSink, tmp_path: Path) -> None:
    nobody = Cli(tmp_path / "no-kubeconfig", "default")
    ca = {"kind": "ConfigMap", "name": "ca"}
    manifest = tmp_path / "c.yaml"
    manifest.write_text(yaml.safe_dump(_connector("c", config=database.config, secretRef={"name": "s"}, caRef=ca)))
    args = ("test", "-f", str(manifest), "--local", "--from-env", "password=NOW", "-o", "json")
    ran = await nobody(*args, NOW=database.password)
    assert (ran.code, "--ca-file" in ran.err) == (2, True)
    args += ("--ca-file", str(database.server.ca_file))
    ran = await nobody(*args, NOW=database.password)
    assert (ran.code, ran.json["ok"], ran.json["error"]) == (0, True, ""), ran
    assert ran.json["latency_ms"] >= 0
    ran = await nobody(*args, NOW=f"{PASSWORD}-wrong")
    assert (ran.code, ran.json["ok"], "password" in ran.json["error"]) == (1, False, True)
    (tmp_path / "d.yaml").write_text(yaml.safe_dump(_connector("d", config={"webhook": {"url": sink.url}})))
    ran = await nobody("test", "-f", str(tmp_path / "d.yaml"), "--local")
    assert (ran.code, "d: it works" in ran.out) == (0, True)


def _connector(name: str, **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "honeyframe.io/v1beta1", "kind": "Connector", "metadata": {"name": name}, "spec": spec}


# --- kubeconfigs, and kubectl ----------------------------------------------------------------------------------------


async def test_the_pod_s_own_account(
    namespace: Namespace,
    operator: OperatorProcess,
    sink: WebhookSink,
    people: People,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """In this process, where the paths that a kubelet mounts can be others."""
    await namespace.connector("c", {"webhook": {"url": sink.url}})
    await namespace.ready("c")
    config = json.loads(people.token(READ).kubeconfig.read_text())
    server = urlsplit(config["clusters"][0]["cluster"]["server"])
    (tmp_path / "token").write_text(config["users"][0]["user"]["token"])
    (tmp_path / "namespace").write_text(namespace.name)
    (tmp_path / "ca.crt").write_bytes(base64.b64decode(config["clusters"][0]["cluster"]["certificate-authority-data"]))
    monkeypatch.delenv("KUBECONFIG", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", str(server.hostname))
    monkeypatch.setenv("KUBERNETES_SERVICE_PORT", str(server.port))
    monkeypatch.setattr(incluster_config, "SERVICE_TOKEN_FILENAME", str(tmp_path / "token"))
    monkeypatch.setattr(incluster_config, "SERVICE_CERT_FILENAME", str(tmp_path / "ca.crt"))
    monkeypatch.setattr("honeyframe_connectors.cli.cluster._ACCOUNT", tmp_path)
    found = await asyncio.to_thread(lambda: connect(None, None, None).get("connectors", "c"))
    assert found["metadata"]["namespace"] == namespace.name


async def test_several_kubeconfigs_contexts_and_exec_plugins(
    namespace: Namespace, operator: OperatorProcess, sink: WebhookSink, people: People, tmp_path: Path
) -> None:
    await namespace.connector("c", {"webhook": {"url": sink.url}})
    await namespace.ready("c")
    own = json.loads(people.token(READ).kubeconfig.read_text())
    token = own["users"][0]["user"]["token"]
    plugin = tmp_path / "plugin"
    plugin.write_text(
        "#!/bin/sh\nprintf '%s' \"$CREDENTIAL\"\n",
    )
    plugin.chmod(0o755)
    credential = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "kind": "ExecCredential",
        "status": {"token": token},
    }
    by_plugin = {"apiVersion": credential["apiVersion"], "command": str(plugin), "interactiveMode": "Never"}
    own["users"][0] = {"name": "plugged", "user": {"exec": by_plugin}}
    own["contexts"] = [
        {"name": "right", "context": {"cluster": "loopback", "user": "plugged", "namespace": namespace.name}},
        {"name": "wrong", "context": {"cluster": "loopback", "user": "plugged", "namespace": "default"}},
    ]
    first, second = tmp_path / "first", tmp_path / "second"
    second.write_text(json.dumps(own | {"current-context": "wrong"}))
    first.write_text(json.dumps({"apiVersion": "v1", "kind": "Config", "current-context": "right"}))
    (tmp_path / "empty").touch()
    env = {
        "KUBECONFIG": f"{tmp_path / 'gone'}:{tmp_path / 'empty'}:{first}:{second}",
        "CREDENTIAL": json.dumps(credential),
    }
    ran = await run(*HONEYFRAME, "status", "c", "-o", "json", **env)
    assert (ran.code, ran.json["namespace"]) == (0, namespace.name), (
        "the first file's current context, as kubectl has it"
    )
    ran = await run(*HONEYFRAME, "status", "c", "--context", "wrong", **env)
    assert (ran.code, "in namespace default" in ran.err) == (2, True)
    ran = await run(*HONEYFRAME, "status", "c", "--context", "nope", **env)
    assert (ran.code, "kubectl config get-contexts" in ran.err) == (2, True)
    ran = await run(*HONEYFRAME, "status", KUBECONFIG=str(tmp_path / "gone"))
    assert (ran.code, "there is no usable kubeconfig" in ran.err) == (2, True)
    second.write_text(json.dumps(own).replace(str(plugin), "/nonexistent"))
    ran = await run(*HONEYFRAME, "status", **env)
    assert (ran.code, "does not know who you are: log in again" in ran.err) == (2, True), ran
    own["clusters"][0]["cluster"]["server"] = "https://127.0.0.1:1"
    second.write_text(json.dumps(own))
    ran = await run(*HONEYFRAME, "status", **env)
    assert (ran.code, ran.err.count("\n")) == (2, 1)
    assert "no answer from the API server at https://127.0.0.1:1" in ran.err


def plugin(folder: Path, name: str, module: str, function: str) -> None:
    """Write a command as the wheel's entry points are."""
    script = folder / name
    script.write_text(f"#!{sys.executable}\nfrom honeyframe_connectors.cli.{module} import {function}\n{function}()\n")
    script.chmod(0o755)


async def test_kubectl_finds_the_plugin_and_completes_it(
    namespace: Namespace, operator: OperatorProcess, sink: WebhookSink, people: People, tmp_path: Path
) -> None:
    await namespace.connector("production", {"webhook": {"url": sink.url}})
    await namespace.ready("production")
    reader = people.certificate(READ)
    plugin(tmp_path, "kubectl-honeyframe", "__main__", "main")
    plugin(tmp_path, "kubectl_complete-honeyframe", "completion", "kubectl_complete")
    env = {"PATH": f"{tmp_path}:{os.environ['PATH']}", "KUBECONFIG": str(reader.kubeconfig)}

    kubectl = partial(run, people.cluster.kubectl, **env)
    ran = await kubectl("honeyframe", "status", "production", "-n", namespace.name, "-o", "json")
    assert (ran.code, ran.json["name"]) == (0, "production")
    assert "kubectl honeyframe status" in (await kubectl("honeyframe", "status", "--help")).out
    ran = await kubectl("__complete", "honeyframe", "sta")
    assert ran.out.startswith("status\t")
    ran = await kubectl("__complete", "honeyframe", "usage", "-n", namespace.name, "pro")
    assert ran.out.startswith("production\n")


# --- how-to pages ----------------------------------------------------------------------------------------------------


def documented(page: str) -> list[str]:
    """The commands of a how-to page, in order."""
    text = (ROOT / "docs/how-to" / page).read_text()
    return [line for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL) for line in block.splitlines()]


@pytest.fixture
def shell(people: People, tmp_path: Path) -> Callable[..., Awaitable[Ran]]:
    """A shell of somebody who may edit Connectors, and patch the Secret s, and who has the plugin."""
    plugin(tmp_path, "kubectl-honeyframe", "__main__", "main")
    person = people.token(EDIT, "view", secret="s")

    async def type_(command: str, **env: str) -> Ran:
        path = f"{tmp_path}:{people.cluster.kubectl.parent}:{os.environ['PATH']}"
        more = {"PATH": path, "KUBECONFIG": str(person.kubeconfig)} | env
        return await run("sh", "-c", f"cd {tmp_path} && {command}", **more)

    return type_


async def test_how_to_rotate(
    namespace: Namespace,
    operator: OperatorProcess,
    database: Database,
    trust: Trust,
    shell: Callable[..., Awaitable[Ran]],
    tmp_path: Path,
) -> None:
    await namespace.secret("s", password=database.password)
    await namespace.connector("production-postgres", database.config, "s", caRef=await trust(namespace))
    await namespace.ready("production-postgres")
    database.set_password(f"{PASSWORD}-next")
    (tmp_path / "new-password").write_text(f"{PASSWORD}-next\n")
    commands = documented("rotate.md")
    assert len(commands) == 7
    for command in commands:
        ran = await shell(command, NEXT_PASSWORD=f"{PASSWORD}-next")
        assert ran.code == 0, (command, ran)
    assert (await namespace.get("Connector", "production-postgres"))["status"]["servedVersion"] == 2


async def test_how_to_roll_back(
    namespace: Namespace,
    operator: OperatorProcess,
    database: Database,
    trust: Trust,
    shell: Callable[..., Awaitable[Ran]],
) -> None:
    await rotated(namespace, database, trust, "production-postgres")
    commands = documented("roll-back.md")
    assert len(commands) == 3
    for command in commands:
        ran = await shell(command)
        assert ran.code == 0, (command, ran)
    assert "3 (held)" in ran.out
