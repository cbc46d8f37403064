"""What a connector type brings to the contract tests: a real server, and how a config for it looks."""

import importlib
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from ipaddress import ip_network
from typing import Any

from hack.certificates import Authority
from honeyframe_connectors.connector_type import CheckResult, ConnectorConfig, ConnectorType, merge
from honeyframe_connectors.probe import Gate, probe
from honeyframe_connectors.targets import Targets

LOOPBACK = Targets(allowed=(ip_network("127.0.0.0/8"), ip_network("::1/128")))
DEADLINE = 10.0
"""Seconds: more than any server here needs, and less than anybody waits for a test."""
SHORT = 0.3
"""Seconds, for what must run into its deadline."""


@dataclass(frozen=True)
class Situation:
    """A spec's config, what came from its Secret, and the rest that a check is given."""

    declared: Mapping[str, Any]
    secrets: Mapping[str, bytes] = field(default_factory=dict)
    ca: bytes | None = None
    output_schemas: tuple[str, ...] = ()

    def config(self, type_: ConnectorType[Any]) -> ConnectorConfig:
        merged: ConnectorConfig = merge(type_, self.declared, self.secrets)
        return merged


@dataclass(frozen=True)
class Bench:
    """One type's server and the situations that it can be brought into. None: the type has no such thing."""

    right: Situation
    without_credential: Situation
    wrong_credential: Situation | None
    no_permission: Situation | None
    not_there: Situation | None
    at: Callable[[str, int], Situation]
    """The same config aimed at another host and port, with TLS that trusts the authority."""
    plain_at: Callable[[str, int], Situation]
    """The same without TLS."""
    before_tls: Callable[[socket.socket], None]
    """What a server does before its TLS handshake."""
    huge: tuple[tuple[bytes, ...], ...]
    """Replies of a plain server, in turn, some of 10 MB."""
    environment: Mapping[str, str]
    """Variables that the driver is known to take, with the right credential."""
    home: Mapping[str, str]
    """Files below the home directory that the driver is known to read, with the right credential."""


@contextmanager
def started(type_: ConnectorType[Any], authority: Authority) -> Iterator[Bench]:
    """The bench of a type: `start` of the module of its name in `servers/`."""
    module = importlib.import_module(f"tests.contract.servers.{type_.name}")
    with module.start(authority) as bench:
        yield bench


async def check(
    type_: ConnectorType[Any],
    situation: Situation,
    *,
    targets: Targets = LOOPBACK,
    timeout: float = DEADLINE,  # noqa: ASYNC109 - the deadline under test
) -> CheckResult:
    return await probe(
        type_,
        situation.config(type_),
        targets=targets,
        ca=situation.ca,
        output_schemas=situation.output_schemas,
        timeout=timeout,
        gate=Gate(),
    )
