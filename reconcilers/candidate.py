"""A content that may come to serve, and where its secret values may go."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from honeyframe_connectors.connector_type import ConnectorConfig, ConnectorType, Mark, destination, marked, merge
from honeyframe_connectors.errors import Reason, Stalled
from honeyframe_connectors.vault.rows import Version


@dataclass(frozen=True, slots=True)
class Candidate:
    """A config, the secret values and the CA that go with it."""

    type: ConnectorType[Any]
    declared: Mapping[str, Any]
    """The clean config, as it is written."""
    values: Mapping[str, bytes] = field(repr=False)
    ca: bytes | None
    config_mac: str
    secret_mac: str
    kept: Version | None = None
    """The version that secret values come from which the Secret does not hold right now."""
    restored_from: int | None = None

    @property
    def content(self) -> str:
        """What it is, by its keyed MACs."""
        return f"{self.config_mac}.{self.secret_mac}"

    def whole(self, merged: ConnectorConfig | None = None) -> ConnectorConfig:
        """Config and values together; `merged` is the same, where it was made already.

        Raises:
            Stalled: `InvalidConfig`, they do not fit; `TargetChanged`, kept values would go to where they were never
                accepted.
        """
        config: ConnectorConfig = merged or merge(self.type, self.declared, self.values)
        if self.kept is not None:
            _require_same_destination(self.type, config, self.ca, self.kept)
        return config


def _require_same_destination(
    type_: ConnectorType[Any], config: ConnectorConfig, ca: bytes | None, kept: Version
) -> None:
    """Who may edit a Connector but not read its Secret must not have a stored value sent to himself."""
    accepted = merge(type_, kept.config, kept.secrets)
    if destination(type_, config) != destination(type_, accepted):
        names = [name for name in type_.config.model_fields if name in marked(type_.config, Mark.DESTINATION)]
        changed = [name for name in names if getattr(config, name) != getattr(accepted, name)]
        raise _target_changed(kept, f"{', '.join(changed)} of spec.config.{type_.name} differ")
    if type_.strictness(config, ca) < type_.strictness(accepted, kept.ca):
        raise _target_changed(kept, f"TLS of spec.config.{type_.name} verifies less")


def _target_changed(kept: Version, what: str) -> Stalled:
    return Stalled(
        Reason.TARGET_CHANGED,
        f"{what} from where the kept secret values (version {kept.number}) were accepted, and a value that the Secret "
        "does not hold is never sent elsewhere: write the values into the Secret first, or put the config back",
    )
