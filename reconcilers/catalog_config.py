"""The reconcile of a CatalogConfig: declare, hold, record."""

import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from typing import Any

from pydantic import ValidationError

from honeyframe_connectors.api.catalog_config import DEFAULT_ADAPTERS, KIND, CatalogConfigSpec
from honeyframe_connectors.api.kinds import (
    LONGEST_TOKEN,
    RECONCILE_ANNOTATION,
    ConditionType,
    parse_timestamp,
    seconds,
    sentences,
)
from honeyframe_connectors.errors import ConnectorError, Reason, Stalled
from honeyframe_connectors.vault.orgs import Orgs
from honeyframe_connectors.vault.rows import OrgRow
from reconcilers.attempts import GRACE, HOURLY
from reconcilers.conditions import conditions
from reconcilers.ports import Cluster, Resource
from reconcilers.steps import Outcome, Report, Step, Verdict, run


@dataclass(slots=True)
class Scope:
    """What the steps of one reconcile learn."""

    resource: Resource
    spec: CatalogConfigSpec | None = None
    org: OrgRow | None = None


@dataclass(slots=True)
class CatalogConfigs:
    """Reconciles CatalogConfigs: what it needs. They are few, so each is reconciled when it is seen."""

    orgs: Orgs
    cluster: Cluster
    fence: Callable[[], None]
    rivals: Callable[[str], Iterable[Resource]]
    """Every CatalogConfig that declares an org, as far as the watch shows them."""
    clock: Callable[[], float] = time.time
    plural: str = KIND.plural
    _holders: set[tuple[str, str]] = field(default_factory=set)
    _waiting_since: dict[str, float] = field(default_factory=dict)

    async def load(self) -> None:
        """Read who holds which org; the vault is open.

        Raises:
            Waiting: the vault cannot be reached.
        """
        holders = [org.holder for org in await self.orgs.all() if org.holder]
        self._holders = {(holder["namespace"], holder["name"]) for holder in holders}

    def names(self) -> set[tuple[str, str]]:
        """Namespace and name of every CatalogConfig that an org's row names."""
        return self._holders

    def known(self, resource: Resource) -> float | None:  # noqa: ARG002 - the same for all
        """None: each is reconciled when it is seen; where nothing changed, nothing is written."""
        return None

    async def remember(self, resource: Resource, outcome: Outcome) -> None:
        """The org's row says it all."""

    async def reconcile(self, resource: Resource) -> Outcome:
        """Make it so, as far as it can be made, and say how it went."""
        scope = Scope(resource)
        steps = (
            Step("declare", ConditionType.CONFIG_VALID, self._declare),
            Step("record", ConditionType.READY, self._record, needs=("declare",)),
        )
        return self._outcome(scope, await run(steps, scope))

    async def gone(self, namespace: str, name: str, uid: str | None) -> None:
        """The org goes back to its default adapters; its engine profile stays."""
        for org in await self.orgs.all():
            holder = org.holder or {}
            if (holder.get("namespace"), holder.get("name")) == (namespace, name) and holder["uid"] != uid:
                self.fence()
                await self.orgs.release(org.name, holder["uid"])

    async def _declare(self, scope: Scope) -> str:
        try:
            spec = scope.spec = CatalogConfigSpec.model_validate(scope.resource.spec)
        except ValidationError as error:
            raise Stalled(Reason.INVALID_CONFIG, sentences(error, "spec")) from None
        instances = [adapter.instance for adapter in spec.adapters]
        twice = sorted({instance for instance in instances if instances.count(instance) > 1})
        if twice:
            raise Stalled(
                Reason.INVALID_CONFIG,
                f"spec.adapters: {', '.join(twice)} is there twice: give each adapter an instanceName of its own",
            )
        owner = self.cluster.owner(scope.resource.namespace)
        if spec.org != owner.org:
            raise Stalled(
                Reason.ORG_MISMATCH,
                f"spec.org is {spec.org}, but namespace {owner.project} belongs to org {owner.org}: "
                f"create this CatalogConfig in a namespace with the label honeyframe.io/org={spec.org}",
            )
        return "the spec is valid"

    async def _record(self, scope: Scope) -> str:
        spec, resource = scope.spec, scope.resource
        if spec is None:
            raise AssertionError("record runs after declare")
        await self._give_way(spec.org, resource)
        self.fence()
        adapters = [adapter.model_dump(by_alias=False, exclude_defaults=True) for adapter in spec.adapters]
        scope.org = await self.orgs.declare(
            spec.org,
            adapters=adapters or DEFAULT_ADAPTERS,
            engine_profile=spec.engine_profile,
            holder={"namespace": resource.namespace, "name": resource.name, "uid": resource.uid},
        )
        return "the org's row holds what is declared"

    async def _give_way(self, org_name: str, resource: Resource) -> None:
        """One CatalogConfig an org: who stands in the org's row, else the oldest."""
        org = await self.orgs.get(org_name)
        holder = (org.holder if org else None) or {}
        if holder.get("uid") == resource.uid:
            return
        if holder and await self.cluster.uid("CatalogConfig", holder["namespace"], holder["name"]) == holder["uid"]:
            raise _conflict(org_name, holder["namespace"], holder["name"])
        mine = _age(resource)
        for rival in self.rivals(org_name):
            if _age(rival) < mine and self.cluster.owner(rival.namespace).org == org_name:
                raise _conflict(org_name, rival.namespace, rival.name)

    def _outcome(self, scope: Scope, report: Report) -> Outcome:
        resource, org, moment = scope.resource, scope.org, self.clock()
        error = report.first_error
        vault_away = report.error(Reason.VAULT_UNAVAILABLE)
        since = self._waiting_since.setdefault(resource.uid, moment)
        if error is None:
            del self._waiting_since[resource.uid]
        status: dict[str, Any] = {"observedGeneration": resource.generation}
        token = resource.annotations.get(RECONCILE_ANNOTATION, "")
        if len(token) <= LONGEST_TOKEN and parse_timestamp(token):
            status["lastHandledReconcileAt"] = token
        if scope.spec is not None:
            status["org"] = scope.spec.org
        if org is not None:
            status["adapterNames"] = ", ".join(one.get("instance_name") or one["adapter"] for one in org.adapters)
            status["engineProfile"] = org.engine_profile
        status["conditions"] = conditions(
            report,
            _verdict(error, young=moment < since + GRACE, org=status.get("org", "")),
            (),
            previous=resource.status.get("conditions", ()),
            generation=resource.generation,
        )
        interval = seconds(scope.spec.interval) if scope.spec else HOURLY
        return Outcome(status, None if vault_away else interval, retry=vault_away)


def _verdict(error: ConnectorError | None, *, young: bool, org: str) -> Verdict:
    if error is None:
        return Verdict("True", Reason.SUCCEEDED, f"the catalog of org {org} is as declared")
    if isinstance(error, Stalled):
        return Verdict("False", error.reason, error.message, ConditionType.STALLED)
    return Verdict("False", error.reason, error.message, ConditionType.RECONCILING if young else None)


def _conflict(org: str, namespace: str, name: str) -> Stalled:
    return Stalled(
        Reason.CONFLICT,
        f"org {org} has its CatalogConfig in {namespace}/{name}: delete one of the two",
    )


def _age(resource: Resource) -> tuple[str, str, str]:
    return (resource.created_at, resource.namespace, resource.name)
