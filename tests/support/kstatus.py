"""kstatus' rules for our kinds, as cli-utils and Flux read them, and what we promise beyond them."""

from collections.abc import Mapping
from typing import Any


def kstatus(body: Mapping[str, Any]) -> str:
    """Current, InProgress or Failed, by the generic rules of kstatus."""
    status = body.get("status") or {}
    if status.get("observedGeneration", body["metadata"]["generation"]) != body["metadata"]["generation"]:
        return "InProgress"
    conditions = {each["type"]: each for each in status.get("conditions", [])}
    if conditions.get("Reconciling", {}).get("status") == "True":
        return "InProgress"
    if conditions.get("Stalled", {}).get("status") == "True":
        return "Failed"
    ready = conditions.get("Ready")
    if ready is None:
        return "InProgress" if "observedGeneration" in status else "Current"
    return "Current" if ready["status"] == "True" else "InProgress"


def faults(body: Mapping[str, Any]) -> list[str]:
    """What is wrong with the status of an object that was looked at."""
    status = body.get("status") or {}
    conditions = status.get("conditions")
    if not conditions:
        return [] if status.get("observedGeneration") == -1 else ["a status without conditions"]
    found = []
    by_type = {each["type"]: each for each in conditions}
    if len(by_type) != len(conditions):
        found.append("a condition stands there twice")
    if "Ready" not in by_type:
        found.append("no condition Ready")
    if "Reconciling" in by_type and "Stalled" in by_type:
        found.append("Reconciling and Stalled at once")
    for type_ in ("Reconciling", "Stalled"):
        if type_ in by_type and by_type[type_]["status"] != "True":
            found.append(f"{type_} is there without being True")
        if type_ in by_type and by_type.get("Ready", {}).get("status") == "True":
            found.append(f"{type_} beside Ready=True")
    for each in conditions:
        if each["observedGeneration"] != status.get("observedGeneration"):
            found.append(f"{each['type']} speaks of another generation than the status")
        if not each["reason"] or not each["message"]:
            found.append(f"{each['type']} has no reason or message")
        if each["status"] == "False" and each["message"].rstrip()[-1:] in (":", ","):
            found.append(f"{each['type']} has a message that ends in the middle")
    return found
