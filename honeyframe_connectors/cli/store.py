"""The metadata store and the platform's secret, for an administrator's commands: as the operator's pod has them.

The options are the operator's own, with its environment variables as defaults. A secret is read from a file and never
taken as an argument.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, NoReturn, TypeVar

import typer
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from honeyframe_connectors.errors import Stalled, Waiting
from honeyframe_connectors.store.database import Database
from honeyframe_connectors.vault.keyring import Keyring
from honeyframe_connectors.vault.vault import Vault

T = TypeVar("T")
FAILED = 1
WRONG_USAGE = 2
EXIT_CODES = (
    "Exit codes: 0 all is done; 1 some of it is not (a row failed, or the store cannot be used); 2 wrong usage, or "
    "there is nothing to do it to."
)

DEFAULT_DATABASE = "sqlite:////var/lib/honeyframe/honeyframe.db"
DatabaseUrl = Annotated[
    str,
    typer.Option(
        "--database",
        envvar="HONEYFRAME_DATABASE",
        help="The metadata store, sqlite:///PATH or postgresql://USER@HOST/NAME. A URL with a password belongs in "
        "--database-file.",
    ),
]
DatabaseFile = Annotated[
    Path | None,
    typer.Option(
        "--database-file",
        envvar="HONEYFRAME_DATABASE_FILE",
        help="File that holds the URL of the metadata store; wins over --database.",
    ),
]
SecretFile = Annotated[
    Path,
    typer.Option(
        "--secret-file",
        envvar="HONEYFRAME_SECRET_FILE",
        help="File that holds the platform's JWT secret, or a secret of the vault's own.",
    ),
]
OlderSecretFiles = Annotated[
    str,
    typer.Option(
        "--older-secret-files",
        envvar="HONEYFRAME_OLDER_SECRET_FILES",
        help="Files that hold earlier secrets, comma-separated: they open what they sealed.",
    ),
]


def keyring(secret_file: Path, older_secret_files: str) -> Keyring:
    """The secrets that the options name.

    Raises:
        Stalled: a file cannot be read, or its secret cannot be used.
    """
    older = [Path(each.strip()) for each in older_secret_files.split(",") if each.strip()]
    return Keyring.read(secret_file, older)


def on_store(url: str, file: Path | None, work: Callable[[Database], Awaitable[T]]) -> T:
    """Do something on the metadata store; what cannot be done is a sentence on stderr and an exit code."""

    async def run() -> T:
        database = _database(url, file)
        try:
            return await work(database)
        finally:
            await database.close()

    try:
        return asyncio.run(run())
    except Stalled as error:
        fail(error.message, WRONG_USAGE)
    except Waiting as error:
        fail(error.message, FAILED)


def on_vault(
    work: Callable[[Database, Vault], Awaitable[bool]],
    *,
    database: str,
    database_file: Path | None,
    secret_file: Path,
    older_secret_files: str,
) -> None:
    """Do something on the store and its vault, which the work opens; where it says that some is left, end with 1."""

    async def opened(store: Database) -> bool:
        return await work(store, Vault(store, keyring(secret_file, older_secret_files)))

    if not on_store(database, database_file, opened):
        raise typer.Exit(FAILED)


@contextmanager
def progress(what: str) -> Iterator[Callable[[int, int], None]]:
    """A bar on stderr where that is a terminal; yields what is to be told how far it is."""
    if not sys.stderr.isatty():
        yield lambda _done, _total: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Bar(*columns, console=Console(stderr=True)) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def fail(message: str, code: int) -> NoReturn:
    """End with a sentence on stderr."""
    print(message, file=sys.stderr)
    raise typer.Exit(code)


def _database(url: str, file: Path | None) -> Database:
    if file is not None:
        try:
            database = Database(file.read_text().strip())
        except OSError as error:
            fail(f"--database-file: {file} cannot be read: {error.strerror}", WRONG_USAGE)
    else:
        database = Database(url)
        if database.has_password:
            fail(
                "--database: a password in a flag or variable can be read by others: put the URL in --database-file",
                WRONG_USAGE,
            )
    # A typing error must not make an empty store.
    if database.file is not None and not database.file.is_file():
        fail(f"there is no file {database.file}: correct the path, or start the operator first", WRONG_USAGE)
    return database
