"""The reconcile of a Connector: declare, own, read, merge, accept, check.

A content (config, secret values, CA) is tried before it serves: what works goes on until something better was
accepted. What a reconcile decides from stands in the row, so that a restart finds everything as it was.
"""

import hashlib
import random
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from pydantic import ValidationError

from honeyframe_connectors.api.connector import ConnectorSpec
from honeyframe_connectors.api.kinds import (
    LONGEST_TOKEN,
    RECONCILE_ANNOTATION,
    ConditionType,
    parse_timestamp,
    seconds,
    sentences,
)
from honeyframe_connectors.connector_type import CheckResult, ConnectorType, Mark, marked, merge
from honeyframe_connectors.errors import Reason, Stalled, TryAgain, Unanswered, Waiting
from honeyframe_connectors.probe import Gate
from honeyframe_connectors.registry import Registry
from honeyframe_connectors.secret_targets import require_allowed
from honeyframe_connectors.targets import Targets
from honeyframe_connectors.vault.content import config_mac, secret_mac
from honeyframe_connectors.vault.rows import ConnectorRow
from honeyframe_connectors.vault.vault import RowChanged, Vault
from reconcilers import attempts, connector_status, references, restart
from reconcilers.attempts import Pending
from reconcilers.checks import Checks
from reconcilers.conditions import conditions
from reconcilers.connector_scope import Memory, Scope, required
from reconcilers.connector_usage import UsageBoard
from reconcilers.digests import applied, canonical, status_digest
from reconcilers.ledger import Ledger
from reconcilers.logins import Logins
from reconcilers.ownership import Ownership
from reconcilers.ports import Cluster, Resource, Source
from reconcilers.restart import matches
from reconcilers.rollback import Rollback, asked, latest
from reconcilers.rotation import Rotation, held_back, may_force
from reconcilers.rows import Rows
from reconcilers.secret_values import certificates, nothing_to_keep, pick, sentinels, unlabelled
from reconcilers.steps import Outcome, Report, Step, Unreached, Verdict, run

DAILY = 86400.0
"""Seconds after which everything is looked at in full: a restored etcd rewinds versions."""


@dataclass(slots=True)
class Connectors:
    """Reconciles Connectors: what it needs, and what it keeps."""

    registry: Registry
    vault: Vault
    cluster: Cluster
    logins: Logins
    targets: Targets
    gate: Gate
    fence: Callable[[], None]
    """Raises when this process must not write any more: it is not the leader."""
    flags: str
    """The operator's flags that a reconcile depends on, canonical."""
    secret_opt_in: bool = True
    probed: Callable[[str, CheckResult], None] = lambda _type, _result: None
    """Told of every check: the type's name, and how it went."""
    committed: Callable[[str], None] = lambda _type: None
    """Told of every version that was made: the type's name."""
    usage: UsageBoard = field(default_factory=UsageBoard)
    purge_after: timedelta = timedelta(hours=24)
    """How long a deleted row is kept."""
    went: Callable[[ConnectorRow], None] = lambda _row: None
    """Told of every row that was deleted."""
    clock: Callable[[], float] = time.time
    _rows: Rows = field(init=False)
    _checks: Checks = field(init=False)
    _ownership: Ownership = field(init=False)
    _rotation: Rotation = field(init=False)
    _rollback: Rollback = field(init=False)
    _memories: dict[str, Memory] = field(default_factory=dict)
    _fingerprints: dict[tuple[str, str], str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self._rows = Rows(self.vault, self.fence)
        self._checks = Checks(self.logins, self.targets, self.gate, self.probed)
        self._ownership = Ownership(self._rows, self.cluster, self.registry, self._read_secret, self._deleted)
        self._rotation = Rotation(self._rows, self._checks, self.committed)
        self._rollback = Rollback(self._rotation, self.registry)

    @property
    def ledger(self) -> Ledger | None:
        """The rows in memory; None while the vault is not open, or somebody else leads."""
        return self._rows.ledger

    def unload(self) -> None:
        """Forget the rows: somebody else may write them now."""
        self._rows.ledger = None

    async def load(self, cluster_id: str) -> None:
        """Open the vault and read this cluster's rows.

        Raises:
            Waiting: the vault cannot be reached or opened.
        """
        await self.vault.open()
        await self.logins.load()
        await self._rows.load(cluster_id)

    def known(self, resource: Resource, secret: Source | None, ca: Source | None) -> float | None:
        """Seconds until a settled object needs a look, or None where it must be reconciled now.

        `secret` and `ca` are what the watches show of the objects that the spec names.
        """
        row = self._live_row(resource)
        if row is None or not row.observed:
            return None
        try:
            fingerprint = self._fingerprint(row.type, row.owner.org, resource.namespace)
        except TryAgain:  # the namespace is not known: the reconcile says so
            return None
        if self.usage.differs(row.id, resource.status) or not matches(row.observed, resource, secret, ca, fingerprint):
            return None
        if self._new_token(resource, row) is not None or asked(resource, row) is not None:
            return None
        pending = Pending.load(row.pending)
        if pending is not None and may_force(resource, pending):
            return None
        moment = self.clock()
        memory = self._memory(resource, moment)
        wake = row.observed.get("wake")
        delay = min(memory.next_check, memory.next_full) - moment
        return max(0.0, min(delay, wake - moment) if wake else delay)

    async def reconcile(self, resource: Resource) -> Outcome:
        """Make it so, as far as it can be made, and say how it went."""
        moment = self.clock()
        scope = Scope(resource, self._memory(resource, moment), moment, None)
        scope.row = self._live_row(resource)
        scope.token = self._new_token(resource, scope.row)
        scope.rollback = asked(resource, scope.row)
        suspended = resource.spec.get("suspend") is True
        report, full = Report(), not suspended
        try:
            if suspended:
                await self.gone(resource.namespace, resource.name, resource.uid)
            scope.row = await self._ownership.keep_policy(scope.row, resource)
            await self._keep_numbers(scope)
            await self._revoke(scope)
            if suspended:
                return await self._suspended(scope)
            full = not await self._settled(scope)
            report = await run(self._full() if full else self._tick(), scope)
            if full and not report.error(Reason.VAULT_UNAVAILABLE):
                await self._note_pending(scope, report)
                scope.memory.next_full = moment + DAILY * random.uniform(0.9, 1.1)  # noqa: S311 - jitter
            await self._let_in_pending(scope, report)
        except TryAgain:
            raise
        except Waiting as unavailable:  # the store does not take what the steps found
            report.errors.setdefault(ConditionType.READY, unavailable)
        return self._outcome(scope, report, full=full)

    async def remember(self, resource: Resource, outcome: Outcome) -> None:
        """Note in the row what this status was made from, once it is written."""
        row = self._live_row(resource)
        if row is None or not outcome.observed:
            return
        observed = {**outcome.observed, "status": status_digest(resource.status)}
        if row.observed != observed:
            await self._update(row, observed=observed)

    async def gone(self, namespace: str, name: str, uid: str | None) -> None:
        """Stop what serves of an object that is surely not there, or there under another uid; its rows stay a while."""
        await self._ownership.gone(namespace, name, uid, self.clock(), self.purge_after)

    async def keep_until(self, row: ConnectorRow, moment: datetime) -> ConnectorRow:
        """A deleted row, to be purged at another moment."""
        return await self._update(row, purge_at=moment)

    async def refresh(self, row: ConnectorRow) -> None:
        """Read a row again that was written by somebody else."""
        await self._rows.read_again(row)

    def served_from(self, namespace: str, secret: str) -> list[str]:
        """The names of the Connectors whose serving values came from a Secret."""
        return self.ledger.served_from(namespace, secret) if self.ledger else []

    # --- steps ---------------------------------------------------------------------------------------------------

    async def _declare(self, scope: Scope) -> str:
        """The spec can be read, its type is known, its driver is there."""
        spec = scope.spec = _parse(scope.resource.spec)
        name, block = next(iter(spec.config.items()))
        scope.type = self.registry.lookup(name)
        scope.declared = block
        self._checks.require_driver(scope.type)
        if spec.secret_ref is None and scope.type.secret_required:
            raise Stalled(
                Reason.INVALID_CONFIG, f"type {name} needs a secret: name the Secret that holds it in spec.secretRef"
            )
        return "the spec is valid"

    async def _own(self, scope: Scope) -> str:
        """The Connector has a row of its own."""
        resource = scope.resource
        owner = scope.owner = self.cluster.owner(resource.namespace)
        row = self._live_row(resource)
        if row is None or (row.owner.namespace_uid, row.type) != (owner.namespace_uid, required(scope.type).name):
            row = await self._ownership.take(scope, owner, self.purge_after)
        scope.row = row = await self._ownership.keep_policy(row, resource)
        await self._require_open(row)
        await self._keep_numbers(scope)
        if row.owner.org != owner.org:
            raise Stalled(
                Reason.ORG_MISMATCH,
                f"namespace {resource.namespace} belongs to org {owner.org}, this Connector to org {row.owner.org}: "
                f"put the label honeyframe.io/org={row.owner.org} back on the namespace, or create the Connector anew",
            )
        return row.id

    async def _read(self, scope: Scope) -> str:
        """The Secret and the CA are there and may be used."""
        await self._read_secret(scope)
        await self._fill_in_kept(scope)
        if required(scope.spec).ca_ref is not None:
            scope.ca = await self._read_ca(scope)
        return "the Secret can be read"

    async def _read_secret(self, scope: Scope) -> None:
        """What the Secret holds, bullets and all."""
        spec, type_ = required(scope.spec), required(scope.type)
        if spec.secret_ref is not None:
            namespace, name = scope.resource.namespace, spec.secret_ref.name
            content = await references.read_secret(self.cluster, namespace, name)
            scope.secret = content.source
            if not self._opted_in(content.source):
                raise unlabelled("Secret", namespace, name)
            scope.values = pick(type_, spec.secret_ref.keys, content.data, name)

    async def _merge(self, scope: Scope) -> str:
        """Config and secret values make a whole that the type can use."""
        type_, row = required(scope.type), required(scope.row)
        scope.config_mac = config_mac(self.vault, row, type_, scope.declared, scope.ca)
        scope.secret_mac = secret_mac(self.vault, row, scope.values)
        scope.config = merge(type_, scope.declared, scope.values)
        return "config and secret values fit the type"

    async def _accept(self, scope: Scope) -> str:
        """What is declared serves: it did already, or it passed a check and was committed."""
        scope.row = await self._found_again(scope, required(scope.row))
        return await self._rotation.accept(scope)

    async def _roll_back(self, scope: Scope) -> str:
        """A version is brought back, where somebody asked for it."""
        return await self._rollback.run(scope)

    async def _check(self, scope: Scope) -> str:
        """What serves works."""
        memory, row = scope.memory, scope.row
        if row is None or not scope.serves:
            raise Unreached(Reason.PROGRESSING, "nothing serves yet")
        type_ = self.registry[row.type]
        if scope.result is None and scope.now < memory.next_check and scope.token is None:
            if memory.error is not None:
                raise memory.error
            return _healthy(type_)
        memory.next_check = scope.now + self._check_interval(scope)
        try:
            memory.error = (scope.result or await self._check_serving(scope, row, type_)).error
        except Stalled as error:  # it cannot even be tried: no driver, or a config that this release does not take
            memory.error = error
        if memory.error is not None:
            memory.failures += 1
            raise memory.error
        memory.failures = 0
        if row.forced:
            scope.row = await self._update(row, forced=False, audit="connector.proven")
        return _healthy(type_)

    def _full(self) -> tuple[Step[Scope], ...]:
        return (
            Step("declare", ConditionType.CONFIG_VALID, self._declare),
            Step("own", ConditionType.READY, self._own, needs=("declare",)),
            Step("read", ConditionType.CREDENTIALS_IN_SYNC, self._read, needs=("own",)),
            Step("merge", ConditionType.CONFIG_VALID, self._merge, needs=("read",)),
            Step("roll back", ConditionType.READY, self._roll_back, needs=("own",)),
            Step("accept", ConditionType.CREDENTIALS_IN_SYNC, self._accept, needs=("read",)),
            *self._tick(),
        )

    def _tick(self) -> tuple[Step[Scope], ...]:
        return (Step("check", ConditionType.HEALTHY, self._check),)

    # --- what the steps share ------------------------------------------------------------------------------------

    async def _require_open(self, row: ConnectorRow) -> None:
        """The row opens; where it does not, it is read again: it may have been mended since."""
        if not self.vault.opens(row):
            await self._rows.read_again(row)
            raise RowChanged

    async def _keep_numbers(self, scope: Scope) -> None:
        """No number is used twice: a status may know of a version that a restored database does not."""
        row, shown = scope.row, scope.resource.status.get("servedVersion")
        if row is not None and isinstance(shown, int) and shown > row.last_version:
            scope.row = await self._update(row, last_version=shown)

    async def _check_serving(self, scope: Scope, row: ConnectorRow, type_: ConnectorType[Any]) -> CheckResult:
        self._checks.require_driver(type_)
        version = await self._rows.serving(row, type_)
        config = merge(type_, version.config, version.secrets)
        scope.result = await self._checks.check(scope, type_, config, version.ca, known_good=True)
        if scope.result.error is not None and scope.result.error.reason == Reason.AUTHENTICATION_FAILED:
            scope.turned_away_at = self.logins.refused_at(row.owner.namespace_uid, type_, config)
        return scope.result

    async def _read_ca(self, scope: Scope) -> bytes:
        ref, namespace = required(required(scope.spec).ca_ref), scope.resource.namespace
        content = await references.read_ca(self.cluster, namespace, ref)
        scope.ca_source = content.source
        if not self._opted_in(content.source):
            raise unlabelled(ref.kind, namespace, ref.name)
        return certificates(content.data, ref.kind, ref.name, ref.key)

    async def _fill_in_kept(self, scope: Scope) -> None:
        """Where the Secret holds only bullets, the value of the newest version that came from it is kept."""
        type_, row, spec = required(scope.type), required(scope.row), required(scope.spec)
        bullets = sentinels(scope.values)
        if not bullets:
            return
        versions = self._rows.open.versions(row)
        newest = next((each.number for each in versions if each.restored_from is None), None)
        scope.kept = await self._rows.version(row, newest, type_) if newest is not None else None
        kept = scope.kept.secrets if scope.kept is not None else {}
        for name in sorted(bullets - kept.keys()):
            scope.values = {}
            raise nothing_to_keep(required(spec.secret_ref).name, name)
        scope.values = {**scope.values, **{name: kept[name] for name in bullets}}

    async def _revoke(self, scope: Scope) -> None:
        """Its owner takes a Secret back, by taking the label away or naming other targets, whatever the spec says."""
        row = scope.row
        if row is None or row.deleted_at is not None or row.serving_version is None or row.secret_name is None:
            return
        source = await self.cluster.source("Secret", scope.resource.namespace, row.secret_name)
        if source is None:
            return
        if not self._opted_in(source):
            scope.revoked_by = unlabelled("Secret", scope.resource.namespace, row.secret_name)
        elif source.targets is not None:
            try:
                require_allowed(source.targets, await self._serving_endpoints(scope, row), row.secret_name)
            except Stalled as error:
                scope.revoked_by = error
        if scope.revoked_by is not None and not row.revoked:
            scope.row = await self._update(row, revoked=True, audit="connector.revoked")

    async def _serving_endpoints(self, scope: Scope, row: ConnectorRow) -> tuple[tuple[str, int], ...]:
        memory, type_ = scope.memory, self.registry[row.type]
        if memory.endpoints is None or memory.endpoints[0] != row.serving_version:
            version = await self._rows.serving(row, type_)
            memory.endpoints = (version.number, type_.endpoints(merge(type_, version.config, version.secrets)))
        return memory.endpoints[1]

    async def _found_again(self, scope: Scope, row: ConnectorRow) -> ConnectorRow:
        """A Connector made again serves as before once its Secret shows the values that the row saw last."""
        if row.deleted_at is None or row.serving_version is None or row.config_mac != scope.config_mac:
            return row
        if scope.secret_mac != (row.observed or {}).get("seen", row.secret_mac):
            return row
        return await self._update(row, deleted_at=None, object_uid=scope.resource.uid, audit="connector.found")

    def _deleted(self, row: ConnectorRow) -> None:
        self._memories.pop(row.object_uid, None)
        self.went(row)

    async def _update(self, row: ConnectorRow, **changes: Any) -> ConnectorRow:
        return await self._rows.update(row, **changes)

    def _check_interval(self, scope: Scope) -> float:
        pending = Pending.load(scope.row.pending) if scope.row else None
        if pending is not None and pending.kind == "refused" and pending.young(scope.now):
            return attempts.WATCHED_WHILE_REFUSED
        return scope.interval or float("inf")

    # --- what is pending -----------------------------------------------------------------------------------------

    async def _note_pending(self, scope: Scope, report: Report) -> None:
        """Keep in the row what is wanting, since when, and when it is tried again."""
        row = scope.row
        if row is None or ConditionType.READY in report.errors:
            return
        error = report.errors.get(ConditionType.CONFIG_VALID) or report.errors.get(ConditionType.CREDENTIALS_IN_SYNC)
        stored = Pending.load(row.pending)
        previous, current = scope.memory.pending or stored, None
        # What a rollback holds back is not tried by anything, so nothing of it is pending.
        if error is not None and error.reason != Reason.ROTATION_HELD:
            current = attempts.wanting(
                previous,
                error,
                content=scope.candidate.content if scope.candidate else str(error.reason),
                generation=scope.resource.generation,
                interval=scope.interval,
                now=scope.now,
                tried=scope.tried,
                by_token=scope.token is not None,
                again_at=scope.again_at,
            )
        if current != stored:
            scope.memory.pending = current
            refused = current is not None and current.kind == "refused" and (not stored or stored.kind != "refused")
            scope.row = await self._update(
                row,
                pending=current.dump() if current else None,
                audit="connector.refused" if refused else None,
            )
        scope.memory.pending = None
        self._speak_of_the_config(scope, report)

    def _speak_of_the_config(self, scope: Scope, report: Report) -> None:
        """Where the values that serve are the Secret's, what did not pass is the config: Ready says so, alone."""
        row = required(scope.row)
        error, candidate = report.errors.get(ConditionType.CREDENTIALS_IN_SYNC), scope.candidate
        if error is None or error.reason == Reason.ROTATION_HELD or candidate is None or not scope.serves:
            return
        if candidate.secret_mac == row.secret_mac:
            report.errors[ConditionType.READY] = report.errors.pop(ConditionType.CREDENTIALS_IN_SYNC)
            if row.held is not None:
                report.errors[ConditionType.CREDENTIALS_IN_SYNC] = held_back(row)
            else:
                report.messages[ConditionType.CREDENTIALS_IN_SYNC] = f"version {row.serving_version} holds them"

    async def _let_in_pending(self, scope: Scope, report: Report) -> None:
        """When what serves is turned away for the first time, what was refused may be right by now."""
        error, row = report.errors.get(ConditionType.HEALTHY), scope.row
        if error is None or row is None or error.reason != Reason.AUTHENTICATION_FAILED or scope.memory.failures != 1:
            return
        pending = Pending.load(row.pending)
        if scope.result is not None and pending is not None and pending.kind == "refused":
            since = min(scope.now, scope.turned_away_at or scope.now)
            scope.row = await self._update(row, pending=attempts.at_once(pending, since).dump())

    # --- what is said ----------------------------------------------------------------------------------------------

    def _outcome(self, scope: Scope, report: Report, *, full: bool) -> Outcome:
        resource, row, memory = scope.resource, scope.row, scope.memory
        previous = resource.status
        unavailable = report.error(Reason.VAULT_UNAVAILABLE)
        memory.unavailable_since = (memory.unavailable_since or scope.now) if unavailable else None
        pending = Pending.load(row.pending) if row else None
        serving = row.serving_version if row and scope.serves else None
        threshold = scope.spec.failure_threshold if scope.spec else 1
        judged = connector_status.verdict(
            report,
            pending=pending,
            serving_version=serving,
            title=self.registry[row.type].title if row else "",
            declared_serves=row is not None and self._declared_serves(scope, row),
            failures=memory.failures,
            failure_threshold=threshold,
            forced=row is not None and row.forced,
            unavailable_since=memory.unavailable_since,
            moment=scope.now,
        )
        kept = () if full else (ConditionType.CONFIG_VALID, ConditionType.CREDENTIALS_IN_SYNC, ConditionType.HEALTHY)
        status: dict[str, Any] = {"observedGeneration": resource.generation}
        if unavailable:
            carried = (
                "connectorId",
                "servedVersion",
                "type",
                "category",
                "queryable",
                "credentials",
                "health",
                "usage",
            )
            status |= {key: previous[key] for key in carried if key in previous}
        token = scope.token if full and not unavailable else previous.get("lastHandledReconcileAt")
        if token := token or previous.get("lastHandledReconcileAt"):
            status["lastHandledReconcileAt"] = token
        handled = latest(previous.get("lastHandledRollbackAt"), row.handled_rollback_at if row else None)
        if handled is not None:
            status["lastHandledRollbackAt"] = handled
        type_ = scope.type or (self.registry[row.type] if row else None)
        if type_ is not None and not unavailable:
            status |= connector_status.describe(type_)
        if row is not None and not unavailable:
            status |= self._facts(scope, row, pending, serving, threshold)
        status["conditions"] = conditions(
            report, judged, kept, previous=previous.get("conditions", ()), generation=resource.generation
        )
        if unavailable:
            return Outcome(status, None, news=scope.news, retry=unavailable)
        observed: Mapping[str, Any] = {}
        if row is not None and row.deleted_at is None:
            observed = row.observed or {}
            if full:
                fingerprint = self._fingerprint(row.type, row.owner.org, resource.namespace)
                observed = restart.observed(scope, observed, pending, fingerprint)
        return Outcome(status, self._next_look(scope, pending, judged), observed, news=scope.news)

    def _facts(
        self, scope: Scope, row: ConnectorRow, pending: Pending | None, serving: int | None, threshold: int
    ) -> dict[str, Any]:
        previous = scope.resource.status
        facts: dict[str, Any] = {"connectorId": row.id, **self.usage.shown(row.id, previous)}
        if serving is not None:
            facts["servedVersion"] = serving
        facts["credentials"] = connector_status.credentials(
            row,
            serves=scope.serves,
            pending=pending,
            versions=self._rows.open.versions(row),
        )
        if serving is not None:
            health = connector_status.health(
                previous.get("health"),
                scope.result,
                failures=scope.memory.failures,
                failure_threshold=threshold,
                same_version=previous.get("servedVersion") == serving,
            )
            if health is not None:
                facts["health"] = health
        return facts

    def _declared_serves(self, scope: Scope, row: ConnectorRow) -> bool:
        """Whether the config that serves is the declared one, its CA's content included where that was read."""
        if scope.config_mac:
            return scope.config_mac == row.config_mac
        if scope.spec is None:
            return False
        tuning = marked(self.registry[row.type].config, Mark.TUNING)
        (declared,) = scope.spec.config.values()
        return _untuned(declared, tuning) == _untuned(row.config, tuning)

    def _next_look(self, scope: Scope, pending: Pending | None, judged: Verdict) -> float | None:
        moments = [scope.memory.next_full]
        if scope.serves:
            moments.append(scope.memory.next_check)
        if pending is not None:
            moments += [moment for moment in (pending.next_at,) if moment is not None]
            if pending.young(scope.now):
                moments.append(pending.since + attempts.GRACE)
        if judged.ready == "False" and (pending is None or pending.next_at is None):
            moments.append(scope.now + (scope.interval or attempts.HOURLY))
        return max(0.0, min(moments) - scope.now)

    async def _suspended(self, scope: Scope) -> Outcome:
        """Nothing is checked or changed; what serves goes on."""
        resource, row = scope.resource, scope.row
        if row is not None:
            await self._require_open(row)
        previous = resource.status
        status = {**previous, "observedGeneration": resource.generation}
        if row is not None:
            status.pop("usage", None)
            status |= self.usage.shown(row.id, previous)
        named = next(iter(resource.spec.get("config") or {}), "")
        if named in self.registry:
            status |= connector_status.describe(self.registry[named])
        if row is not None:  # a crash may have come between a commit and the status that tells of it
            status.pop("servedVersion", None)
            serving = row.serving_version if scope.serves else None
            pending = Pending.load(row.pending) if not row.revoked else None
            status |= self._facts(scope, row, pending, serving, threshold=1)
        report = Report()
        looked_at = tuple(ConditionType)
        if row is not None and row.revoked and scope.revoked_by is not None:
            error = scope.revoked_by
            judged = Verdict("False", error.reason, error.message, ConditionType.STALLED)
        elif row is not None and (row.observed or {}).get("applied") == applied(resource.spec):
            ready = _condition(previous, ConditionType.READY)
            judged = Verdict(ready["status"], _reason(ready), ready["message"]) if ready else _SUSPENDED
            if judged.reason is Reason.VAULT_UNAVAILABLE and scope.serves:  # it was, and what serves is known again
                judged = Verdict("True", Reason.SUCCEEDED, f"version {row.serving_version} serves")
        else:
            judged = _SUSPENDED
        status["conditions"] = conditions(
            report, judged, looked_at, previous=previous.get("conditions", ()), generation=resource.generation
        )
        observed = (
            {**row.observed, "uid": resource.uid, "generation": resource.generation} if row and row.observed else {}
        )
        return Outcome(status, None, observed)

    # --- a restart costs nothing -----------------------------------------------------------------------------------

    async def _settled(self, scope: Scope) -> bool:
        """Whether nothing that the row was made from has changed, and nothing is due but the check of what serves."""
        row, resource = scope.row, scope.resource
        if row is None or not row.observed or scope.now >= scope.memory.next_full:
            return False
        if scope.token is not None or scope.rollback is not None:
            return False
        if scope.memory.pending is not None:
            return False
        pending = Pending.load(row.pending)
        if pending is not None and (pending.due(scope.now) or pending.next_at is None or may_force(resource, pending)):
            return False
        try:
            scope.spec = _parse(resource.spec)
        except Stalled:
            return False
        secret, ca = scope.spec.secret_ref, scope.spec.ca_ref
        namespace = resource.namespace
        scope.secret = await self.cluster.source("Secret", namespace, secret.name) if secret else None
        scope.ca_source = await self.cluster.source(ca.kind, namespace, ca.name) if ca else None
        fingerprint = self._fingerprint(row.type, row.owner.org, namespace)
        return matches(row.observed, resource, scope.secret, scope.ca_source, fingerprint)

    def _fingerprint(self, type_name: str, org: str, namespace: str) -> str:
        """Everything else that a reconcile depends on; another one makes its Connectors be looked at again."""
        current_org = self.cluster.owner(namespace).org
        key = (type_name, f"{org}/{current_org}")
        if key not in self._fingerprints:
            type_ = self.registry[type_name]
            source = [self.flags, *key, self.vault.key_id, type_.driver_version()]
            digest = hashlib.sha256(canonical(source) + type_.schema_digest_source())
            self._fingerprints[key] = digest.hexdigest()[:32]
        return self._fingerprints[key]

    def _live_row(self, resource: Resource) -> ConnectorRow | None:
        rows = self.ledger.of(resource.namespace, resource.name) if self.ledger else ()
        return next((row for row in rows if row.deleted_at is None and row.object_uid == resource.uid), None)

    def _new_token(self, resource: Resource, row: ConnectorRow | None) -> str | None:
        token = resource.annotations.get(RECONCILE_ANNOTATION)
        asked = parse_timestamp(token) if token and len(token) <= LONGEST_TOKEN else None
        if asked is None:
            return None
        handled = (resource.status.get("lastHandledReconcileAt"), (row.observed or {}).get("token") if row else None)
        times = [parse_timestamp(text) for text in handled if text]
        return token if all(moment is None or asked > moment for moment in times) else None

    def _memory(self, resource: Resource, moment: float) -> Memory:
        memory = self._memories.get(resource.uid)
        if memory is None:
            interval = seconds(str(resource.spec.get("interval", "5m")))
            memory = self._memories[resource.uid] = Memory(
                next_check=moment + random.uniform(0, interval) if interval else float("inf"),  # noqa: S311 - spread
                next_full=moment + DAILY * random.uniform(0.1, 1.0),  # noqa: S311 - spread
            )
            ill = _condition(resource.status, ConditionType.HEALTHY)
            if ill and ill["status"] == "False":
                memory.failures = int((resource.status.get("health") or {}).get("consecutiveFailures", 1))
                memory.error = Unanswered(_reason(ill), ill["message"])
        return memory

    def _opted_in(self, source: Source) -> bool:
        return source.labelled or not self.secret_opt_in


_SUSPENDED = Verdict("Unknown", Reason.SUSPENDED, "suspended before this was looked at: set spec.suspend to false")


def _parse(spec: Mapping[str, Any]) -> ConnectorSpec:
    try:
        return ConnectorSpec.model_validate(spec)
    except ValidationError as error:
        raise Stalled(Reason.INVALID_CONFIG, sentences(error, "spec")) from None


def _untuned(config: Mapping[str, Any], tuning: frozenset[str]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in tuning}


def _reason(condition: Mapping[str, Any]) -> Reason:
    """The reason of a condition as it stands in the cluster, where somebody may have written another."""
    known = condition["reason"] in Reason.__members__.values()
    return Reason(condition["reason"]) if known else Reason.PROGRESSING


def _healthy(type_: ConnectorType[Any]) -> str:
    return f"{type_.title} answers"


def _condition(status: Mapping[str, Any], type_: ConditionType) -> Mapping[str, Any] | None:
    return next((condition for condition in status.get("conditions", ()) if condition["type"] == type_), None)
