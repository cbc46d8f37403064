"""What `status.usage` says: as it was counted last, never counted for one Connector."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from honeyframe_connectors.api.kinds import timestamp
from honeyframe_connectors.usage import Usage

_UNUSED = Usage(datasets=0, agent_tools=0, quarter=None, rows="[]")
_LONGEST_NAME = 253
"""Characters. The API server refuses a status with a longer one, and an older install's table may hold it."""


@dataclass(slots=True)
class UsageBoard:
    """The usage of every Connector of this cluster, by connector id."""

    on: bool = False
    """Off: no status speaks of usage."""
    _counted: Mapping[str, Usage] | None = field(default=None, repr=False)

    def take(self, counted: Mapping[str, Usage]) -> set[str]:
        """Keep what was counted now; the ids of the connectors whose usage is another than before."""
        before, self._counted = self._counted or {}, counted
        return {each for each in before.keys() | counted.keys() if before.get(each) != counted.get(each)}

    def shown(self, row_id: str, previous: Mapping[str, Any]) -> dict[str, Any]:
        """The part of a Connector's status that speaks of usage: as it stood there while nothing could be counted."""
        if not self.on:
            return {}
        if self._counted is None:
            return {"usage": previous["usage"]} if "usage" in previous else {}
        return {"usage": _block(self._counted.get(row_id, _UNUSED))}

    def differs(self, row_id: str, status: Mapping[str, Any]) -> bool:
        """Whether a status says something else."""
        return self.shown(row_id, status).get("usage") != status.get("usage")


def _block(usage: Usage) -> dict[str, Any]:
    block: dict[str, Any] = {"datasets": usage.datasets, "agentTools": usage.agent_tools}
    if usage.last_used_at is not None:
        block["lastUsedAt"] = timestamp(usage.last_used_at)
    if recent := usage.recent:
        block["recent"] = [
            {
                "kind": use.kind,
                "name": use.name[:_LONGEST_NAME],
                **({"lastUsedAt": timestamp(use.last_used_at)} if use.last_used_at is not None else {}),
            }
            for use in recent
        ]
    return block
