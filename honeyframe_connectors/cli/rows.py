"""`vault claim` and `vault purge`: whose rows are whose, and which go now. Run in the operator's pod."""

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, NoReturn

import typer

from honeyframe_connectors.api.kinds import now, parse_duration, timestamp
from honeyframe_connectors.errors import ConnectorError
from honeyframe_connectors.store.database import Database
from honeyframe_connectors.vault.claim import claim as hand_over
from honeyframe_connectors.vault.claim import claiming_cluster, refuse_while_at_work
from honeyframe_connectors.vault.keyring import Keyring
from honeyframe_connectors.vault.purge import deleted as deleted_rows
from honeyframe_connectors.vault.purge import purge as purge_rows
from honeyframe_connectors.vault.rows import Deleted
from honeyframe_connectors.vault.vault import Vault

app = typer.Typer(no_args_is_help=True, add_completion=False, help=__doc__, pretty_exceptions_enable=False)
INCOMPLETE = 1
WRONG_INPUT = 2

DatabaseOption = Annotated[
    str, typer.Option("--database", envvar="HONEYFRAME_DATABASE", help="As the operator's --database.")
]
DatabaseFile = Annotated[
    Path | None, typer.Option("--database-file", envvar="HONEYFRAME_DATABASE_FILE", help="Wins over --database.")
]
SecretFile = Annotated[
    Path, typer.Option("--secret-file", envvar="HONEYFRAME_SECRET_FILE", help="As the operator's --secret-file.")
]
OlderSecretFiles = Annotated[
    str,
    typer.Option("--older-secret-files", envvar="HONEYFRAME_OLDER_SECRET_FILES", help="As the operator's; commas."),
]
DryRun = Annotated[bool, typer.Option("--dry-run", help="Say what would be done, and do nothing.")]
Output = Annotated[str, typer.Option("-o", "--output", help="table or json.")]
DEFAULT_DATABASE = "sqlite:////var/lib/honeyframe/honeyframe.db"


@app.command()
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
    database: DatabaseOption = DEFAULT_DATABASE,
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
    secrets = [_read(secret_file), *(_read(Path(each)) for each in older_secret_files.split(",") if each)]

    async def run(store: Database) -> list[dict[str, Any]]:
        vault = Vault(store, Keyring(secrets[0], secrets[1:]))
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

    results = _run(database, database_file, run)
    kept = sum(bool(each["error"]) for each in results)
    _print(results, output, f"{'would be claimed' if dry_run else 'claimed'}: {len(results) - kept}, not: {kept}")
    raise typer.Exit(INCOMPLETE if kept else 0)


@app.command()
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
    database: DatabaseOption = DEFAULT_DATABASE,
    database_file: DatabaseFile = None,
    dry_run: DryRun = False,
    output: Output = "table",
) -> None:
    """Purge rows now, with their history, that would be purged later: nothing brings them back.

    The exit code is 1 where a row changed meanwhile and stayed.

    Needs: the metadata store, so it runs in the operator's pod.
    """
    if not deleted:
        _fail("say --deleted: only rows of deleted Connectors are ever purged")
    age = parse_duration(older_than)
    if age is None:
        _fail(f"--older-than: {older_than!r} is no duration: write it as 90m or 24h")

    def wanted(row: Deleted) -> bool:
        return (cluster is None or row.cluster_id == cluster) and (retained or row.deletion_policy != "Retain")

    async def run(store: Database) -> list[dict[str, Any]]:
        await store.open()
        rows = [row for row in await deleted_rows(store, now() - timedelta(seconds=age)) if wanted(row)]
        gone = rows if dry_run else await purge_rows(store, rows, by="honeyframe vault purge")
        ids = {row.id for row in gone}
        return [_purged(row, "" if row.id in ids else "changed meanwhile") for row in rows]

    results = _run(database, database_file, run)
    kept = sum(bool(each["error"]) for each in results)
    _print(results, output, f"{'would be purged' if dry_run else 'purged'}: {len(results) - kept}, not: {kept}")
    raise typer.Exit(INCOMPLETE if kept else 0)


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


def _run(
    url: str, url_file: Path | None, work: Callable[[Database], Awaitable[list[dict[str, Any]]]]
) -> list[dict[str, Any]]:
    if url_file is None and "@" in url and ":" in url.partition("://")[2].partition("@")[0]:
        _fail("a password in an option can be read by others: put the URL into a file and give --database-file")

    async def opened() -> list[dict[str, Any]]:
        store = Database(_read(url_file).decode() if url_file is not None else url)
        try:
            return await work(store)
        finally:
            await store.close()

    try:
        return asyncio.run(opened())
    except ConnectorError as error:
        _fail(error.message)


def _print(results: list[dict[str, Any]], output: str, summary: str) -> None:
    if output == "json":
        print(json.dumps(results, indent=2))
        return
    for each in results:
        words = [each["connector"], each["id"], *([f"deleted {each['deleted']}"] if "deleted" in each else [])]
        print("  ".join(words) + (f"  not: {each['error']}" if each["error"] else ""))
    print(summary, file=sys.stderr)


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes().strip(b"\n")
    except OSError as error:
        _fail(f"the file {path} cannot be read: {error.strerror}")


def _fail(message: str) -> NoReturn:
    print(message, file=sys.stderr)
    raise typer.Exit(WRONG_INPUT)
