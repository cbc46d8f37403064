"""Move an older install: its secrets into the vault, its notification settings into connectors, its rows to Git.

An administrator's commands; they run in the operator's pod. Each may be run again at any time.
"""

import sys
from pathlib import Path
from typing import Annotated

import typer

from honeyframe_connectors.backfill.export import Exported, Wanted
from honeyframe_connectors.backfill.export import export as exported
from honeyframe_connectors.backfill.notifications import backfill_notifications
from honeyframe_connectors.backfill.report import Outcome, Report
from honeyframe_connectors.backfill.secrets import backfill_secrets
from honeyframe_connectors.cli.store import (
    DEFAULT_DATABASE,
    EXIT_CODES,
    WRONG_USAGE,
    DatabaseFile,
    DatabaseUrl,
    OlderSecretFiles,
    SecretFile,
    fail,
    on_vault,
)
from honeyframe_connectors.errors import Waiting
from honeyframe_connectors.registry import default_registry
from honeyframe_connectors.store.database import Database
from honeyframe_connectors.vault.vault import Vault

app = typer.Typer(no_args_is_help=True, help=__doc__, epilog=EXIT_CODES)

DryRun = Annotated[bool, typer.Option("--dry-run", help="Print the same lines and change nothing.")]


@app.command(epilog=EXIT_CODES)
def secrets(
    *,
    secret_file: SecretFile,
    older_secret_files: OlderSecretFiles = "",
    database: DatabaseUrl = DEFAULT_DATABASE,
    database_file: DatabaseFile = None,
    dry_run: DryRun = False,
) -> None:
    """Move plaintext secrets in the config of the platform's rows into the vault.

    One line a row, never a value. Rows of unknown types and secrets sealed in another format stay as they are.

    Needs: the metadata store and the platform's secret, so it runs in the operator's pod.
    """

    async def work(store: Database, vault: Vault) -> bool:
        report = Report(print)
        await backfill_secrets(store, vault, default_registry(), report, dry_run=dry_run, progress=_progress)
        _sum_up(report, dry_run=dry_run)
        clean = dry_run or await _leave_no_trace(store, moved=report.counts[Outcome.DONE] > 0)
        return report.complete and clean

    on_vault(
        work,
        database=database,
        database_file=database_file,
        secret_file=secret_file,
        older_secret_files=older_secret_files,
    )


@app.command(epilog=EXIT_CODES)
def notifications(
    *,
    secret_file: SecretFile,
    older_secret_files: OlderSecretFiles = "",
    database: DatabaseUrl = DEFAULT_DATABASE,
    database_file: DatabaseFile = None,
    project: Annotated[
        str, typer.Option(help="The project, in each org, that the connectors are made in.")
    ] = "default",
    default_org: Annotated[
        str, typer.Option(envvar="HONEYFRAME_DEFAULT_ORG", help="The org of settings that name none.")
    ] = "default",
    remove: Annotated[
        bool, typer.Option("--remove", help="Take the settings of each connector that is there out of app_config.")
    ] = False,
    dry_run: DryRun = False,
) -> None:
    """Make messaging connectors from the settings notif_* in app_config; their secrets go into the vault.

    Needs: the metadata store and the platform's secret, so it runs in the operator's pod.
    """

    async def work(store: Database, vault: Vault) -> bool:
        report = Report(print)
        await backfill_notifications(
            store,
            vault,
            default_registry(),
            report,
            project=project,
            default_org=default_org,
            dry_run=dry_run,
            remove=remove,
        )
        _sum_up(report, dry_run=dry_run)
        clean = dry_run or not remove or await _leave_no_trace(store, moved=not report.nothing)
        return report.complete and clean

    on_vault(
        work,
        database=database,
        database_file=database_file,
        secret_file=secret_file,
        older_secret_files=older_secret_files,
    )


def export(
    *,
    secret_file: SecretFile,
    older_secret_files: OlderSecretFiles = "",
    database: DatabaseUrl = DEFAULT_DATABASE,
    database_file: DatabaseFile = None,
    everything: Annotated[bool, typer.Option("--all", help="The operator's own rows too.")] = False,
    org: Annotated[str | None, typer.Option(help="Only those of this org.")] = None,
    project: Annotated[str | None, typer.Option(help="Only those of this project.")] = None,
    folder: Annotated[
        Path | None,
        typer.Option("-d", "--directory", help="A new or empty folder: one file a connector, NAMESPACE/NAME.yaml."),
    ] = None,
) -> None:
    """Write rows as manifests: Connectors that adopt them, and Secrets with bullets in place of values.

    To stdout, or a file a connector. No secret is written.

    Needs: the metadata store and the platform's secret, so it runs in the operator's pod.
    """
    if folder is not None and folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        fail(
            f"--directory: {folder} is there and is no empty folder: name a new one, nothing is overwritten",
            WRONG_USAGE,
        )

    async def work(store: Database, vault: Vault) -> bool:
        report = Report(lambda line: print(line, file=sys.stderr) if line.outcome is not Outcome.DONE else None)
        await vault.open()
        async for each in exported(store, vault, default_registry(), Wanted(everything, org, project)):
            _write(each, folder)
            report(each.line)
        print(report.summary, file=sys.stderr)
        return report.complete

    on_vault(
        work,
        database=database,
        database_file=database_file,
        secret_file=secret_file,
        older_secret_files=older_secret_files,
    )


def _write(each: Exported, folder: Path | None) -> None:
    if folder is None:
        sys.stdout.write(each.manifests)
    elif each.manifests:
        path = folder / each.namespace / f"{each.name}.yaml"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(each.manifests, encoding="utf-8")


def _sum_up(report: Report, *, dry_run: bool) -> None:
    print(f"{report.summary}{' (dry run: nothing was changed)' if dry_run else ''}")


def _progress(done: int, total: int) -> None:
    print(f"{done} of {total} rows", file=sys.stderr)


async def _leave_no_trace(store: Database, *, moved: bool) -> bool:
    """See to what was removed and may still be on disk; whether nothing of it is left in a SQLite file."""
    if not store.sqlite:
        if moved:
            print(
                "What was removed stays in dead rows until the tables are written anew, which locks them: "
                "VACUUM FULL honeyframe.data_connectors; VACUUM FULL honeyframe.app_config. It stays in the WAL, in "
                "replicas and in backups of before: rotate what may have been read there.",
                file=sys.stderr,
            )
        return True
    try:
        compact = await store.compact()
    except Waiting:
        compact = False
    if not compact:
        print("The file could not be written anew, for another process uses it: run this again.", file=sys.stderr)
    elif moved:
        print(
            "The file was written anew without what was removed. Backups of before still hold it: rotate what may "
            "have been read there.",
            file=sys.stderr,
        )
    return compact
