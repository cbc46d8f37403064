"""How a reconcile checks a config: under its deadline, within the address guard and the budget of refused logins."""

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from honeyframe_connectors.api.connector import ConnectorSpec
from honeyframe_connectors.api.kinds import seconds
from honeyframe_connectors.connector_type import CheckResult, ConnectorConfig, ConnectorType
from honeyframe_connectors.probe import Gate, probe
from honeyframe_connectors.targets import Targets
from reconcilers.connector_scope import Scope
from reconcilers.logins import Logins

PATIENCE = 0.5
"""Seconds that a worker waits for its turn at a target: what it waits for, nobody else can use."""


@dataclass(slots=True)
class Checks:
    """Probes, for whoever has something to check."""

    logins: Logins
    targets: Targets
    gate: Gate
    probed: Callable[[str, CheckResult], None] = lambda _type, _result: None
    """Told of every check: the type's name, and how it went."""
    _drivers_found: set[str] = field(default_factory=set)

    def require_driver(self, type_: ConnectorType[Any]) -> None:
        """Make sure that the driver is there.

        Raises:
            Stalled: `DriverMissing`.
        """
        # What was found once is there until the process ends; to look again searches the whole path.
        if type_.name not in self._drivers_found:
            type_.require_driver()
            self._drivers_found.add(type_.name)

    async def check(
        self,
        scope: Scope,
        type_: ConnectorType[Any],
        config: ConnectorConfig,
        ca: bytes | None,
        *,
        known_good: bool = False,
        anew_since: float | None = None,
    ) -> CheckResult:
        """Check a config; `known_good` and `anew_since` as `Logins.login` has them.

        Raises:
            Waiting: `VaultUnavailable`, the attempt could not be noted.
            TryAgain: it was not its turn.
        """
        spec = scope.spec  # None where it cannot be read, and what serves goes on

        async def dial() -> CheckResult:
            return await probe(
                type_,
                config,
                targets=self.targets,
                ca=ca,
                output_schemas=spec.output_schemas if spec else (),
                timeout=seconds(spec.timeout if spec else ConnectorSpec.model_fields["timeout"].default),
                gate=self.gate,
                patience=PATIENCE,
            )

        namespace = scope.row.owner.namespace_uid if scope.row else scope.resource.namespace
        result = await self.logins.login(
            namespace, type_, config, dial, known_good=known_good, anew_since=anew_since, patience=PATIENCE
        )
        self.probed(type_.name, result)
        return result
