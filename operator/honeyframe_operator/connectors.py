"""Connectors as the controller runs them: what the watches show, added to what the reconciler asks."""

from dataclasses import dataclass

from honeyframe_connectors.api import connector
from honeyframe_operator.cluster import ClusterView
from reconcilers.connector import Connectors
from reconcilers.ports import Resource, Source
from reconcilers.steps import Outcome


@dataclass
class ConnectorBinding:
    """Connectors: settled ones cost nothing after a restart."""

    connectors: Connectors
    cluster: ClusterView
    plural: str = connector.KIND.plural

    def known(self, resource: Resource) -> float | None:
        """Seconds until a settled Connector needs a look; None: reconcile it now."""
        secret, ca = resource.spec.get("secretRef") or {}, resource.spec.get("caRef") or {}
        return self.connectors.known(
            resource,
            self._seen("Secret", resource.namespace, secret.get("name")),
            self._seen(ca.get("kind", "ConfigMap"), resource.namespace, ca.get("name")),
        )

    async def reconcile(self, resource: Resource) -> Outcome:
        """Make it so and say how it went."""
        return await self.connectors.reconcile(resource)

    async def remember(self, resource: Resource, outcome: Outcome) -> None:
        """Note in the row what the written status was made from."""
        await self.connectors.remember(resource, outcome)

    async def gone(self, namespace: str, name: str, uid: str | None) -> None:
        """Stop what serves."""
        await self.connectors.gone(namespace, name, uid)

    def names(self) -> set[tuple[str, str]]:
        """Every Connector that has a row."""
        return self.connectors.ledger.names() if self.connectors.ledger else set()

    def _seen(self, kind: str, namespace: str, name: str | None) -> Source | None:
        return self.cluster.seen(kind, namespace, name) if name else None
