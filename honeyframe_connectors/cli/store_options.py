"""The options of the commands that work on the metadata store, as the operator's own; they run in its pod.

Secrets come by file only: a flag or variable can be read by others.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Annotated, NoReturn

import typer
from sqlalchemy.engine import make_url
from sqlalchemy.exc import ArgumentError

from honeyframe_connectors.errors import ConnectorError, Reason
from honeyframe_connectors.store.database import Database
from honeyframe_connectors.vault.keyring import Keyring
from honeyframe_connectors.vault.vault import Vault

INCOMPLETE = 1
"""Exit code: something could not be done, and was named."""
WRONG_INPUT = 2
"""Exit code: wrong usage; nothing was done."""
DEFAULT_DATABASE = "sqlite:////var/lib/honeyframe/honeyframe.db"

DatabaseUrl = Annotated[
    str,
    typer.Option(
        "--database",
        envvar="HONEYFRAME_DATABASE",
        help="The metadata store, sqlite:///PATH or postgresql://USER@HOST/NAME, without a password.",
    ),
]
DatabaseFile = Annotated[
    Path | None,
    typer.Option(
        "--database-file",
        envvar="HONEYFRAME_DATABASE_FILE",
        help="File that holds the URL of the metadata store, with its password; wins over --database.",
    ),
]
SecretFile = Annotated[
    Path,
    typer.Option("--secret-file", envvar="HONEYFRAME_SECRET_FILE", help="File that holds the platform's JWT secret."),
]
OlderSecretFiles = Annotated[
    str,
    typer.Option(
        "--older-secret-files",
        envvar="HONEYFRAME_OLDER_SECRET_FILES",
        help="Files that hold earlier secrets, comma-separated.",
    ),
]


def run(
    work: Callable[[Database, Vault], Awaitable[bool]],
    *,
    database: str,
    database_file: Path | None,
    secret_file: Path,
    older_secret_files: str,
) -> None:
    """Do some work on the store and its vault, which the work opens; exit with 1 where it says that some is left.

    Raises:
        Exit: 1 where the store or vault cannot be used or work is left, 2 where an option is wrong.
    """
    url = _url(database, database_file)
    older = [Path(each.strip()) for each in older_secret_files.split(",") if each.strip()]

    async def opened() -> bool:
        store = Database(url)
        try:
            return await work(store, Vault(store, Keyring(_read(secret_file), [_read(path) for path in older])))
        finally:
            await store.close()

    try:
        complete = asyncio.run(opened())
    except ConnectorError as error:
        fail(error.message, WRONG_INPUT if error.reason is Reason.INVALID_CONFIG else INCOMPLETE)
    if not complete:
        raise typer.Exit(INCOMPLETE)


def fail(message: str, code: int = WRONG_INPUT) -> NoReturn:
    """Say what is wrong, and end.

    Raises:
        Exit: always.
    """
    print(message, file=sys.stderr)
    raise typer.Exit(code)


def _url(text: str, file: Path | None) -> str:
    """The URL of a store that is there: a typing error must not make an empty one."""
    option = "--database" if file is None else "--database-file"
    text = _read(file).decode(errors="replace").strip() if file is not None else text or DEFAULT_DATABASE
    try:
        url = make_url(text)
    except (ArgumentError, ValueError):
        fail(f"{option}: it is no URL: write sqlite:///PATH or postgresql://USER@HOST/NAME")
    if file is None and (url.password is not None or "password" in url.query):
        fail(f"{option}: a password in a flag or variable can be read by others: put the URL in --database-file")
    if url.get_backend_name() == "sqlite" and not Path(url.database or "").is_file():
        fail(f"{option}: there is no file {url.database}: correct the path, or start the operator first")
    return text


def _read(path: Path) -> bytes:
    try:
        return path.read_bytes().strip(b"\n")
    except OSError as error:
        fail(f"the file {path} cannot be read: {error.strerror}")
