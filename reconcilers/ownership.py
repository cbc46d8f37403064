"""Whose a row is: the one that a Connector had before, one that was handed over or that it adopts, or a new one.

There is no finalizer: what an object had stays in its row for a while, and who comes again finds it.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from honeyframe_connectors.api.kinds import ADOPT_ANNOTATION
from honeyframe_connectors.connector_type import Mark, marked
from honeyframe_connectors.errors import Reason, TryAgain
from honeyframe_connectors.registry import Registry
from honeyframe_connectors.vault.content import config_mac, secret_mac
from honeyframe_connectors.vault.rows import OPERATOR, ConnectorRow, Owner
from reconcilers.adoption import require_adoptable, require_possession
from reconcilers.connector_scope import Scope, required
from reconcilers.deletion import purge_time
from reconcilers.ports import Cluster, Resource
from reconcilers.rows import Rows

R = TypeVar("R", ConnectorRow, ConnectorRow | None)


@dataclass(slots=True)
class Ownership:
    """Finds, makes, takes over and ends rows."""

    rows: Rows
    cluster: Cluster
    registry: Registry
    read_secret: Callable[[Scope], Awaitable[None]]
    """Puts into a scope what the Secret holds."""
    deleted: Callable[[ConnectorRow], None]
    """Told of every row that ends."""

    async def take(self, scope: Scope, owner: Owner, purge_after: timedelta) -> ConnectorRow:
        """The row of a Connector that has none of its own.

        Raises:
            Stalled: `NameConflict`, somebody else has the name or what is to be adopted.
            Waiting: what is to be adopted is not free yet, or a Secret that must show its values is not there.
        """
        spec, type_, resource = required(scope.spec), required(scope.type), scope.resource
        row = await self._found(scope, owner, purge_after)
        if row is not None:
            return row
        if wanted := resource.annotations.get(ADOPT_ANNOTATION):
            return await self._adopt(scope, owner, wanted)
        return await self.rows.create(
            owner,
            name=resource.name,
            display_name=spec.display_name or resource.name,
            type=type_.name,
            category=str(type_.category),
            object_uid=resource.uid,
        )

    async def gone(self, namespace: str, name: str, uid: str | None, moment: float, purge_after: timedelta) -> None:
        """Nothing serves from now on of an object that is not there, or there under another uid."""
        for row in self.rows.open.of(namespace, name):
            # One that was handed over may yet be this object's: it takes it, or ends it, in its reconcile.
            anothers = row.object_uid != uid and (uid is None or row.owner.namespace_uid != "")
            if row.deleted_at is None and anothers:
                await self._end(row, moment, purge_after)

    async def keep_policy(self, row: R, resource: Resource) -> R:
        """The row says what becomes of it, for the object cannot any more when it is gone."""
        policy = resource.spec.get("deletionPolicy", "Delete")
        if row is None or row.deletion_policy == policy:
            return row
        purge_at = None if policy == "Retain" else row.purge_at
        return await self.rows.update(row, deletion_policy=policy, purge_at=purge_at)

    async def _found(self, scope: Scope, owner: Owner, purge_after: timedelta) -> ConnectorRow | None:
        """The row that a Connector of this name had here before, or that was handed over; other rows of it end."""
        resource, type_ = scope.resource, required(scope.type)
        candidates = self.rows.open.of(resource.namespace, resource.name)
        if candidates:
            await self._confirm(resource, owner)
        found = None
        for candidate in candidates:
            handed_over = not candidate.owner.namespace_uid
            same_namespace = candidate.owner.namespace_uid == owner.namespace_uid
            fits = candidate.type == type_.name and (same_namespace or handed_over)
            other = candidate.object_uid != resource.uid if same_namespace else not (handed_over and fits)
            if candidate.deleted_at is None and other:
                candidate = await self._end(candidate, scope.now, purge_after)  # noqa: PLW2901
            if fits and (found is None or _is_later(candidate, found)):
                found = candidate
        if found is None or found.owner.namespace_uid:
            return found
        # A namespace of that name proves nothing: it serves once its Secret shows the values, as one made again does.
        here = replace(found.owner, namespace_uid=owner.namespace_uid)
        changes: dict[str, Any] = {}
        if found.deleted_at is None:
            at = datetime.fromtimestamp(int(scope.now), UTC)
            purge_at = purge_time(found.deletion_policy, at, purge_after=purge_after, halted=True)
            changes = {"deleted_at": at, "purge_at": purge_at}
        return await self.rows.move(found, here, name=found.name, audit="connector.moved", **changes)

    async def _confirm(self, resource: Resource, owner: Owner) -> None:
        """Ask the API server itself before a row changes hands or ends: a watch may be behind.

        Raises:
            TryAgain: the object or its namespace is another by now.
        """
        uid = await self.cluster.uid("Connector", resource.namespace, resource.name)
        if uid != resource.uid or await self.cluster.namespace_uid(resource.namespace) != owner.namespace_uid:
            raise TryAgain(Reason.PROGRESSING, "the object or its namespace is another by now", retry_after=0.5)

    async def _adopt(self, scope: Scope, owner: Owner, wanted: str) -> ConnectorRow:
        """Take over the row that the annotation names."""
        spec, type_, resource = required(scope.spec), required(scope.type), scope.resource
        found = await self.rows.vault.find(wanted)
        row = require_adoptable(found, wanted, owner, type_.name, self.registry)
        await self._confirm(resource, owner)
        await self.read_secret(scope)
        macs: dict[str, str | None] = {}
        if row.serving_version is not None:
            tuning = marked(type_.config, Mark.TUNING)
            served = await self.rows.vault.serving(row, tuning)
            require_possession(row, served.secrets, scope.values)
            if row.managed_by != OPERATOR:
                # As a reconcile makes them of what serves: the same values and config again are no rotation.
                macs = {
                    "config_mac": config_mac(self.rows.vault, row, type_, served.config, served.ca),
                    "secret_mac": secret_mac(self.rows.vault, row, served.secrets),
                }
        return await self.rows.move(
            row,
            owner,
            name=resource.name,
            audit="connector.adopted",
            display_name=spec.display_name or resource.name,
            type=type_.name,
            category=str(type_.category),
            managed_by=OPERATOR,
            object_uid=resource.uid,
            secret_name=spec.secret_ref.name if spec.secret_ref else None,
            deleted_at=None,
            purge_at=None,
            **macs,
        )

    async def _end(self, row: ConnectorRow, moment: float, purge_after: timedelta) -> ConnectorRow:
        """Nothing of it serves from now on; it is purged later, and much later where its CRD went."""
        halted = row.deletion_policy != "Retain" and not await self.cluster.kinds_intact()
        at = datetime.fromtimestamp(int(moment), UTC)
        purge_at = purge_time(row.deletion_policy, at, purge_after=purge_after, halted=halted)
        ended = await self.rows.update(row, deleted_at=at, purge_at=purge_at, audit="connector.deleted")
        self.deleted(ended)
        return ended


def _is_later(row: ConnectorRow, other: ConnectorRow) -> bool:
    """Whether a row is to be preferred: it lives, or died later."""
    if other.deleted_at is None:
        return False
    return row.deleted_at is None or row.deleted_at > other.deleted_at
