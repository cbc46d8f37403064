"""The command `honeyframe`, also as `kubectl honeyframe`: connectors, their credentials, and what uses them."""

import sys
from pathlib import Path

import typer

from honeyframe_connectors.cli import rows, vault
from honeyframe_connectors.cli.faults import EXIT_CODES, speaking
from honeyframe_connectors.cli.history import history, rollback
from honeyframe_connectors.cli.rotate import rotate
from honeyframe_connectors.cli.status import status
from honeyframe_connectors.cli.test import test
from honeyframe_connectors.cli.types import types
from honeyframe_connectors.cli.usage import usage
from honeyframe_connectors.cli.validate import validate
from honeyframe_connectors.cli.wait import wait

app = typer.Typer(no_args_is_help=True, help=__doc__, rich_markup_mode="markdown", pretty_exceptions_enable=False)

_PANELS = {
    "A cluster's Connectors": (status, usage, history, test, rotate, rollback, wait),
    "No cluster needed": (types, validate),
    # An administrator's commands on the database (export, vault, backfill) have a panel of their own here, and groups
    # of commands follow below by app.add_typer.
}
for _panel, _commands in _PANELS.items():
    for _command in _commands:
        app.command(rich_help_panel=_panel, epilog=EXIT_CODES)(speaking(_command))
vault.app.command(epilog=EXIT_CODES)(rows.claim)
vault.app.command(epilog=EXIT_CODES)(rows.purge)
app.add_typer(vault.app, name="vault", rich_help_panel="In the operator's pod")


def main() -> None:
    """Run the command line, under the name that it was called by."""
    plugin = Path(sys.argv[0]).stem == "kubectl-honeyframe"
    app(prog_name="kubectl honeyframe" if plugin else "honeyframe")


if __name__ == "__main__":
    main()
