"""One Connector, from its manifest to its status and back."""

import asyncio
import json
from collections.abc import Awaitable, Callable

import pytest

from hack.cluster import ControlPlane
from hack.operator_process import OperatorProcess
from hack.webhook_sink import WebhookSink
from tests.cluster.conftest import PASSWORD, Database
from tests.support.cluster import Body, Namespace, condition
from tests.support.kstatus import kstatus

Trust = Callable[[Namespace], Awaitable[dict[str, str]]]


def served(version: int) -> Callable[[Body], bool]:
    return lambda body: body["status"].get("servedVersion") == version


async def test_becomes_ready(namespace: Namespace, operator: OperatorProcess, database: Database, trust: Trust) -> None:
    await namespace.secret("s", password=database.password)
    await namespace.connector("c", database.config, "s", caRef=await trust(namespace))
    body = await namespace.ready("c")
    status = body["status"]
    assert kstatus(body) == "Current"
    assert (status["type"], status["category"], status["queryable"]) == ("postgresql", "database", True)
    assert (status["servedVersion"], status["credentials"]["state"]) == (1, "InSync")
    assert [step["name"] for step in status["health"]["steps"]] == [
        "resolve", "connect", "TLS", "authenticate", "authorise", "query",
    ]  # fmt: skip
    assert all(step["passed"] for step in status["health"]["steps"])
    assert status["health"]["serverVersion"].startswith("1")
    assert await namespace.list("Event") == []


async def test_a_wrong_password_is_refused_and_then_right(
    namespace: Namespace, operator: OperatorProcess, database: Database, trust: Trust
) -> None:
    await namespace.secret("s", password="wrong")
    await namespace.connector("c", database.config, "s", caRef=await trust(namespace))
    body = await namespace.ready("c", "False", "AuthenticationFailed")
    assert kstatus(body) == "InProgress"
    assert body["status"]["credentials"]["summary"] == "- (refused)"
    assert "servedVersion" not in body["status"]
    await namespace.event("AuthenticationFailed")
    assert [each["reason"] for each in await namespace.list("Event")] == ["AuthenticationFailed"]
    await namespace.set_secret("s", password=database.password)
    body = await namespace.ready("c")
    assert body["status"]["servedVersion"] == 1


async def test_a_secret_that_comes_later(namespace: Namespace, operator: OperatorProcess, sink: WebhookSink) -> None:
    await namespace.connector("c", {"webhook": {"url": sink.url}}, "s")
    body = await namespace.ready("c", "False", "SecretNotFound")
    assert condition(body, "Reconciling") is not None
    await namespace.secret("s", bearer_token=PASSWORD)
    assert (await namespace.ready("c"))["status"]["servedVersion"] == 1


async def test_a_changed_secret_is_tested_before_it_replaces_the_old(
    namespace: Namespace, operator: OperatorProcess, database: Database, trust: Trust
) -> None:
    await namespace.secret("s", password=database.password)
    await namespace.connector("c", database.config, "s", caRef=await trust(namespace))
    await namespace.ready("c")
    await namespace.set_secret("s", password="not-yet-right")
    body = await namespace.wait("Connector", "c", lambda b: condition(b, "CredentialsInSync")["status"] == "False")
    assert condition(body, "CredentialsInSync")["reason"] == "AuthenticationFailed"
    assert condition(body, "Ready")["status"] == "True"
    assert (body["status"]["servedVersion"], body["status"]["credentials"]["summary"]) == (1, "1 (refused)")
    assert kstatus(body) == "Current"
    pending = body["status"]["credentials"]["pending"]
    assert pending["reason"] == "AuthenticationFailed"
    assert pending["nextTryAt"]
    await namespace.set_secret("s", password=database.password)
    body = await namespace.wait("Connector", "c", lambda b: condition(b, "CredentialsInSync")["status"] == "True")
    assert body["status"]["servedVersion"] == 1, "the values that serve are no new version"
    assert "pending" not in body["status"]["credentials"]


async def test_metrics_tell_of_checks_and_versions(
    namespace: Namespace, operator: OperatorProcess, sink: WebhookSink
) -> None:
    await namespace.connector("c", {"webhook": {"url": sink.url}})
    await namespace.ready("c")
    await namespace.connector("d", {"webhook": {"url": "http://127.0.0.1:1/"}})
    await namespace.ready("d", "False", "ConnectionFailed")
    text = await asyncio.to_thread(operator.get, "/metrics")
    for line in (
        'honeyframe_probes_total{result="passed",type="webhook"}',
        'honeyframe_probes_total{result="ConnectionFailed",type="webhook"}',
        'honeyframe_versions_total{type="webhook"}',
        'honeyframe_reconciles_total{kind="Connector",result="ok"}',
        'honeyframe_queue_depth{lane="fast"}',
    ):
        assert line in text


async def test_rotation_makes_a_new_version(
    namespace: Namespace, operator: OperatorProcess, database: Database, trust: Trust
) -> None:
    await namespace.secret("s", password=database.password)
    await namespace.connector("c", database.config, "s", caRef=await trust(namespace))
    await namespace.ready("c")
    database.set_password(f"{PASSWORD}-rotated")
    await namespace.set_secret("s", password=database.password)
    body = await namespace.wait("Connector", "c", served(2))
    assert condition(body, "Ready")["status"] == "True"
    await namespace.event("CredentialsRotated")


async def test_secret_first_and_the_server_later(
    namespace: Namespace, operator: OperatorProcess, database: Database, trust: Trust
) -> None:
    """While a refusal is young, the first login of what serves that fails lets the new content in."""
    await namespace.secret("s", password=database.password)
    await namespace.connector("c", database.config, "s", caRef=await trust(namespace))
    await namespace.ready("c")
    await namespace.set_secret("s", password=f"{PASSWORD}-next")
    await namespace.wait("Connector", "c", lambda b: b["status"]["credentials"]["state"] == "Refused")
    database.set_password(f"{PASSWORD}-next")
    body = await namespace.wait("Connector", "c", served(2), patience=40)
    assert body["status"]["credentials"]["state"] == "InSync"


async def test_a_config_that_is_refused_leaves_the_old_one_serving(
    namespace: Namespace, operator: OperatorProcess, database: Database, trust: Trust
) -> None:
    await namespace.secret("s", password=database.password)
    await namespace.connector("c", database.config, "s", caRef=await trust(namespace))
    await namespace.ready("c")
    await namespace.patch("Connector", "c", {"spec": {"config": {"postgresql": {"database": "nowhere"}}}})
    body = await namespace.ready("c", "False", "TargetNotFound")
    assert body["status"]["servedVersion"] == 1
    assert condition(body, "Reconciling") is not None
    await namespace.patch("Connector", "c", {"spec": {"config": {"postgresql": {"database": database.role}}}})
    assert (await namespace.ready("c"))["status"]["servedVersion"] == 1


async def test_tuning_applies_without_a_version(
    namespace: Namespace, operator: OperatorProcess, database: Database, trust: Trust
) -> None:
    await namespace.secret("s", password=database.password)
    await namespace.connector("c", database.config, "s", caRef=await trust(namespace), interval="1s")
    await namespace.ready("c")
    await namespace.patch("Connector", "c", {"spec": {"config": {"postgresql": {"pool_size": 9}}}})
    body = await namespace.ready("c")
    assert body["status"]["servedVersion"] == 1
    # what serves still opens: its tuning is no part of what its blob is bound to
    await namespace.patch(
        "Connector", "c", {"metadata": {"annotations": {"reconcile.fluxcd.io/requestedAt": "2027-01-01T00:00:00Z"}}}
    )
    body = await namespace.wait("Connector", "c", lambda b: "lastHandledReconcileAt" in b["status"])
    assert condition(body, "Healthy")["status"] == "True"


async def test_the_label_taken_away_revokes(namespace: Namespace, operator: OperatorProcess, sink: WebhookSink) -> None:
    await namespace.secret("s", bearer_token=PASSWORD)
    await namespace.connector("c", {"webhook": {"url": sink.url}}, "s")
    await namespace.ready("c")
    await namespace.patch("Secret", "s", {"metadata": {"labels": {"honeyframe.io/credentials": None}}})
    body = await namespace.ready("c", "False", "SecretNotLabelled")
    assert kstatus(body) == "Failed"
    assert "servedVersion" not in body["status"]
    assert body["status"]["credentials"]["state"] == "Revoked"
    await namespace.patch("Secret", "s", {"metadata": {"labels": {"honeyframe.io/credentials": "true"}}})
    body = await namespace.ready("c")
    assert body["status"]["servedVersion"] == 1, "the values that served before serve again as the same version"


async def test_revoked_even_while_suspended(namespace: Namespace, operator: OperatorProcess, sink: WebhookSink) -> None:
    await namespace.secret("s", bearer_token=PASSWORD)
    await namespace.connector("c", {"webhook": {"url": sink.url}}, "s")
    await namespace.ready("c")
    await namespace.patch("Connector", "c", {"spec": {"suspend": True}})
    body = await namespace.ready("c")
    assert kstatus(body) == "Current", "suspended with what was applied last is as it was"
    await namespace.patch("Secret", "s", {"metadata": {"labels": {"honeyframe.io/credentials": None}}})
    assert "servedVersion" not in (await namespace.ready("c", "False", "SecretNotLabelled"))["status"]


async def test_suspended(namespace: Namespace, operator: OperatorProcess, sink: WebhookSink) -> None:
    await namespace.secret("s", bearer_token=PASSWORD)
    await namespace.connector("c", {"webhook": {"url": sink.url}}, "s", suspend=True)
    body = await namespace.ready("c", "Unknown", "Suspended")
    assert "connectorId" not in body["status"], "created suspended: no row until it is resumed"
    await namespace.patch("Connector", "c", {"spec": {"suspend": False}})
    await namespace.ready("c")
    await namespace.patch("Connector", "c", {"spec": {"suspend": True, "config": {"webhook": {"method": "PUT"}}}})
    body = await namespace.ready("c", "Unknown", "Suspended")
    assert body["status"]["servedVersion"] == 1, "what serves goes on"


async def test_a_reconcile_token_acts_once(namespace: Namespace, operator: OperatorProcess, sink: WebhookSink) -> None:
    await namespace.secret("s", bearer_token=PASSWORD)
    await namespace.connector("c", {"webhook": {"url": sink.url}}, "s", interval="0s")
    await namespace.ready("c")

    async def ask(token: str) -> Body:
        return await namespace.patch(
            "Connector", "c", {"metadata": {"annotations": {"reconcile.fluxcd.io/requestedAt": token}}}
        )

    await ask("2027-01-02T00:00:00Z")
    await namespace.wait(
        "Connector", "c", lambda b: b["status"].get("lastHandledReconcileAt") == "2027-01-02T00:00:00Z"
    )
    await ask("2027-01-01T00:00:00Z")
    await ask("2027-01-03T00:00:00.123456789Z")
    body = await namespace.wait(
        "Connector", "c", lambda b: b["status"].get("lastHandledReconcileAt") == "2027-01-03T00:00:00.123456789Z"
    )
    assert condition(body, "Ready")["status"] == "True"


async def test_unhealthy_only_after_the_threshold(namespace: Namespace, operator: OperatorProcess) -> None:
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    await namespace.connector("c", {"webhook": {"url": f"http://127.0.0.1:{port}/"}}, interval="1s", failureThreshold=3)
    await namespace.ready("c")
    server.close()
    await server.wait_closed()
    body = await namespace.wait("Connector", "c", lambda b: condition(b, "Healthy")["status"] == "False")
    assert condition(body, "Ready")["status"] == "True", "below the threshold"
    body = await namespace.ready("c", "False", "ConnectionFailed")
    assert body["status"]["health"]["consecutiveFailures"] == 3
    assert body["status"]["servedVersion"] == 1
    server = await asyncio.start_server(lambda _, writer: writer.close(), "127.0.0.1", port)
    await namespace.ready("c")
    server.close()


async def test_a_status_edited_by_hand_is_written_again(
    namespace: Namespace, operator: OperatorProcess, sink: WebhookSink
) -> None:
    await namespace.connector("c", {"webhook": {"url": sink.url}})
    good = (await namespace.ready("c"))["status"]
    await namespace.patch("Connector", "c", {"status": {"servedVersion": 99, "category": "nonsense"}}, "/status")
    body = await namespace.wait("Connector", "c", lambda b: b["status"].get("servedVersion") == 1)
    assert body["status"]["category"] == good["category"]
    body = await namespace.get("Connector", "c")
    await namespace.client.put(f"{namespace._path('Connector')}/c/status", {**body, "status": {}})
    body = await namespace.ready("c")
    assert body["status"]["connectorId"] == good["connectorId"]


async def test_deleted_and_made_again_finds_its_row(
    namespace: Namespace, operator: OperatorProcess, database: Database, trust: Trust
) -> None:
    await namespace.secret("s", password=database.password)
    ca = await trust(namespace)
    await namespace.connector("c", database.config, "s", caRef=ca)
    first = (await namespace.ready("c"))["status"]
    await namespace.delete("Connector", "c")
    await namespace.connector("c", database.config, "s", caRef=ca)
    again = (await namespace.ready("c"))["status"]
    assert (again["connectorId"], again["servedVersion"]) == (first["connectorId"], 1)
    await namespace.delete("Connector", "c")
    await namespace.connector("c", {"webhook": {"url": "http://127.0.0.1:1/"}})
    other = (await namespace.ready("c", "False"))["status"]
    assert other["connectorId"] != first["connectorId"], "of another type it is a new Connector"


async def test_deleted_while_its_probe_runs(namespace: Namespace, operator: OperatorProcess) -> None:
    accepted: list[asyncio.StreamWriter] = []
    silent = await asyncio.start_server(lambda _, writer: accepted.append(writer), "127.0.0.1", 0)
    port = silent.sockets[0].getsockname()[1]
    await namespace.secret("s", password=PASSWORD)
    config = {"postgresql": {"host": "127.0.0.1", "port": port, "database": "d", "username": "u"}}
    await namespace.connector("c", config, "s", timeout="5s")
    body = await namespace.ready("c", "Unknown", "Progressing")
    assert condition(body, "Reconciling") is not None, "a first check that takes over a second says that it runs"
    await namespace.delete("Connector", "c")
    await namespace.connector("d", config, "s", timeout="1s")
    body = await namespace.ready("d", "False", "Timeout")
    assert body["status"]["credentials"]["state"] == "Unanswered"
    for writer in accepted:
        writer.close()
    silent.close()
    await silent.wait_closed()


@pytest.mark.parametrize("data", [b"\xff\xfe\x00bad", b"\x80"])
async def test_a_secret_that_is_no_text(
    namespace: Namespace, operator: OperatorProcess, database: Database, data: bytes
) -> None:
    await namespace.secret("s", password=data)
    await namespace.connector("c", database.config, "s")
    body = await namespace.ready("c", "False", "InvalidConfig")
    assert "UTF-8" in condition(body, "Ready")["message"]


async def test_secret_keys(namespace: Namespace, operator: OperatorProcess, database: Database) -> None:
    await namespace.secret("s", other="x", empty="", bullets="••••••••")
    for name, key in (("missing", "nope"), ("empty", "empty"), ("bullets", "bullets")):
        await namespace.connector(name, database.config, "s", keys={"password": key})
        await namespace.ready(name, "False", "SecretKeyMissing")


@pytest.mark.filterwarnings("ignore:Sending a large body:ResourceWarning")
async def test_a_secret_of_a_megabyte(namespace: Namespace, operator: OperatorProcess, sink: WebhookSink) -> None:
    await namespace.secret("s", bearer_token=PASSWORD, padding="x" * 1_000_000)
    await namespace.connector("c", {"webhook": {"url": sink.url}}, "s")
    await namespace.ready("c")
    await namespace.connector("d", {"webhook": {"url": sink.url}}, "s", keys={"signing_secret": "padding"})
    body = await namespace.ready("d", "False", "InvalidConfig")
    assert "64 KiB" in condition(body, "Ready")["message"]


async def test_a_secret_without_the_label_is_never_read(
    namespace: Namespace, operator: OperatorProcess, sink: WebhookSink
) -> None:
    await namespace.secret("s", labelled=False, bearer_token=PASSWORD)
    await namespace.connector("c", {"webhook": {"url": sink.url}}, "s")
    body = await namespace.ready("c", "False", "SecretNotLabelled")
    assert kstatus(body) == "Failed"
    assert "kubectl" in condition(body, "Ready")["message"]


async def test_a_secret_applied_so_that_its_metadata_holds_the_password(
    namespace: Namespace, operator: OperatorProcess, sink: WebhookSink, control_plane: ControlPlane
) -> None:
    manifest = {
        "apiVersion": "v1",
        "kind": "Secret",
        "metadata": {"name": "s", "namespace": namespace.name, "labels": {"honeyframe.io/credentials": "true"}},
        "stringData": {"bearer_token": PASSWORD},
    }
    await asyncio.to_thread(control_plane.kubectl_run, "apply", "-f", "-", input=json.dumps(manifest))
    await namespace.connector("c", {"webhook": {"url": sink.url}}, "s")
    await namespace.ready("c")  # the fixture looks for the password everywhere


async def test_a_ca_that_is_missing(
    namespace: Namespace, operator: OperatorProcess, database: Database, trust: Trust
) -> None:
    await namespace.secret("s", password=database.password)
    await namespace.connector("c", database.config, "s", caRef={"kind": "ConfigMap", "name": "ca"})
    await namespace.ready("c", "False", "CANotFound")
    await trust(namespace)
    await namespace.ready("c")
    await namespace.patch("ConfigMap", "ca", {"data": {"ca.crt": "no certificate"}})
    body = await namespace.wait("Connector", "c", lambda b: condition(b, "CredentialsInSync")["status"] == "False")
    assert condition(body, "CredentialsInSync")["reason"] == "CANotFound"
    assert condition(body, "Ready")["status"] == "True", "what serves goes on with the CA it was tested with"


async def test_targets_that_are_refused(namespace: Namespace, operator: OperatorProcess) -> None:
    await namespace.connector("metadata", {"webhook": {"url": "http://169.254.169.254/latest"}})
    body = await namespace.ready("metadata", "False", "TargetNotAllowed")
    assert kstatus(body) == "Failed"


async def test_a_name_that_resolves_to_a_refused_address(
    own_operator: Callable[..., OperatorProcess], namespace: Namespace, sink: WebhookSink
) -> None:
    own_operator(allow=()).start()
    await namespace.connector("c", {"webhook": {"url": sink.url.replace("127.0.0.1", "localhost")}})
    body = await namespace.ready("c", "False", "TargetNotAllowed")
    assert "--allow-target" in condition(body, "Ready")["message"]


async def test_a_field_manager_that_wrote_half_a_block(
    namespace: Namespace, operator: OperatorProcess, database: Database
) -> None:
    await namespace.secret("s", password=database.password)
    await namespace.connector("c", {"postgresql": {"database": database.role}}, "s")
    body = await namespace.ready("c", "False", "InvalidConfig")
    assert kstatus(body) == "Failed"
    assert "host" in condition(body, "Ready")["message"]
