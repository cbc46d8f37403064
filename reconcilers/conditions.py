"""Conditions as kstatus reads them: the only place that writes them."""

from collections.abc import Mapping, Sequence
from typing import Any

from honeyframe_connectors.api.kinds import ConditionType, now, timestamp
from honeyframe_connectors.errors import Reason
from reconcilers.steps import Report, Verdict

MESSAGE_LIMIT = 1024


def conditions(
    report: Report,
    verdict: Verdict,
    kept: Sequence[ConditionType],
    *,
    previous: Sequence[Mapping[str, Any]],
    generation: int,
) -> list[dict[str, Any]]:
    """The conditions of a status.

    `kept` are those that this reconcile did not look at: they stay as they are in `previous`. The transition time of a
    condition moves only when its status does.
    """
    before = {condition["type"]: condition for condition in previous}
    written: dict[ConditionType, tuple[str, Reason, str]] = {
        ConditionType.READY: (verdict.ready, verdict.reason, verdict.message)
    }
    for condition in (ConditionType.CONFIG_VALID, ConditionType.CREDENTIALS_IN_SYNC, ConditionType.HEALTHY):
        if condition in report.errors:
            error = report.errors[condition]
            written[condition] = ("False", error.reason, error.message)
        elif condition in report.messages:
            written[condition] = ("True", Reason.SUCCEEDED, report.messages[condition])
        elif condition in report.blocked:
            error = report.blocked[condition]
            written[condition] = ("Unknown", error.reason, f"not looked at: {error.message}")
        elif condition in kept and condition in before:
            old = before[condition]
            written[condition] = (old["status"], old["reason"], old["message"])
    if verdict.progress is not None:
        reason = verdict.reason if verdict.progress is ConditionType.STALLED else Reason.PROGRESSING_WITH_RETRY
        if verdict.ready == "Unknown" and verdict.progress is ConditionType.RECONCILING:
            reason = Reason.PROGRESSING
        written[verdict.progress] = ("True", reason, verdict.message)
    if verdict.ended is not None:
        written[verdict.ended] = ("True", verdict.reason, verdict.message)
    return [
        _condition(type_, status, reason, message, before.get(type_), generation)
        for type_, (status, reason, message) in written.items()
    ]


def _condition(
    type_: ConditionType, status: str, reason: str, message: str, before: Mapping[str, Any] | None, generation: int
) -> dict[str, Any]:
    unmoved = before is not None and before["status"] == status
    return {
        "type": str(type_),
        "status": status,
        "reason": str(reason),
        "message": message if len(message) <= MESSAGE_LIMIT else message[: MESSAGE_LIMIT - 1] + "…",
        "observedGeneration": generation,
        "lastTransitionTime": before["lastTransitionTime"] if unmoved and before else timestamp(now()),
    }
