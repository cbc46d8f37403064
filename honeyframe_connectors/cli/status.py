"""`status`: a card a Connector, as the platform shows them."""

from dataclasses import asdict, dataclass
from typing import Annotated, Any

import typer
from rich.columns import Columns
from rich.panel import Panel
from rich.text import Text

from honeyframe_connectors.api.kinds import ConditionType
from honeyframe_connectors.cli.cluster import CONNECTORS, Body, connect
from honeyframe_connectors.cli.completion import connector_names
from honeyframe_connectors.cli.faults import Code
from honeyframe_connectors.cli.objects import condition, is_true, observed
from honeyframe_connectors.cli.objects import status as status_of
from honeyframe_connectors.cli.options import AllNamespaces, Context, Format, Kubeconfig, Namespace
from honeyframe_connectors.cli.output import Output, age_of, ago, console, plain, table, write
from honeyframe_connectors.registry import default_registry

_DAY = 86400.0
_DOTS = {"fresh": "green", "recent": "yellow", "old": "dim", "never": "dim"}
_COLOURS = {"ready": "green", "degraded": "yellow", "progressing": "blue", "failed": "red"}
_CARD = 52
"""Columns of a card."""


@dataclass(frozen=True)
class Card:
    """What is shown of one Connector."""

    namespace: str
    name: str
    display_name: str
    type: str | None
    ready: bool
    state: str
    """ready; degraded: ready, but what serves is not what is declared; progressing; failed."""
    reason: str
    message: str
    credential: str | None
    dataset_count: int | None
    agent_tool_count: int | None
    last_used_at: str | None
    activity: str
    """fresh: used within a day; recent: within a week; old; never."""
    latency_ms: int | None


def status(
    name: Annotated[
        str | None,
        typer.Argument(metavar="NAME", help="One Connector. Default: all.", autocompletion=connector_names),
    ] = None,
    namespace: Namespace = None,
    everywhere: AllNamespaces = False,
    output: Format = Output.TABLE,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """Show Connectors as cards: type, state, credential, what uses them and when it last did.

    `-o wide` shows a row each instead. The exit code is 0 if all of them are Ready, 1 if one is not.

    Needs: get (with NAME) or list on connectors, which honeyframe-connector-read has; with -A in every namespace.
    """
    cluster = connect(kubeconfig, context, namespace)
    bodies = [cluster.get(CONNECTORS, name)] if name else cluster.connectors(everywhere=everywhere)
    cards = [card(body) for body in bodies]
    if output.for_programs:
        write(output, asdict(cards[0]) if name else [asdict(each) for each in cards])
    elif not cards:
        print(f"there are no Connectors {'in any namespace' if everywhere else f'in namespace {cluster.namespace}'}")
    elif output is Output.WIDE:
        _rows(cards, everywhere=everywhere)
    else:
        console().print(Columns([_panel(each, everywhere=everywhere) for each in cards]))
    if not all(each.ready for each in cards):
        raise typer.Exit(Code.NO)


def card(body: Body) -> Card:
    """What is shown of a Connector."""
    found, state = status_of(body), _state(body)
    said = condition(body, ConditionType.READY) or {}
    if state == "degraded":
        said = _false(body)[0]
    usage = found.get("usage") or {}
    last_used = usage.get("lastUsedAt")
    return Card(
        namespace=body["metadata"]["namespace"],
        name=body["metadata"]["name"],
        display_name=plain(body["spec"].get("displayName") or body["metadata"]["name"]),
        type=found.get("type"),
        ready=is_true(body, ConditionType.READY),
        state=state,
        reason=said.get("reason", "Progressing"),
        message=plain(said.get("message", "the operator has not looked at it yet")),
        credential=(found.get("credentials") or {}).get("summary"),
        dataset_count=usage.get("datasets"),
        agent_tool_count=usage.get("agentTools"),
        last_used_at=last_used,
        activity=_activity(age_of(last_used)),
        latency_ms=(found.get("health") or {}).get("latencyMs"),
    )


def used(datasets: int | None, tools: int | None, last_used_at: str | None) -> str:
    """What uses a Connector, in one line."""
    if datasets is None and tools is None:
        return "📦 not counted yet"
    return f"📦 {_counted(datasets, 'dataset')} · 🔧 {_counted(tools, 'tool')} · ⏱ {ago(last_used_at)}"


def _counted(number: int | None, what: str) -> str:
    return f"{number or 0} {what}{'' if number == 1 else 's'}"


def _state(body: Body) -> str:
    if is_true(body, ConditionType.STALLED):
        return "failed"
    if not observed(body) or is_true(body, ConditionType.RECONCILING):
        return "progressing"
    if not is_true(body, ConditionType.READY):
        return "progressing" if (condition(body, ConditionType.READY) or {}).get("status") == "Unknown" else "failed"
    return "degraded" if _false(body) else "ready"


def _false(body: Body) -> list[dict[str, Any]]:
    """What is not well beside Ready."""
    said = (condition(body, ConditionType.CREDENTIALS_IN_SYNC), condition(body, ConditionType.HEALTHY))
    return [each for each in said if each is not None and each["status"] == "False"]


def _activity(age: float | None) -> str:
    if age is None:
        return "never"
    return "fresh" if age <= _DAY else "recent" if age <= 7 * _DAY else "old"


def _panel(found: Card, *, everywhere: bool) -> Panel:
    colour = _COLOURS[found.state]
    text = Text()
    text.append(f"{_title(found.type)}\n", style="dim")
    text.append("Ready" if found.ready else found.reason, style=colour)
    text.append(f" · credential {found.credential or '-'}\n")
    text.append("●" if found.activity != "never" else "○", style=_DOTS[found.activity])
    text.append(f" {used(found.dataset_count, found.agent_tool_count, found.last_used_at)}")
    if found.state != "ready":
        text.append(f"\n{found.message}")
    name = f"{found.namespace}/{found.name}" if everywhere else found.name
    shown = name if found.display_name == found.name else f"{found.display_name} ({name})"
    return Panel(text, title=Text(shown), title_align="left", border_style=colour, width=_CARD)


def _rows(cards: list[Card], *, everywhere: bool) -> None:
    head = ["NAMESPACE"] if everywhere else []
    table(
        [*head, "NAME", "TYPE", "STATUS", "CREDENTIAL", "DATASETS", "TOOLS", "LAST-USED", "LATENCY", "MESSAGE"],
        [
            [
                *([each.namespace] if everywhere else []),
                Text.assemble(("● " if each.activity != "never" else "○ ", _DOTS[each.activity]), each.name),
                each.type or "-",
                Text("Ready" if each.ready else each.reason, style=_COLOURS[each.state]),
                each.credential or "-",
                _shown(each.dataset_count),
                _shown(each.agent_tool_count),
                ago(each.last_used_at),
                "-" if each.latency_ms is None else f"{each.latency_ms} ms",
                each.message,
            ]
            for each in cards
        ],
    )


def _title(type_: str | None) -> str:
    registry: Any = default_registry()
    return str(registry[type_].title) if type_ in registry else type_ or "type not known yet"


def _shown(number: int | None) -> str:
    return "-" if number is None else str(number)
