"""The rows of this cluster: read from memory, written through the vault, and only by who leads."""

from collections.abc import Callable, Coroutine, Sequence
from dataclasses import dataclass
from typing import Any

from honeyframe_connectors.api.kinds import now
from honeyframe_connectors.connector_type import ConnectorType, Mark, marked
from honeyframe_connectors.errors import ConnectorError
from honeyframe_connectors.vault.rows import OPERATOR, ConnectorRow, Owner, TestStatus, Version, VersionInfo
from honeyframe_connectors.vault.vault import RowChanged, Vault
from reconcilers.candidate import Candidate
from reconcilers.ledger import Ledger


@dataclass(slots=True)
class Rows:
    """Every write is fenced, and a row that someone else wrote is read again."""

    vault: Vault
    fence: Callable[[], None]
    """Raises when this process must not write any more: it is not the leader."""
    ledger: Ledger | None = None
    cluster_id: str = ""

    async def load(self, cluster_id: str) -> None:
        """Open the vault and read a cluster's rows.

        Raises:
            Waiting: the vault cannot be reached or opened.
        """
        await self.vault.open()
        self.cluster_id = cluster_id
        self.ledger = Ledger(await self.vault.rows(cluster_id), await self.vault.histories(cluster_id))

    @property
    def open(self) -> Ledger:
        """The rows in memory.

        Raises:
            Waiting: `VaultUnavailable`, they were not read yet.
        """
        if self.ledger is None:
            raise self.vault.closed
        return self.ledger

    async def update(self, row: ConnectorRow, **changes: Any) -> ConnectorRow:
        """A row with some fields changed; as `Vault.update`."""
        return await self._written(row, self.vault.update(row, **changes))

    async def move(self, row: ConnectorRow, owner: Owner, *, name: str, audit: str, **changes: Any) -> ConnectorRow:
        """A row under another owner or name; as `Vault.move`."""
        moved = await self._written(row, self.vault.move(row, owner, name=name, audit=audit, **changes))
        if (row.owner.project, row.name) != (moved.owner.project, moved.name):
            self.open.drop(row)
        self.open.put_versions(moved, tuple(await self.vault.history(moved.id)))
        return moved

    async def create(self, owner: Owner, **fields: Any) -> ConnectorRow:
        """A new row; as `Vault.create`."""
        self.fence()
        return self.open.put(await self.vault.create(owner, **fields))

    async def commit(
        self,
        row: ConnectorRow,
        candidate: Candidate,
        *,
        test_status: TestStatus,
        reason: str,
        version_floor: int,
        history_limit: int,
        **changes: Any,
    ) -> ConnectorRow:
        """A candidate as a new version that serves; what the history has no place for goes with it."""
        before, moment = self.open.versions(row), now()
        number = max(row.last_version, version_floor) + 1
        made = VersionInfo(number, moment, test_status, reason, candidate.restored_from, candidate.secret_mac)
        kept = trimmed((made, *before), history_limit)
        changed = await self._written(
            row,
            self.vault.commit(
                row,
                config=candidate.declared,
                tuning=marked(candidate.type.config, Mark.TUNING),
                secrets=candidate.values,
                config_mac=candidate.config_mac,
                secret_mac=candidate.secret_mac,
                ca=candidate.ca,
                test_status=test_status,
                reason=reason,
                restored_from=candidate.restored_from,
                version_floor=version_floor,
                dropped=[version.number for version in before if version not in kept],
                at=moment,
                **changes,
            ),
        )
        self.open.put_versions(changed, kept)
        return changed

    async def version(self, row: ConnectorRow, number: int, type_: ConnectorType[Any]) -> Version | None:
        """A version, opened; as `Vault.version`."""
        try:
            return await self.vault.version(row, number, marked(type_.config, Mark.TUNING))
        except RowChanged:
            await self.read_again(row)
            raise

    async def serving(self, row: ConnectorRow, type_: ConnectorType[Any]) -> Version:
        """The version that serves, opened; as `Vault.version`."""
        version = await self.version(row, row.serving_version or 0, type_)
        if version is None:
            await self.read_again(row)
            raise RowChanged
        return version

    async def read_again(self, row: ConnectorRow) -> None:
        """Someone else wrote it, and may have taken it away from this cluster."""
        fresh = await self.vault.load(row.id)
        self.open.drop(row)
        if fresh is not None and (fresh.owner.cluster_id, fresh.managed_by) == (self.cluster_id, OPERATOR):
            self.open.put(fresh)
            self.open.put_versions(fresh, tuple(await self.vault.history(row.id)))

    async def _written(self, row: ConnectorRow, write: Coroutine[Any, Any, ConnectorRow]) -> ConnectorRow:
        try:
            self.fence()
        except ConnectorError:
            write.close()
            raise
        try:
            written = self.open.put(await write)
        except RowChanged:
            await self.read_again(row)
            raise
        if written.deleted_at is None and written.purge_at is not None:  # it came back
            written = await self.update(written, purge_at=None)
        return written


def trimmed(versions: Sequence[VersionInfo], limit: int) -> tuple[VersionInfo, ...]:
    """The newest version of each of the newest `limit` distinct secret values, of versions that are newest first.

    The first serves and stays whatever the limit; so does the newest that came from the Secret, which a sentinel of
    bullets keeps values of.
    """
    from_secret = next((version for version in versions if version.restored_from is None), None)
    kept: list[VersionInfo] = []
    seen: set[str] = set()
    for version in versions:
        values = version.secret_mac or f"version {version.number}"
        if values not in seen and len(seen) < limit:
            seen.add(values)
            kept.append(version)
        elif version is from_secret:
            kept.append(version)
    return tuple(kept)
