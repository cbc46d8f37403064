"""Plaintext secrets in the `config` of the platform's rows go into the vault.

Only what is known is touched: rows of unknown types and blobs of another format stay as they are, and so does
everything of a row but its secret values. Each page of rows is one transaction that reads, locks and writes them, so a
run that was interrupted goes on where it was, and an edit in the platform is never overwritten.
"""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import replace
from functools import partial
from typing import Any, Final

from sqlalchemy import Connection, func, select

from honeyframe_connectors.backfill.fields import Split, sealed_fields, split
from honeyframe_connectors.backfill.report import Line, Outcome, Report, Undone, listed, subject
from honeyframe_connectors.connector_type import ConnectorType
from honeyframe_connectors.errors import Stalled
from honeyframe_connectors.registry import Registry
from honeyframe_connectors.store.database import Change, Database, send
from honeyframe_connectors.store.tables import data_connectors
from honeyframe_connectors.vault.cipher import MAGIC
from honeyframe_connectors.vault.rows import OPERATOR
from honeyframe_connectors.vault.vault import Vault

REASON: Final = "taken in from plaintext"
"""Of the version that a backfill makes."""
PAGE: Final = 200
"""Rows that are in memory, and in one transaction, at a time."""
START: Final = ""
"""Sorts before every id."""

_THEIRS = data_connectors.c.managed_by != OPERATOR
_COUNT = select(func.count()).select_from(data_connectors).where(_THEIRS)
_PAGE = select(data_connectors).where(_THEIRS).order_by(data_connectors.c.id).limit(PAGE)


async def backfill_secrets(
    database: Database,
    vault: Vault,
    registry: Registry,
    report: Report,
    *,
    dry_run: bool,
    progress: Callable[[int, int], None] = lambda _done, _all: None,
) -> None:
    """Take the platform's rows in, and report each. `progress` is told how many rows of how many are done.

    A dry run judges every row and keeps nothing, not even a migration.

    Raises:
        Waiting: `VaultUnavailable`; what was reported before is done.
    """
    page = partial(_page, vault=vault, registry=registry)
    done = 0

    def tell(lines: list[Line], total: int) -> None:
        nonlocal done
        for line in lines:
            report(line)
        done += len(lines)
        progress(done, max(done, total))

    def rehearse(connection: Connection) -> None:
        total = _total(connection)
        after: str | None = START
        while after is not None:
            lines, after = page(connection, after=after, write=False)
            tell(lines, total)
        raise Undone

    if dry_run:
        with suppress(Undone):
            await vault.open(rehearse)
        return
    await vault.open()
    total = await database.read(_total)
    after: str | None = START
    while after is not None:
        lines, after = await database.write(partial(page, after=after, write=True))
        tell(lines, total)


def _total(connection: Connection) -> int:
    return connection.scalar(_COUNT) or 0


def _page(
    connection: Connection, *, vault: Vault, registry: Registry, after: str, write: bool
) -> tuple[list[Line], str | None]:
    """Judge one page, and with `write` take it in; the id to go on after, None at the end."""
    statement = _PAGE if after == START else _PAGE.where(data_connectors.c.id > after)
    rows = connection.execute(statement.with_for_update() if write else statement).all()
    lines = []
    changes: list[Change] = []
    for row in rows:
        try:
            type_, found = _judge(row, registry)
        except _Spared as spared:
            lines.append(Line(subject(row), spared.outcome, str(spared)))
            continue
        moved = f"{listed(found.secrets)} moved into the vault" if found.secrets else "in the vault, without secrets"
        lines.append(Line(subject(row), Outcome.DONE, moved))
        if write:
            changes += vault.take_in(row, type_, config=found.config, secrets=found.secrets, reason=REASON)
    send(connection, changes)
    return lines, rows[-1].id if len(rows) == PAGE else None


class _Spared(Exception):
    """A row is not touched."""

    def __init__(self, outcome: Outcome, why: str) -> None:
        super().__init__(why)
        self.outcome = outcome


def _judge(row: Any, registry: Registry) -> tuple[ConnectorType[Any], Split]:
    """The type of a row that is to be taken in, and what of its config goes where.

    Raises:
        _Spared: it is not.
    """
    try:
        type_ = registry.lookup(str(row.type))
    except Stalled:
        raise _Spared(Outcome.LEFT, "its type is not known here") from None
    config = {} if row.config is None else row.config
    if not isinstance(config, Mapping):
        raise _Spared(Outcome.FAILED, "its config is no JSON object: mend it in the platform")
    found = split(config, sealed_fields(type_))
    plaintext = f", and its config holds plaintext beside it: {listed(found.secrets)}" if found.secrets else ""
    if row.wrapped_keys is not None:
        if plaintext:
            raise _Spared(
                Outcome.FAILED,
                f"it is in the vault{plaintext}; take it over with a Connector whose Secret holds these values "
                "(honeyframe export), or remove them in the platform",
            )
        raise _Spared(Outcome.ALREADY, "it is in the vault")
    if row.connection_secrets_enc:
        if row.connection_secrets_enc.startswith(MAGIC):
            raise _Spared(Outcome.FAILED, "its secrets are sealed in our format, but its keys are gone: restore it")
        raise _Spared(Outcome.LEFT, f"its secrets are sealed in a format that is not ours{plaintext}")
    if found.masked:
        raise _Spared(
            Outcome.FAILED, f"{listed(found.masked)} holds bullets instead of a value: write the value in the platform"
        )
    # A null is a field that is not there, and a Connector cannot declare one: adoption would see another config.
    declared = {
        name: value
        for name, value in found.config.items()
        if value is not None or name not in type_.config.model_fields
    }
    return type_, replace(found, config=declared)
