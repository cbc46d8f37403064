"""A rotation behind a pgbouncer, which answers for the server."""

from hack.operator_process import OperatorProcess
from hack.pgbouncer import PgBouncer
from tests.cluster.conftest import PASSWORD, Database
from tests.cluster.test_rotation import in_state, served
from tests.support.cluster import Namespace, condition


async def test_a_rotation_that_is_refused_and_then_serves(
    namespace: Namespace, operator: OperatorProcess, database: Database
) -> None:
    """It keeps its connections to the server over ALTER ROLE, and yet lets nobody in with the old password."""
    with PgBouncer.start(database.server, database.role) as pooler:
        await namespace.create("ConfigMap", "ca", data={"ca.crt": pooler.ca_file.read_text()})
        config = {"postgresql": {**database.config["postgresql"], "port": pooler.port}}
        await namespace.secret("s", password=database.password)
        await namespace.connector("c", config, "s", caRef={"kind": "ConfigMap", "name": "ca"})
        await namespace.wait("Connector", "c", served(1))
        second = f"{PASSWORD}-second"
        await namespace.set_secret("s", password=second)
        body = await namespace.wait("Connector", "c", in_state("Refused"))
        assert condition(body, "CredentialsInSync")["reason"] == "AuthenticationFailed"
        assert (body["status"]["servedVersion"], condition(body, "Ready")["status"]) == (1, "True")
        database.set_password(second)
        body = await namespace.wait("Connector", "c", served(2), patience=40)
        assert body["status"]["credentials"]["state"] == "InSync"
        assert PASSWORD not in pooler.log_file.read_text()
