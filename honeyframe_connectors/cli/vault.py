"""The vault's keys: an administrator's commands, run in the operator's pod, beside it or alone."""

import json
import sys
from collections.abc import Sequence
from dataclasses import asdict
from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

import typer

from honeyframe_connectors.api.kinds import now, parse_timestamp, timestamp
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
    progress,
)
from honeyframe_connectors.registry import default_registry
from honeyframe_connectors.store.database import Database
from honeyframe_connectors.vault import rekey as rekeying
from honeyframe_connectors.vault import reset as resetting
from honeyframe_connectors.vault import rewrap as rewrapping
from honeyframe_connectors.vault.vault import Vault

app = typer.Typer(no_args_is_help=True, help=__doc__, epilog=EXIT_CODES)


class Output(StrEnum):
    """The formats of `-o`."""

    TABLE = "table"
    JSON = "json"


Format = Annotated[Output, typer.Option("-o", "--output", help="How the answer is written.")]


@app.command(epilog=EXIT_CODES)
def rewrap(
    secret_file: SecretFile,
    older_secret_files: OlderSecretFiles = "",
    database: DatabaseUrl = DEFAULT_DATABASE,
    database_file: DatabaseFile = None,
    forget_older: Annotated[
        bool,
        typer.Option(
            "--forget-older",
            help="When no connector needs them any more, let no process in that has only an older secret.",
        ),
    ] = False,
    output: Format = Output.TABLE,
) -> None:
    """Wrap every connector's keys under the newest secret. Rotates nothing; run again, it goes on where it was.

    Needs: the metadata store and the platform's secret, so it runs in the operator's pod.
    """

    async def work(store: Database) -> tuple[rewrapping.Rewrapped, list[str]]:
        vault = Vault(store, keyring(secret_file, older_secret_files))
        await vault.open()
        with progress("wrapping keys") as tell:
            result = await rewrapping.rewrap(store, vault.wrapping, tell)
        forgotten = await rewrapping.forget_older(store, vault.wrapping) if forget_older else []
        return result, forgotten

    result, forgotten = on_store(database, database_file, work)
    if output is Output.JSON:
        _write({"done": result.done, "left": result.left, "failed": _all(result.failures), "forgotten": forgotten})
    else:
        print(f"{result.done} connectors were wrapped anew, {result.left} are not under the newest secret")
        for key_id in forgotten:
            print(f"key {key_id} is not let in any more")
    _tell_failures(result.failures)
    if result.left:
        raise typer.Exit(FAILED)


@app.command(epilog=EXIT_CODES)
def rekey(
    secret_file: SecretFile,
    older_secret_files: OlderSecretFiles = "",
    database: DatabaseUrl = DEFAULT_DATABASE,
    database_file: DatabaseFile = None,
    since: Annotated[
        str | None,
        typer.Option(metavar="TIME", help="Go on with a run that began at this time and was interrupted."),
    ] = None,
    output: Format = Output.TABLE,
) -> None:
    """After a leak: other keys for every connector, all versions encrypted anew, and a list of what to rotate.

    Exchange the leaked secret first: the new keys are wrapped under the one in --secret-file.

    Needs: the metadata store and the platform's secret, so it runs in the operator's pod.
    """
    from_ = _moment(since)

    async def work(store: Database) -> rekeying.Rekeyed:
        vault = Vault(store, keyring(secret_file, older_secret_files))
        await vault.open()
        began = timestamp(from_ or now())
        print(f"if this is interrupted, go on with: honeyframe vault rekey --since {began}", file=sys.stderr)
        with progress("encrypting anew") as tell:
            return await rekeying.rekey(store, vault.wrapping, default_registry(), since=from_, progress=tell)

    result = on_store(database, database_file, work)
    if output is Output.JSON:
        exposed = _all(result.to_rotate)
        _write({"done": result.done, "failed": _all(result.failures), "toRotate": exposed})
    else:
        print(f"{result.done} connectors have other keys, {len(result.failures)} failed")
        if result.to_rotate:
            print("Rotate these credentials, on their servers and in their Secrets:")
        for each in result.to_rotate:
            print(f"  {each.project}/{each.name}  {each.type}  {_secret(each)}")
    _tell_failures(result.failures)
    if result.failures:
        raise typer.Exit(FAILED)


@app.command(epilog=EXIT_CODES)
def reset(
    secret_file: SecretFile,
    older_secret_files: OlderSecretFiles = "",
    database: DatabaseUrl = DEFAULT_DATABASE,
    database_file: DatabaseFile = None,
    from_secrets: Annotated[
        bool, typer.Option("--from-secrets", help="Rebuild every Connector from its live Secret, by a check.")
    ] = False,
    yes: Annotated[bool, typer.Option("--yes", help="Do not ask.")] = False,
    output: Format = Output.TABLE,
) -> None:
    """When the vault's secret is lost: begin anew with the one in --secret-file. What cannot be opened is gone.

    Needs: the metadata store and the platform's secret, so it runs in the operator's pod.
    """
    if not from_secrets:
        fail(
            "reset takes every version away that the given secrets do not open, and the live Secrets bring back what "
            "serves: say so with --from-secrets",
            WRONG_USAGE,
        )

    async def work(store: Database) -> list[resetting.Lost]:
        given = keyring(secret_file, older_secret_files)
        await store.open()
        if not yes:
            _confirm(await resetting.lost(store, given))
        return await resetting.reset(store, given)

    gone = on_store(database, database_file, work)
    left = [each for each in gone if not each.rebuilt]
    if output is Output.JSON:
        _write({"reset": _all([each for each in gone if each.rebuilt]), "left": _all(left)})
    else:
        print(f"{len(gone) - len(left)} connectors begin anew; the operator checks each with its live Secret")
        for each in gone:
            print(f"  {each.project}/{each.name}  {_fate(each)}")
    if left:
        raise typer.Exit(FAILED)


def _confirm(gone: Sequence[resetting.Lost]) -> None:
    versions = sum(each.versions for each in gone if each.rebuilt)
    print(
        f"{len(gone)} connectors are under a secret that is not given; {versions} versions of them go for good, and "
        "nothing of theirs serves until the operator has checked their live Secrets.",
        file=sys.stderr,
    )
    if not typer.confirm("Is that secret lost, and shall they begin anew?", err=True):
        fail("nothing was changed", WRONG_USAGE)


def _fate(lost: resetting.Lost) -> str:
    if not lost.rebuilt:
        return "left as it is: the platform keeps it, and no Secret brings it back"
    return f"versions gone: {lost.versions}" + ("; what a rollback held back is tried now" if lost.held else "")


def _secret(exposed: rekeying.Exposed) -> str:
    return f"Secret {exposed.secret_name}" if exposed.secret_name else "kept by the platform, or not served"


def _moment(text: str | None) -> datetime | None:
    found = parse_timestamp(text) if text else None
    if text and found is None:
        fail(f"--since {text}: write a time such as {timestamp(now())}", WRONG_USAGE)
    return found


def _tell_failures(failures: Sequence[rewrapping.Failure]) -> None:
    for each in failures:
        print(f"{each.project}/{each.name} (row {each.connector_id}): {each.error}", file=sys.stderr)


def _all(found: Sequence[Any]) -> list[dict[str, Any]]:
    """As JSON has it: `connector_id` is `connectorId`, and a project is a namespace."""
    names = {"connector_id": "connectorId", "project": "namespace", "secret_name": "secretName"}
    return [{names.get(key, key): value for key, value in asdict(each).items()} for each in found]


def _write(answer: dict[str, Any]) -> None:
    print(json.dumps(answer, indent=2))
