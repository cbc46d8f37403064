"""Every contract test runs for every connector type."""

from collections.abc import Iterator
from typing import Any

import pytest

from hack.certificates import Authority
from honeyframe_connectors.connector_type import ConnectorType
from honeyframe_connectors.types import ALL
from tests.contract.bench import Bench, started


@pytest.fixture(scope="session", params=ALL, ids=lambda type_: type_.name)
def type_(request: pytest.FixtureRequest) -> ConnectorType[Any]:
    found: ConnectorType[Any] = request.param
    return found


@pytest.fixture(scope="session")
def authority() -> Authority:
    return Authority("contract tests")


@pytest.fixture(scope="session")
def bench(type_: ConnectorType[Any], authority: Authority) -> Iterator[Bench]:
    with started(type_, authority) as found:
        yield found
