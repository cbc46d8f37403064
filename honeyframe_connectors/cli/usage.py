"""`usage`: what uses a Connector."""

from honeyframe_connectors.cli.cluster import CONNECTORS, connect
from honeyframe_connectors.cli.objects import status
from honeyframe_connectors.cli.options import Context, Format, Kubeconfig, Name, Namespace
from honeyframe_connectors.cli.output import Output, ago, plain, table, write
from honeyframe_connectors.cli.status import used

_KINDS = {"dataset": "📦 dataset", "agentTool": "🔧 tool"}


def usage(
    name: Name,
    namespace: Namespace = None,
    output: Format = Output.TABLE,
    kubeconfig: Kubeconfig = None,
    context: Context = None,
) -> None:
    """Show how many datasets and agent tools use a Connector, and the ten that did most recently.

    Needs: get on connectors, which honeyframe-connector-read has.
    """
    found = status(connect(kubeconfig, context, namespace).get(CONNECTORS, name)).get("usage") or {}
    datasets, tools, last_used_at = found.get("datasets"), found.get("agentTools"), found.get("lastUsedAt")
    recent = found.get("recent", [])
    if output.for_programs:
        write(
            output,
            {
                "dataset_count": datasets,
                "agent_tool_count": tools,
                "last_used_at": last_used_at,
                "recent": [
                    {"kind": each["kind"], "name": each["name"], "last_used_at": each.get("lastUsedAt")}
                    for each in recent
                ],
            },
        )
        return
    print(used(datasets, tools, last_used_at))
    if recent:
        rows = [[_KINDS[each["kind"]], plain(each["name"]), ago(each.get("lastUsedAt"))] for each in recent]
        table(["KIND", "NAME", "LAST-USED"], rows)
