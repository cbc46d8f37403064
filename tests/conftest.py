"""What the whole run shares: one PostgreSQL, one control plane; each is started when a test first asks for it."""

from collections.abc import Iterator

import pytest

from hack.cluster import ControlPlane
from hack.postgres import PostgresServer


@pytest.fixture(scope="session")
def postgres() -> Iterator[PostgresServer]:
    with PostgresServer.start() as server:
        yield server


@pytest.fixture(scope="session")
def control_plane() -> Iterator[ControlPlane]:
    with ControlPlane.start(log=lambda _: None) as cluster:
        yield cluster
