"""`wait`: until Connectors are as they should be, by kstatus' rules."""

from collections.abc import Callable
from typing import Annotated, Any

import typer

from honeyframe_connectors.api.kinds import ConditionType
from honeyframe_connectors.cli.cluster import CONNECTORS, Body, connect
from honeyframe_connectors.cli.completion import connector_names
from honeyframe_connectors.cli.faults import Code, Fault
from honeyframe_connectors.cli.objects import condition, is_true
from honeyframe_connectors.cli.options import Context, Format, Kubeconfig, Namespace, Timeout
from honeyframe_connectors.cli.output import Output, plain, write
from honeyframe_connectors.cli.waiting import Deadline, until

_WORDS = {
    "ready": ConditionType.READY,
    "insync": ConditionType.CREDENTIALS_IN_SYNC,
    "healthy": ConditionType.HEALTHY,
}


def wait(
    names: Annotated[
        list[str], typer.Argument(metavar="NAME", help="The Connectors' names.", autocompletion=connector_names)
    ],
    for_: Annotated[
        str, typer.Option("--for", metavar="WHAT", help="ready, insync, healthy, or CONDITION=STATUS.")
    ] = "ready",
    timeout: Timeout = "5m",
    namespace: Namespace = None,
    output: Format = Output.TABLE,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """Wait until Connectors are ready, in sync with their Secret, or healthy, as they are declared now.

    With ready, insync and healthy it ends with 1 as soon as the operator says that a person must act (Stalled).
    CONDITION=STATUS waits for that alone.

    Needs: get and watch on connectors, which honeyframe-connector-read has.
    """
    answer = _answer(for_)
    deadline = Deadline.after(timeout)
    cluster = connect(kubeconfig, context, namespace)
    found = []
    for name in names:
        so, said = until(cluster, CONNECTORS, name, answer, deadline, f"not {for_}")
        found.append({"name": name, "ok": so, **{field: said[field] for field in ("type", "status", "reason")}})
        found[-1]["message"] = said["message"]
        if not output.for_programs:
            print(f"{name}: {said['type']}={said['status']}: {said['reason']}: {plain(said['message'])}")
    if output.for_programs:
        write(output, found)
    if not all(each["ok"] for each in found):
        raise typer.Exit(Code.NO)


def _answer(wanted: str) -> Callable[[Body], tuple[bool, dict[str, Any]] | None]:
    """Whether an object is so, with the condition that says it; None while it is open."""
    word, equals, value = wanted.partition("=")
    if not equals and word not in _WORDS:
        raise Fault(f"--for {wanted}: write one of {', '.join(_WORDS)}, or CONDITION=STATUS such as Healthy=False")
    type_, value = (word, value.capitalize()) if equals else (str(_WORDS[word]), "True")

    def answer(body: Body) -> tuple[bool, dict[str, Any]] | None:
        if not equals and is_true(body, ConditionType.RECONCILING):
            return None
        found = condition(body, type_)
        if found is not None and found["status"] == value:
            return True, found
        stalled = condition(body, ConditionType.STALLED)
        if stalled is not None and not equals and is_true(body, ConditionType.STALLED):
            return False, stalled
        return None

    return answer
