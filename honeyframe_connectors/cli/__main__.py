"""The command `honeyframe`, also as `kubectl honeyframe`: connectors, their credentials, and what uses them."""

import sys
from pathlib import Path

import typer

from honeyframe_connectors.cli import backfill, rows, vault
from honeyframe_connectors.cli.faults import EXIT_CODES, speaking
from honeyframe_connectors.cli.history import history, rollback
from honeyframe_connectors.cli.rotate import rotate
from honeyframe_connectors.cli.status import status
from honeyframe_connectors.cli.store import EXIT_CODES as STORE_EXIT_CODES
from honeyframe_connectors.cli.test import test
from honeyframe_connectors.cli.types import types
from honeyframe_connectors.cli.usage import usage
from honeyframe_connectors.cli.validate import validate
from honeyframe_connectors.cli.wait import wait

app = typer.Typer(no_args_is_help=True, help=__doc__, rich_markup_mode="markdown", pretty_exceptions_enable=False)

_IN_THE_POD = "In the operator's pod"
_PANELS = {
    "A cluster's Connectors": (status, usage, history, test, rotate, rollback, wait),
    "No cluster needed": (types, validate),
}
for _panel, _commands in _PANELS.items():
    for _command in _commands:
        app.command(rich_help_panel=_panel, epilog=EXIT_CODES)(speaking(_command))
vault.app.command(epilog=EXIT_CODES)(rows.claim)
vault.app.command(epilog=EXIT_CODES)(rows.purge)
app.command(rich_help_panel=_IN_THE_POD, epilog=STORE_EXIT_CODES)(backfill.export)
app.add_typer(backfill.app, name="backfill", rich_help_panel=_IN_THE_POD)
app.add_typer(vault.app, name="vault", rich_help_panel=_IN_THE_POD)


def main() -> None:
    """Run the command line, under the name that it was called by."""
    plugin = Path(sys.argv[0]).stem == "kubectl-honeyframe"
    app(prog_name="kubectl honeyframe" if plugin else "honeyframe")


if __name__ == "__main__":
    main()
