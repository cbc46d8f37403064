"""`history` and `rollback`: the versions of a Connector, and the way back to one."""

import contextlib
import math
from typing import Annotated, Any

import typer
from rich.text import Text

from honeyframe_connectors.api.kinds import ROLLBACK_ANNOTATION
from honeyframe_connectors.cli.cluster import CONNECTORS, ApiFault, Body, Cluster, connect
from honeyframe_connectors.cli.faults import Code
from honeyframe_connectors.cli.objects import status
from honeyframe_connectors.cli.options import Context, Format, Kubeconfig, Name, Namespace, Timeout
from honeyframe_connectors.cli.output import Output, ago, plain, table, write
from honeyframe_connectors.cli.tokens import handled, later, not_suspended
from honeyframe_connectors.cli.waiting import Deadline, until
from honeyframe_connectors.errors import Reason

_COLOURS = {"passed": "green", "skipped": "yellow", "failed": "red", "rollback": "cyan"}
_EVENT = 10
"""Seconds within which the Event of a rollback comes: it is posted after the status."""


def history(
    name: Name,
    namespace: Namespace = None,
    output: Format = Output.TABLE,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """Show the versions of a Connector that are kept, newest first: when, how the test went, why.

    A version is a config and the secret values that were accepted with it; no value is ever shown.

    Needs: get on connectors, which honeyframe-connector-read has.
    """
    body = connect(kubeconfig, context, namespace).get(CONNECTORS, name)
    serves = status(body).get("servedVersion")
    entries = [_entry(each, serves) for each in _history(body)]
    if output.for_programs:
        write(output, entries)
    elif not entries:
        print(f"{name} has no version yet: no credential of it was accepted")
    else:
        table(["VERSION", "", "AGE", "TEST", "RESTORED-FROM", "REASON"], [_row(each) for each in entries])


def rollback(
    name: Name,
    to: Annotated[int, typer.Option("--to", metavar="VERSION", help="The version whose secret values to bring back.")],
    timeout: Timeout = "2m",
    namespace: Namespace = None,
    output: Format = Output.TABLE,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """Bring back the secret values of an earlier version, with the config that serves.

    They are tested first; where they do not pass, nothing changes and the exit code is 1. Afterwards what the Secret
    holds is held back until it shows other values.

    Needs: get, watch and patch on connectors, and to say why a rollback was rejected, list and watch on events;
    honeyframe-connector-edit has them.
    """
    deadline = Deadline.after(timeout)
    cluster = connect(kubeconfig, context, namespace)
    before = cluster.get(CONNECTORS, name)
    not_suspended(before, cluster.namespace)
    old = _events(cluster, before)
    token = later(status(before).get("lastHandledRollbackAt"))
    cluster.annotate(name, {ROLLBACK_ANNOTATION: f"{to}@{token}"})
    after = until(
        cluster,
        CONNECTORS,
        name,
        lambda body: body if handled(body, "lastHandledRollbackAt", token) else None,
        deadline,
        f"the rollback to version {to} is not done",
    )
    version = _restored(before, after, to)
    held = status(after).get("servedVersion") == to
    if version is not None:
        message = f"version {version} serves, with the secret values of version {to}"
    elif held:
        message = f"version {to} serves, as before; what the Secret holds is held back"
    else:
        message = (
            _why(cluster, after, old, deadline) or f"the rollback to version {to} is rejected, and no Event says why"
        )
    done = version is not None or held
    if output.for_programs:
        served = status(after).get("servedVersion")
        write(output, {"ok": done, "version": served, "restored_from": to if done else None, "message": message})
    else:
        print(f"{name}: {message}")
    if not done:
        raise typer.Exit(Code.NO)


def _history(body: Body) -> list[dict[str, Any]]:
    return list((status(body).get("credentials") or {}).get("history") or [])


def _entry(found: dict[str, Any], serves: int | None) -> dict[str, Any]:
    return {
        "version": found["version"],
        "serves": found["version"] == serves,
        "at": found["at"],
        "test_status": found["testStatus"],
        "reason": found.get("reason"),
        "restored_from": found.get("restoredFrom"),
    }


def _row(entry: dict[str, Any]) -> list[Text | str]:
    return [
        str(entry["version"]),
        Text("serves" if entry["serves"] else "", style="bold"),
        ago(entry["at"]),
        Text(entry["test_status"], style=_COLOURS.get(entry["test_status"], "")),
        str(entry["restored_from"] or "-"),
        plain(entry["reason"] or "-"),
    ]


def _restored(before: Body, after: Body, to: int) -> int | None:
    """The version that a rollback made, if it made one."""
    known = {each["version"] for each in _history(before)}
    made = [
        each["version"]
        for each in _history(after)
        if each["version"] not in known and each["testStatus"] == "rollback" and each.get("restoredFrom") == to
    ]
    return max(made, default=None)


def _events(cluster: Cluster, body: Body) -> set[str]:
    """The Events that there were before; by resourceVersion, for one that is counted up is a new one."""
    with contextlib.suppress(ApiFault):  # said where one is needed
        return {event["metadata"]["resourceVersion"] for event in cluster.events(body)}
    return set()


def _why(cluster: Cluster, body: Body, old: set[str], deadline: Deadline) -> str | None:
    """What the operator says of a rollback that it rejected, in the Event that it posts."""
    try:
        for event in cluster.events(body, min(_EVENT, math.ceil(deadline.left))):
            if event["reason"] == Reason.ROLLBACK_REJECTED and event["metadata"]["resourceVersion"] not in old:
                return plain(event["message"])
    except ApiFault as fault:
        return f"the rollback is rejected; why stands in an Event, and {fault}"
    return None
