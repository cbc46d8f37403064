"""What an object says of itself, read as kstatus does: only what was said of its newest generation counts."""

from typing import Any

from honeyframe_connectors.cli.cluster import Body


def status(body: Body) -> dict[str, Any]:
    """An object's status."""
    return body.get("status") or {}


def observed(body: Body) -> bool:
    """Whether the status speaks of the object as it is declared now."""
    return bool(status(body).get("observedGeneration") == body["metadata"]["generation"])


def condition(body: Body, type_: str) -> dict[str, Any] | None:
    """A condition, where it speaks of the object as it is declared now."""
    if not observed(body):
        return None
    return next((each for each in status(body).get("conditions", ()) if each["type"] == type_), None)


def is_true(body: Body, type_: str) -> bool:
    """Whether a condition is True of the object as it is declared now."""
    found = condition(body, type_)
    return found is not None and found["status"] == "True"
