"""Whether a Connector may take a row over: it must be whose it says, and hold every secret value that serves."""

import hmac
from collections.abc import Mapping

from honeyframe_connectors.api.kinds import ADOPT_ANNOTATION
from honeyframe_connectors.errors import Reason, Stalled, Waiting
from honeyframe_connectors.registry import Registry
from honeyframe_connectors.vault.rows import OPERATOR, ConnectorRow, Owner

LONGEST_ID = 64


def require_adoptable(
    row: ConnectorRow | None, wanted: str, owner: Owner, type_name: str, registry: Registry
) -> ConnectorRow:
    """The row that a Connector of `owner` and type `type_name` may take over, its secret values apart.

    Raises:
        Stalled: `NameConflict`, it may not.
        Waiting: it may, once its Connector is deleted.
    """
    # Not a word of a row that is somebody else's: ids are no secret, but what hangs on them is.
    if row is not None and _is_of_another_cluster(row, owner):
        raise _refused(
            row,
            f"belongs to cluster {row.owner.cluster_id}: if this cluster takes that one's place, run in the operator's "
            f"pod honeyframe vault claim --from-cluster {row.owner.cluster_id}",
        )
    if row is None or not _may_know(row, owner):
        raise Stalled(
            Reason.NAME_CONFLICT,
            f"{ADOPT_ANNOTATION}: org {owner.org}, project {owner.project} has no connector {wanted[:LONGEST_ID]!r} "
            "to take over: correct the id, or take the annotation away to make a new connector",
        )
    if row.type not in _names(type_name, registry):
        raise _refused(row, f"is of type {row.type}: declare that type, or take the annotation away")
    if row.managed_by == OPERATOR:
        if row.deleted_at is None:
            raise Waiting(
                Reason.PROGRESSING,
                f"connector {row.id} still belongs to Connector {row.name}: "
                f"kubectl -n {owner.project} delete connector {row.name}",
            )
    elif row.serving_version is None or not row.wrapped_keys:
        raise _refused(
            row, "is not in the vault yet: run honeyframe backfill secrets in the operator's pod, which takes it in"
        )
    return row


def require_possession(row: ConnectorRow, served: Mapping[str, bytes], values: Mapping[str, bytes]) -> None:
    """Every secret value that serves is in the Connector's own Secret.

    Raises:
        Stalled: `NameConflict`, some are not; it does not say which.
    """
    same = [hmac.compare_digest(value, values.get(field, b"")) for field, value in served.items()]
    if not all(same):
        raise _refused(
            row,
            f"serves other secret values than the Secret holds (fields {', '.join(sorted(served))}): put the values "
            "that it serves into the Secret first, and rotate afterwards",
        )


def _may_know(row: ConnectorRow, owner: Owner) -> bool:
    if (row.owner.org, row.owner.project) != (owner.org, owner.project):
        return False
    if row.managed_by != OPERATOR:
        return row.deleted_at is None
    return (row.owner.cluster_id, row.owner.namespace_uid) == (owner.cluster_id, owner.namespace_uid)


def _is_of_another_cluster(row: ConnectorRow, owner: Owner) -> bool:
    same_project = (row.owner.org, row.owner.project) == (owner.org, owner.project)
    return same_project and row.managed_by == OPERATOR and row.owner.cluster_id != owner.cluster_id


def _names(type_name: str, registry: Registry) -> set[str]:
    return {type_name, *registry[type_name].aliases}


def _refused(row: ConnectorRow, why: str) -> Stalled:
    return Stalled(Reason.NAME_CONFLICT, f"{ADOPT_ANNOTATION}: connector {row.id} ({row.name}) {why}")
