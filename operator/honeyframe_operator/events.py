"""Kubernetes Events, on transitions only: what a person would want to be told once."""

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from honeyframe_connectors.api.kinds import API_VERSION, ConditionType, now, timestamp
from honeyframe_connectors.errors import Reason
from honeyframe_operator.kube import UNANSWERED, ApiError, KubeClient
from reconcilers.steps import News

logger = logging.getLogger(__name__)
_TOLD = (ConditionType.READY, ConditionType.CREDENTIALS_IN_SYNC, ConditionType.HEALTHY)


def transitions(before: Mapping[str, Any], after: Mapping[str, Any]) -> Iterator[News]:
    """What changed for people; a first success is no news."""
    old = {condition["type"]: condition for condition in before.get("conditions", ())}
    told: set[str] = set()
    for condition in after.get("conditions", ()):
        previous = old.get(condition["type"])
        if condition["type"] not in _TOLD or _same(previous, condition):
            continue
        if condition["status"] == "False" and condition["message"] not in told:
            told.add(condition["message"])
            refused = condition["type"] == ConditionType.CREDENTIALS_IN_SYNC and _keeps_serving_a_refused(after)
            yield News(
                "Warning", Reason.ROTATION_REJECTED if refused else Reason(condition["reason"]), condition["message"]
            )
        elif condition["status"] == "True" and previous is not None and previous["status"] == "False" and not told:
            told.add(condition["message"])
            yield News("Normal", Reason(condition["reason"]), condition["message"])
    served, serves = before.get("servedVersion"), after.get("servedVersion")
    if served is not None and serves is not None and served != serves:
        yield _replaced(served, serves, (after.get("credentials") or {}).get("history") or ())


def _keeps_serving_a_refused(status: Mapping[str, Any]) -> bool:
    return status.get("servedVersion") is not None and (status.get("credentials") or {}).get("state") == "Refused"


def _replaced(served: int, serves: int, history: Sequence[Mapping[str, Any]]) -> News:
    made = next((entry for entry in history if entry["version"] == serves), {})
    if made.get("testStatus") == "failed":
        return News("Warning", Reason.ROTATION_FORCED, f"version {serves} was let in by force in place of {served}")
    if made.get("testStatus") == "rollback":
        restored = made.get("restoredFrom")
        return News(
            "Normal", Reason.ROLLED_BACK, f"version {serves} brings back version {restored} in place of {served}"
        )
    return News("Normal", Reason.CREDENTIALS_ROTATED, f"version {serves} was tested and replaces version {served}")


def _same(before: Mapping[str, Any] | None, after: Mapping[str, Any]) -> bool:
    return before is not None and (before["status"], before["reason"]) == (after["status"], after["reason"])


async def post(client: KubeClient, kind: str, body: Mapping[str, Any], news: Sequence[News], reporter: str) -> None:
    """Write the Events; one that cannot be written is logged, for it must not hold up a reconcile."""
    metadata = body["metadata"]
    moment = timestamp(now())
    for transition in news:
        event = {
            "apiVersion": "v1",
            "kind": "Event",
            "metadata": {"generateName": f"{metadata['name'][:200]}-", "namespace": metadata["namespace"]},
            "involvedObject": {
                "apiVersion": API_VERSION,
                "kind": kind,
                "name": metadata["name"],
                "namespace": metadata["namespace"],
                "uid": metadata["uid"],
                "resourceVersion": metadata["resourceVersion"],
            },
            "type": transition.type,
            "reason": str(transition.reason),
            "message": transition.message[:1024],
            "firstTimestamp": moment,
            "lastTimestamp": moment,
            "count": 1,
            "source": {"component": "honeyframe-operator"},
            "reportingComponent": "honeyframe.io/operator",
            "reportingInstance": reporter[:128],
        }
        try:
            await client.post(f"/api/v1/namespaces/{metadata['namespace']}/events", event)
        except (ApiError, *UNANSWERED) as error:
            logger.warning("Event %s for %s/%s: %s", transition.reason, metadata["namespace"], metadata["name"], error)
