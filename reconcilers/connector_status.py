"""What a Connector's status says: pure functions from what a reconcile learned."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from honeyframe_connectors.api.kinds import ConditionType, now, timestamp
from honeyframe_connectors.connector_type import CheckResult, ConnectorType
from honeyframe_connectors.connector_type import Outcome as StepOutcome
from honeyframe_connectors.errors import ConnectorError, Reason, Stalled
from honeyframe_connectors.vault.rows import ConnectorRow, VersionInfo
from reconcilers.attempts import GRACE, Pending, kind_of
from reconcilers.steps import Report, Verdict

_MISSING = (Reason.SECRET_NOT_FOUND, Reason.SECRET_KEY_MISSING, Reason.CA_NOT_FOUND)


def verdict(
    report: Report,
    *,
    pending: Pending | None,
    serving_version: int | None,
    title: str,
    declared_serves: bool,
    failures: int,
    failure_threshold: int,
    forced: bool,
    unavailable_since: float | None,
    moment: float,
) -> Verdict:
    """Ready, and Reconciling or Stalled: the table of `docs/architecture.md`, row by row."""
    unavailable = report.error(Reason.VAULT_UNAVAILABLE)
    if unavailable is not None:
        young = unavailable_since is None or moment < unavailable_since + GRACE
        return _not_ready(unavailable, ConditionType.RECONCILING if young else None)
    if ConditionType.READY in report.errors:
        return _not_ready(
            report.errors[ConditionType.READY], _progress(report.errors[ConditionType.READY], pending, moment)
        )
    declared = report.errors.get(ConditionType.CONFIG_VALID) or report.errors.get(ConditionType.CREDENTIALS_IN_SYNC)
    wanting = declared or (pending.error() if pending else None)
    if wanting is not None and (serving_version is None or not declared_serves):
        return _not_ready(wanting, _progress(wanting, pending, moment))
    ill = report.errors.get(ConditionType.HEALTHY)
    if forced and serving_version is not None:
        said = f": {ill.message}" if ill is not None else ""
        return Verdict(
            "False",
            Reason.ROTATION_FORCED,
            f"version {serving_version} was let in by force and no check of it has passed yet{said}",
        )
    if ill is not None and failures >= failure_threshold:
        return _not_ready(ill, None)
    return Verdict("True", Reason.SUCCEEDED, f"{title}: version {serving_version} serves")


def _not_ready(error: ConnectorError, progress: ConditionType | None) -> Verdict:
    return Verdict("False", error.reason, error.message, progress)


def _progress(error: ConnectorError, pending: Pending | None, moment: float) -> ConditionType | None:
    if isinstance(error, Stalled):
        return ConditionType.STALLED
    if pending is None or pending.young(moment):
        return ConditionType.RECONCILING
    return ConditionType.STALLED if kind_of(error) == "refused" else None


def credentials(
    row: ConnectorRow, *, serves: bool, pending: Pending | None, versions: Sequence[VersionInfo]
) -> dict[str, Any]:
    """`status.credentials`: the version that serves, what is still wanting, and the history."""
    version = row.serving_version if serves else None
    state = _state(row, pending)
    shown = str(version) if version is not None else "-"
    result: dict[str, Any] = {
        "state": state,
        "summary": shown if state == "InSync" else f"{shown} ({state.lower()})",
    }
    if version is not None:
        result["version"] = version
        made = next((each.at for each in versions if each.number == version), None)
        if made is not None:
            result["rotatedAt"] = timestamp(made)
    if pending is not None:
        result["pending"] = {
            "id": pending.id,
            "reason": pending.reason,
            "since": _moment(pending.since),
            **({"nextTryAt": _moment(pending.next_at)} if pending.next_at is not None else {}),
        }
    if versions:
        result["history"] = [_entry(each) for each in versions]
    return result


def _entry(version: VersionInfo) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "version": version.number,
        "at": timestamp(version.at),
        "testStatus": version.test_status,
    }
    if version.reason:
        entry["reason"] = version.reason
    if version.restored_from is not None:
        entry["restoredFrom"] = version.restored_from
    return entry


def _state(row: ConnectorRow, pending: Pending | None) -> str:
    if row.revoked:
        return "Revoked"
    if pending is not None and (pending.reason in _MISSING or pending.reason == Reason.SECRET_NOT_LABELLED):
        return "Missing"
    if row.held is not None:
        return "Held"
    if pending is not None:
        return "Refused" if pending.kind in ("refused", "stalled") else "Unanswered"
    if row.forced:
        return "Forced"
    return "InSync" if row.serving_version is not None and row.deleted_at is None else "Unanswered"


def health(
    previous: Mapping[str, Any] | None,
    result: CheckResult | None,
    *,
    failures: int,
    failure_threshold: int,
    same_version: bool,
) -> Mapping[str, Any] | None:
    """`status.health` as of its last transition: a check that changes nothing but the clock leaves it as it is."""
    if result is None:
        return previous
    error = result.error.message if result.error is not None else None
    crossing = failures == failure_threshold
    if (
        previous
        and same_version
        and previous.get("ok") == result.ok
        and previous.get("error") == error
        and not crossing
    ):
        return previous
    kept = previous["since"] if previous and previous.get("ok") == result.ok else timestamp(now())
    block: dict[str, Any] = {
        "ok": result.ok,
        "latencyMs": result.latency_ms,
        "since": kept,
        "consecutiveFailures": failures,
        "steps": [step(each.name, each.outcome, each.message) for each in result.steps],
    }
    if error is not None:
        block["error"] = error
    if result.server_version:
        block["serverVersion"] = result.server_version
    return block


def describe(type_: ConnectorType[Any]) -> dict[str, Any]:
    """What a status says of the type."""
    return {"type": type_.name, "category": str(type_.category), "queryable": type_.queryable}


def step(name: str, outcome: StepOutcome, message: str) -> dict[str, Any]:
    """One step of a check, as a status shows it."""
    block: dict[str, Any] = {"name": name}
    if outcome is not StepOutcome.NOT_TESTED:
        block["passed"] = outcome is StepOutcome.PASSED
    if message:
        block["message"] = message
    return block


def _moment(seconds: float) -> str:
    return timestamp(datetime.fromtimestamp(seconds, UTC))
