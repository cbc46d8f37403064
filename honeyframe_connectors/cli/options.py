"""The options that commands share, and what is read from them."""

import re
from typing import Annotated

import typer

from honeyframe_connectors.api.kinds import seconds
from honeyframe_connectors.cli.completion import connector_names
from honeyframe_connectors.cli.faults import Fault
from honeyframe_connectors.cli.output import Output

Name = Annotated[str, typer.Argument(metavar="NAME", help="The Connector's name.", autocompletion=connector_names)]
Namespace = Annotated[
    str | None, typer.Option("-n", "--namespace", help="The namespace. Default: the context's, else default.")
]
AllNamespaces = Annotated[bool, typer.Option("-A", "--all-namespaces", help="Every namespace.")]
Kubeconfig = Annotated[
    str | None,
    typer.Option(
        "--kubeconfig",
        help="The kubeconfig. Default: those that KUBECONFIG names, else ~/.kube/config, else the pod's own account.",
    ),
]
Context = Annotated[str | None, typer.Option("--context", help="The kubeconfig's context. Default: its current one.")]
Format = Annotated[Output, typer.Option("-o", "--output", help="How the answer is written.")]
Timeout = Annotated[
    str, typer.Option("--timeout", metavar="DURATION", help="How long to wait at most, such as 30s or 5m.")
]

_DURATION = re.compile(r"([0-9]+(\.[0-9]+)?(ms|s|m|h))+|0")


def duration(text: str) -> float:
    """A duration in seconds.

    Raises:
        Fault: it is none.
    """
    if not _DURATION.fullmatch(text):
        raise Fault(f"--timeout {text}: write a duration such as 30s or 5m")
    return seconds(text)
