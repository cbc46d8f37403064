"""What `honeyframe export` writes, held against the API server's own schema."""

from pathlib import Path

import pytest

from hack.cluster import ControlPlane
from honeyframe_connectors.backfill.export import Wanted, export
from honeyframe_connectors.backfill.report import Report
from honeyframe_connectors.backfill.secrets import backfill_secrets
from tests.support.older import REGISTRY, ROWS, OlderRow, make_older_install, store
from tests.support.stores import sqlite_url

ROOT = Path(__file__).parents[2]
ODD = OlderRow("Ünïcode: '# Café'", "pg", {"host": "h", "port": "5433", "sslmode": "prefer", "passwd": "x", "uri": ""})


@pytest.fixture(scope="module", autouse=True)
def crds(control_plane: ControlPlane) -> None:
    control_plane.kubectl_run("apply", "-f", str(ROOT / "crds"))
    control_plane.kubectl_run("wait", "--for=condition=Established", "crd", "--all", "--timeout=60s")


async def test_the_api_server_takes_what_was_exported(control_plane: ControlPlane, tmp_path: Path) -> None:
    url = sqlite_url(tmp_path)
    make_older_install(url, [*ROWS, ODD])
    async with store(url) as (database, vault):
        await vault.open()
        await backfill_secrets(database, vault, REGISTRY, Report(lambda _: None), dry_run=False)
        manifests = "".join([each.manifests async for each in export(database, vault, REGISTRY, Wanted())])
    for flags in ([], ["--server-side"]):
        result = control_plane.kubectl_run(
            "apply", "-f", "-", "--dry-run=server", "--validate=strict", *flags, input=manifests, check=False
        )
        assert result.returncode == 0, result.stderr
        assert result.stdout.count("connector.honeyframe.io/") == 5
        assert result.stdout.count("secret/") == 3
