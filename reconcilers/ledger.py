"""The vault's rows of this cluster, kept in memory.

The leader is the only writer, so they are current; where they are not (a restored database, another tool), the
compare-and-set on a row's revision refuses the write and the row is read again.
"""

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping

from honeyframe_connectors.vault.rows import ConnectorRow, VersionInfo


class Ledger:
    """Rows by namespace and name; a name may have had several rows over time."""

    def __init__(
        self, rows: Iterable[ConnectorRow] = (), versions: Mapping[str, tuple[VersionInfo, ...]] | None = None
    ) -> None:
        self._rows: defaultdict[tuple[str, str], dict[str, ConnectorRow]] = defaultdict(dict)
        self._versions = dict(versions or {})
        for row in rows:
            self.put(row)

    def versions(self, row: ConnectorRow) -> tuple[VersionInfo, ...]:
        """What may be shown of the versions that are kept, newest first."""
        return self._versions.get(row.id, ())

    def put_versions(self, row: ConnectorRow, versions: tuple[VersionInfo, ...]) -> None:
        """Keep what there is of versions now."""
        self._versions[row.id] = versions

    def put(self, row: ConnectorRow) -> ConnectorRow:
        """Keep a row as it now is, and return it."""
        self._rows[row.owner.project, row.name][row.id] = row
        return row

    def drop(self, row: ConnectorRow) -> None:
        """Forget a row that is not in the database any more."""
        self._rows[row.owner.project, row.name].pop(row.id, None)
        self._versions.pop(row.id, None)

    def rows(self) -> Iterator[ConnectorRow]:
        """Every row, deleted ones too."""
        for rows in self._rows.values():
            yield from rows.values()

    def of(self, namespace: str, name: str) -> tuple[ConnectorRow, ...]:
        """The rows that a name has or had, live ones first."""
        rows = self._rows.get((namespace, name), {}).values()
        return tuple(sorted(rows, key=lambda row: row.deleted_at is not None))

    def served_from(self, namespace: str, secret: str) -> list[str]:
        """The names of live rows whose serving values came from a Secret."""
        return [
            row.name
            for (project, _), rows in self._rows.items()
            if project == namespace
            for row in rows.values()
            if row.deleted_at is None and row.secret_name == secret
        ]

    def names(self) -> set[tuple[str, str]]:
        """Namespace and name of every row that is not deleted."""
        return {key for key, rows in self._rows.items() if any(row.deleted_at is None for row in rows.values())}
