"""Shell completion: names of Connectors, and what kubectl asks a plugin for."""

import os
import shlex
import sys

import typer

from honeyframe_connectors.cli.cluster import connect
from honeyframe_connectors.cli.faults import Fault


def connector_names(context: typer.Context, incomplete: str) -> list[str]:
    """The names of the namespace's Connectors that begin so; none where they cannot be asked for."""
    given = context.params
    try:
        cluster = connect(given.get("kubeconfig"), given.get("context"), given.get("namespace"))
        names = [body["metadata"]["name"] for body in cluster.connectors()]
    except Fault:
        return []
    return [name for name in names if name.startswith(incomplete)]


def kubectl_complete() -> None:
    """Complete `kubectl honeyframe …`: kubectl runs kubectl_complete-honeyframe with the words typed so far.

    The answer is one candidate a line, with a tab before its help, and last the directive `:0`, which lets the shell
    complete file names where there is no candidate.
    """
    from honeyframe_connectors.cli.__main__ import app  # noqa: PLC0415 - it imports this module

    *before, incomplete = sys.argv[1:] or [""]
    # The lines that typer writes for fish are those that kubectl reads.
    os.environ |= {
        "_HONEYFRAME_COMPLETE": "complete_fish",
        "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        "_TYPER_COMPLETE_ARGS": f"{shlex.join(['honeyframe', *before])} {incomplete}",
    }
    try:
        app(prog_name="honeyframe", complete_var="_HONEYFRAME_COMPLETE")
    finally:
        print(":0")
