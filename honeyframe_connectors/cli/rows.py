"""`vault claim` and `vault purge`: whose rows are whose, and which go now. Run in the operator's pod."""

import json
import sys
from datetime import timedelta
from typing import Annotated, Any

import typer

from honeyframe_connectors.api.kinds import now, parse_duration, timestamp
from honeyframe_connectors.cli.store import (
    DEFAULT_DATABASE,
    EXIT_CODES,
    FAILED,
    WRONG_USAGE,
    DatabaseFile,
    DatabaseUrl,
    OlderSecretFiles,
    SecretFile,
    fail,
    keyring,
    on_store,
)
from honeyframe_connectors.store.database import Database
from honeyframe_connectors.vault.claim import claim as hand_over
from honeyframe_connectors.vault.claim import claiming_cluster, refuse_while_at_work
from honeyframe_connectors.vault.purge import deleted as deleted_rows
from honeyframe_connectors.vault.purge import purge as purge_rows
from honeyframe_connectors.vault.rows import Deleted
from honeyframe_connectors.vault.vault import Vault

app = typer.Typer(no_args_is_help=True, help=__doc__, epilog=EXIT_CODES)
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]
Output = Annotated[str, typer.Option("-o", "--output", help="table or json.")]


@app.command(epilog=EXIT_CODES)
def claim(
    *,
    from_cluster: Annotated[str, typer.Option("--from-cluster", help="The id of the cluster that is no more.")],
    secret_file: SecretFile,
    to_cluster: Annotated[
        str | None,
        typer.Option(
            "--to-cluster",
            envvar="HONEYFRAME_CLUSTER_ID",
            help="The id of the cluster that takes its place. Default: the only other one whose operator is at work.",
        ),
    ] = None,
    older_secret_files: OlderSecretFiles = "",
    database: DatabaseUrl = DEFAULT_DATABASE,
    database_file: DatabaseFile = None,
    force: Annotated[
        bool, typer.Option("--force", help="Also while the old cluster's operator is at work: it loses its rows.")
    ] = False,
    dry_run: DryRun = False,
    output: Output = "table",
) -> None:
    """Hand the rows of a cluster that is no more to the one that was built from the same Git.

    Rows are matched by the namespace's name, the Connector's name and its type. The exit code is 1 where a row could
    not be handed over.

    Needs: the metadata store and the platform's secret, so it runs in the operator's pod.
    """

    async def run(store: Database) -> list[dict[str, Any]]:
        vault = Vault(store, keyring(secret_file, older_secret_files))
        await vault.open()
        new = await claiming_cluster(store, from_cluster, to_cluster)
        if not force:
            await refuse_while_at_work(store, from_cluster)
        rows = await vault.rows(from_cluster)
        if dry_run:
            return [_claimed(row.owner.project, row.name, row.id, new, "") for row in rows]
        return [
            _claimed(each.row.owner.project, each.row.name, each.row.id, new, each.error)
            async for each in hand_over(vault, rows, new)
        ]

    results = on_store(database, database_file, run)
    kept = sum(bool(each["error"]) for each in results)
    _print(results, output, f"{'would be claimed' if dry_run else 'claimed'}: {len(results) - kept}, not: {kept}")
    raise typer.Exit(FAILED if kept else 0)


@app.command(epilog=EXIT_CODES)
def purge(
    *,
    deleted: Annotated[bool, typer.Option("--deleted", help="Those of Connectors that were deleted; no other goes.")],
    older_than: Annotated[
        str, typer.Option("--older-than", help="Only what was deleted at least this long ago, such as 24h.")
    ] = "0s",
    cluster: Annotated[str | None, typer.Option("--cluster", help="Only rows of the cluster with this id.")] = None,
    retained: Annotated[
        bool, typer.Option("--retained", help="Also those whose Connector had deletionPolicy: Retain.")
    ] = False,
    database: DatabaseUrl = DEFAULT_DATABASE,
    database_file: DatabaseFile = None,
    dry_run: DryRun = False,
    output: Output = "table",
) -> None:
    """Purge rows now, with their history, that would be purged later: nothing brings them back.

    The exit code is 1 where a row changed meanwhile and stayed.

    Needs: the metadata store, so it runs in the operator's pod.
    """
    if not deleted:
        fail("say --deleted: only rows of deleted Connectors are ever purged", WRONG_USAGE)
    age = parse_duration(older_than)
    if age is None:
        fail(f"--older-than: {older_than!r} is no duration: write it as 90m or 24h", WRONG_USAGE)

    def wanted(row: Deleted) -> bool:
        return (cluster is None or row.cluster_id == cluster) and (retained or row.deletion_policy != "Retain")

    async def run(store: Database) -> list[dict[str, Any]]:
        await store.open()
        rows = [row for row in await deleted_rows(store, now() - timedelta(seconds=age)) if wanted(row)]
        gone = rows if dry_run else await purge_rows(store, rows, by="honeyframe vault purge")
        ids = {row.id for row in gone}
        return [_purged(row, "" if row.id in ids else "changed meanwhile") for row in rows]

    results = on_store(database, database_file, run)
    kept = sum(bool(each["error"]) for each in results)
    _print(results, output, f"{'would be purged' if dry_run else 'purged'}: {len(results) - kept}, not: {kept}")
    raise typer.Exit(FAILED if kept else 0)


def _claimed(project: str, name: str, row_id: str, cluster: str, error: str) -> dict[str, Any]:
    return {"connector": f"{project}/{name}", "id": row_id, "cluster": cluster, "error": error}


def _purged(row: Deleted, error: str) -> dict[str, Any]:
    return {
        "connector": f"{row.project}/{row.name}",
        "id": row.id,
        "cluster": row.cluster_id,
        "deleted": timestamp(row.deleted_at),
        "error": error,
    }


def _print(results: list[dict[str, Any]], output: str, summary: str) -> None:
    if output == "json":
        print(json.dumps(results, indent=2))
        return
    for each in results:
        words = [each["connector"], each["id"], *([f"deleted {each['deleted']}"] if "deleted" in each else [])]
        print("  ".join(words) + (f"  not: {each['error']}" if each["error"] else ""))
    print(summary, file=sys.stderr)
