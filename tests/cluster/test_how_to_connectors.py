"""How to connect a database, and the page for 3 a.m.: each situation is brought about, and typed what the page says."""

import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest

from hack.certificates import Authority
from hack.cluster import ControlPlane
from hack.operator_process import OperatorProcess
from hack.webhook_sink import WebhookSink
from tests.cluster.conftest import PASSWORD, Database
from tests.support.cluster import Body, Namespace, condition
from tests.support.how_to import HowTo, commands

PAGE = "at-3-am.md"
NAME = "production-postgres"
BULLETS = "••••••••"
CA_REF = {"kind": "ConfigMap", "name": "postgres-ca"}


@dataclass
class Night:
    """One namespace in which something is wrong, and a person who has the page and the role `edit`."""

    namespace: Namespace
    database: Database
    home: Path
    env: dict[str, str]
    again: str = field(default_factory=lambda: f"{PASSWORD}-{secrets.token_hex(4)}")

    async def declared(self, **spec: object) -> None:
        """The Connector, and its CA unless `spec` names one."""
        if "caRef" not in spec:
            await self.ca(self.database.server.ca_file.read_bytes())
        await self.namespace.connector(NAME, self.database.config, NAME, **{"caRef": CA_REF, **spec})

    async def serves(self, **spec: object) -> None:
        """The Connector serves version 1."""
        await self.namespace.secret(NAME, password=self.database.password)
        await self.declared(**spec)
        await self.ready()

    async def ca(self, pem: bytes) -> None:
        """The ConfigMap that `spec.caRef` names."""
        await self.namespace.create("ConfigMap", "postgres-ca", data={"ca.crt": pem.decode()})

    async def ready(self, status: str = "True", reason: str | None = None) -> Body:
        return await self.namespace.ready(NAME, status, reason)

    async def shows(self, summary: str) -> Body:
        """Wait for what the column CREDENTIAL shows."""
        return await self.namespace.wait(
            "Connector", NAME, lambda body: (body["status"].get("credentials") or {}).get("summary") == summary
        )

    async def annotate(self, annotation: str, value: str, kind: str = "Connector") -> None:
        await self.namespace.patch(kind, NAME, {"metadata": {"annotations": {f"honeyframe.io/{annotation}": value}}})

    async def edit(self, **spec: object) -> None:
        """Change the Connector's spec."""
        await self.namespace.patch("Connector", NAME, {"spec": spec})

    def write(self, name: str, content: str | bytes) -> None:
        """A file of the person's."""
        (self.home / name).write_bytes(content if isinstance(content, bytes) else content.encode())

    def page(self, heading: str) -> HowTo:
        return HowTo(PAGE, self.home, self.env, heading)

    def type(self, heading: str, *, code: int = 0) -> str:
        """Type all that stands under a heading; what the last command wrote."""
        with self.page(heading) as page:
            return page.next(len(page.left), code=code)


@pytest.fixture
def night(
    namespace: Namespace, operator: OperatorProcess, database: Database, control_plane: ControlPlane, tmp_path: Path
) -> Night:
    person, home = "person", tmp_path / "person"
    home.mkdir()
    (home / "kubectl").symlink_to(control_plane.kubectl)
    kubeconfig = control_plane.service_account_kubeconfig(namespace.name, person)
    account = f"--serviceaccount={namespace.name}:{person}"
    control_plane.kubectl_run("-n", namespace.name, "create", "rolebinding", person, "--clusterrole=edit", account)
    return Night(namespace, database, home, {"KUBECONFIG": str(kubeconfig)})


async def test_connect_a_database(night: Night) -> None:
    with HowTo("connect-a-database.md", night.home, night.env) as page:
        night.write("password", night.database.password)
        night.write("ca.crt", night.database.server.ca_file.read_bytes())
        page.next(3)
        await night.namespace.connector(NAME, night.database.config, NAME, caRef=CA_REF)
        assert "Ready=True" in page.next()
        assert "PostgreSQL: version 1 serves" in page.next()
        assert "authenticate" in page.next()
        page.next()
        body = await night.ready("False", "TargetNotAllowed")  # it is not at db.example.com
        assert "db.example.com:5432" in condition(body, "Ready")["message"]


# --- at 3 a.m. -------------------------------------------------------------------------------------------------------


async def looking(night: Night) -> None:
    """What the page begins with."""
    await night.serves()
    await night.namespace.set_secret(NAME, password="wrong")
    before = await night.shows("1 (refused)")
    await night.namespace.event("RotationRejected")
    with night.page("") as page:
        assert "1 (refused)" in page.next()
        assert "AuthenticationFailed" not in page.next(), "the card says it in the target's own words"
        assert "Refused" in page.next()
        assert "RotationRejected" in page.next()
        page.next()
    handled = before["status"].get("lastHandledReconcileAt")
    await night.namespace.wait(
        "Connector", NAME, lambda body: body["status"].get("lastHandledReconcileAt") not in (None, handled)
    )


async def authentication_failed(night: Night) -> None:
    await night.namespace.secret(NAME, password="wrong")
    await night.declared()
    await night.ready("False", "AuthenticationFailed")
    await night.shows("- (refused)")
    night.write("new-password", f"{night.database.password}\n")
    assert night.type("AuthenticationFailed") == f"{NAME}: version 1 serves\n"


async def rotation_rejected(night: Night) -> None:
    await night.serves()
    await night.namespace.set_secret(NAME, password=night.again)
    await night.shows("1 (refused)")
    await night.namespace.event("RotationRejected")
    assert f"{NAME}: version 2 serves; it is not Ready: " in night.type("RotationRejected")
    await night.shows("2 (forced)")


async def connection_failed(night: Night) -> None:
    with WebhookSink.start() as sink:
        await night.namespace.secret(NAME, bearer_token=PASSWORD)
        await night.namespace.connector(NAME, {"webhook": {"url": sink.url}}, NAME, failureThreshold=1, interval="1s")
        await night.ready()
    await night.ready("False", "ConnectionFailed")
    answer = night.type("ConnectionFailed, Timeout", code=1)
    assert [line.split()[:2] for line in answer.splitlines() if line.startswith(("resolve", "connect"))] == [
        ["resolve", "passed"],
        ["connect", "failed"],
    ]


async def secret_not_found(night: Night) -> None:
    await night.declared()
    await night.ready("False", "SecretNotFound")
    await night.shows("- (missing)")
    night.write("password", night.database.password)
    night.type("SecretNotFound")
    await night.ready()


async def secret_key_missing(night: Night) -> None:
    await night.namespace.secret(NAME, other="value")
    await night.declared(keys={"password": "password"})
    await night.ready("False", "SecretKeyMissing")
    night.write("new-password", night.database.password)
    assert night.type("SecretKeyMissing") == f"{NAME}: version 1 serves\n"


async def secret_not_labelled(night: Night) -> None:
    await night.serves()
    await night.namespace.patch("Secret", NAME, {"metadata": {"labels": {"honeyframe.io/credentials": None}}})
    await night.ready("False", "SecretNotLabelled")
    body = await night.shows("- (revoked)")
    assert "servedVersion" not in body["status"]
    night.type("SecretNotLabelled")
    assert (await night.ready())["status"]["servedVersion"] == 1


async def rotated(night: Night) -> str:
    """Version 2 serves; the password of version 1."""
    await night.serves()
    first = night.database.password
    night.database.set_password(night.again)
    await night.namespace.set_secret(NAME, password=night.again)
    await night.shows("2")
    return first


async def rotation_held(night: Night) -> None:
    night.database.set_password(await rotated(night))
    await night.annotate("rollback-to", f"1@{datetime.now(UTC).isoformat()}")
    body = await night.shows("3 (held)")
    assert condition(body, "CredentialsInSync")["reason"] == "RotationHeld"
    third = f"{PASSWORD}-third"
    night.database.set_password(third)
    night.write("new-password", third)
    assert night.type("RotationHeld") == f"{NAME}: version 4 serves\n"


async def rotation_forced(night: Night) -> None:
    await night.serves()
    await night.namespace.set_secret(NAME, password=night.again)
    body = await night.shows("1 (refused)")
    await night.annotate("force-rotation", body["status"]["credentials"]["pending"]["id"])
    await night.shows("2 (forced)")
    await night.ready("False", "RotationForced")
    assert "version 3 serves, with the secret values of version 1" in night.type("RotationForced")
    await night.ready()


async def tls_verification_failed(night: Night) -> None:
    await night.namespace.secret(NAME, password=night.database.password)
    await night.ca(Authority("somebody else").pem)
    await night.declared(caRef=CA_REF)
    await night.ready("False", "TLSVerificationFailed")
    night.write("ca.crt", night.database.server.ca_file.read_bytes())
    night.type("TLSVerificationFailed")
    await night.ready()


async def ca_not_found(night: Night) -> None:
    await night.namespace.secret(NAME, password=night.database.password)
    await night.declared(caRef=CA_REF)
    await night.ready("False", "CANotFound")
    night.write("ca.crt", night.database.server.ca_file.read_bytes())
    night.type("CANotFound")
    await night.ready()


async def invalid_config(night: Night) -> None:
    await night.serves()
    await night.edit(secretRef=None, config={"postgresql": {"username": None}})
    await night.ready("False", "InvalidConfig")
    body = await night.shows("1 (refused)")
    assert body["status"]["servedVersion"] == 1
    assert "username" in night.type("InvalidConfig")


async def target_changed(night: Night) -> None:
    await night.serves()
    await night.namespace.set_secret(NAME, password=BULLETS)
    await night.edit(config={"postgresql": {"sslmode": "require"}})
    await night.ready("False", "TargetChanged")
    night.write("new-password", night.database.password)
    assert f"{NAME}: version " in night.type("TargetChanged")
    await night.ready()


async def target_not_allowed(night: Night) -> None:
    await night.serves()
    await night.annotate("targets", "db.example.com:5432", "Secret")
    await night.ready("False", "TargetNotAllowed")
    await night.shows("- (revoked)")
    assert night.type("TargetNotAllowed") == "db.example.com:5432"


async def rollback_rejected(night: Night) -> None:
    await rotated(night)
    await night.annotate("rollback-to", f"1@{datetime.now(UTC).isoformat()}")
    await night.namespace.event("RollbackRejected")
    assert (await night.ready())["status"]["servedVersion"] == 2
    assert "serves" in night.type("RollbackRejected")


async def suspended(night: Night) -> None:
    await night.namespace.secret(NAME, password=night.database.password)
    await night.declared(suspend=True)
    await night.ready("Unknown", "Suspended")
    night.type("Suspended")
    await night.ready()


async def connector_not_found(night: Night) -> None:
    await night.namespace.create("ConnectorTest", "t", spec={"connectorRef": {"name": NAME}})
    await night.namespace.ready("t", "False", "ConnectorNotFound", kind="ConnectorTest")
    assert NAME in night.type("ConnectorNotFound, TooMany, Interrupted")


SITUATIONS: dict[str, Callable[[Night], Awaitable[None]]] = {
    "": looking,
    "AuthenticationFailed": authentication_failed,
    "RotationRejected": rotation_rejected,
    "ConnectionFailed, Timeout": connection_failed,
    "SecretNotFound": secret_not_found,
    "SecretKeyMissing": secret_key_missing,
    "SecretNotLabelled": secret_not_labelled,
    "RotationHeld": rotation_held,
    "RotationForced": rotation_forced,
    "TLSVerificationFailed": tls_verification_failed,
    "CANotFound": ca_not_found,
    "InvalidConfig": invalid_config,
    "TargetChanged": target_changed,
    "TargetNotAllowed": target_not_allowed,
    "RollbackRejected": rollback_rejected,
    "Suspended": suspended,
    "ConnectorNotFound, TooMany, Interrupted": connector_not_found,
}


def test_every_command_of_the_page_is_run() -> None:
    assert SITUATIONS.keys() == commands(PAGE).keys()


@pytest.mark.parametrize("situation", SITUATIONS.values(), ids=lambda situation: situation.__name__)
async def test_at_3_am(night: Night, situation: Callable[[Night], Awaitable[None]]) -> None:
    await situation(night)
