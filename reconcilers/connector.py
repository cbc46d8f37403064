"""The reconcile of a Connector: declare, own, read, merge, accept, check.

A content (config, secret values, CA) is tried before it serves: what works goes on until something better was
accepted. What a reconcile decides from stands in the row, so that a restart finds everything as it was.
"""

import hashlib
import random
import time
from collections.abc import Callable, Coroutine, Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from typing import Any, TypeVar

from pydantic import ValidationError

from honeyframe_connectors.api.connector import ConnectorSpec
from honeyframe_connectors.api.kinds import (
    ADOPT_ANNOTATION,
    CREDENTIALS_LABEL,
    LONGEST_TOKEN,
    RECONCILE_ANNOTATION,
    ConditionType,
    parse_timestamp,
    seconds,
    sentences,
)
from honeyframe_connectors.connector_type import CheckResult, ConnectorConfig, ConnectorType, Mark, marked, merge
from honeyframe_connectors.errors import ConnectorError, Reason, Stalled, TryAgain, Unanswered, Waiting
from honeyframe_connectors.probe import Gate, probe
from honeyframe_connectors.registry import Registry
from honeyframe_connectors.targets import Targets
from honeyframe_connectors.vault.rows import OPERATOR, ConnectorRow, Owner
from honeyframe_connectors.vault.vault import RowChanged, Vault
from reconcilers import adoption, attempts, connector_status, restart
from reconcilers.attempts import Pending
from reconcilers.conditions import conditions
from reconcilers.connector_scope import Memory, Scope
from reconcilers.deletion import purge_time
from reconcilers.ledger import Ledger
from reconcilers.ports import Cluster, Resource, Source
from reconcilers.restart import applied, canonical, matches, status_digest
from reconcilers.secret_values import certificates, pick, unlabelled
from reconcilers.steps import Outcome, Report, Step, Unreached, Verdict, run

DAILY = 86400.0
"""Seconds after which everything is looked at in full: a restored etcd rewinds versions."""


@dataclass(slots=True)
class Connectors:
    """Reconciles Connectors: what it needs, and what it keeps."""

    registry: Registry
    vault: Vault
    cluster: Cluster
    targets: Targets
    gate: Gate
    fence: Callable[[], None]
    """Raises when this process must not write any more: it is not the leader."""
    flags: str
    """The operator's flags that a reconcile depends on, canonical."""
    secret_opt_in: bool = True
    ledger: Ledger | None = None
    probed: Callable[[str, CheckResult], None] = lambda _type, _result: None
    """Told of every check: the type's name, and how it went."""
    committed: Callable[[str], None] = lambda _type: None
    """Told of every version that was made: the type's name."""
    purge_after: timedelta = timedelta(hours=24)
    """How long a deleted row is kept."""
    went: Callable[[ConnectorRow], None] = lambda _row: None
    """Told of every row that was deleted."""
    clock: Callable[[], float] = time.time
    _cluster_id: str = ""
    _memories: dict[str, Memory] = field(default_factory=dict)
    _fingerprints: dict[tuple[str, str], str] = field(default_factory=dict)
    _drivers_found: set[str] = field(default_factory=set)

    async def load(self, cluster_id: str) -> None:
        """Open the vault and read this cluster's rows.

        Raises:
            Waiting: the vault cannot be reached or opened.
        """
        await self.vault.open()
        self._cluster_id = cluster_id
        self.ledger = Ledger(await self.vault.rows(cluster_id))

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
        if not matches(row.observed, resource, secret, ca, fingerprint):
            return None
        if self._new_token(resource, row) is not None:
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
        suspended = resource.spec.get("suspend") is True
        report, full = Report(), not suspended
        try:
            await self._keep_policy(scope)
            await self._revoke_unlabelled(scope)
            if suspended:
                return self._suspended(scope)
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
        if self.ledger is None:
            raise Waiting(Reason.VAULT_UNAVAILABLE, "the vault is not open yet")
        for row in self.ledger.of(namespace, name):
            # One that was handed over may yet be this object's: it takes it, or ends it, in its reconcile.
            anothers = row.object_uid != uid and (uid is None or row.owner.namespace_uid != "")
            if row.deleted_at is None and anothers:
                await self._soft_delete(row)

    async def keep_until(self, row: ConnectorRow, moment: datetime) -> ConnectorRow:
        """A deleted row, to be purged at another moment."""
        return await self._update(row, purge_at=moment)

    async def refresh(self, row: ConnectorRow) -> None:
        """Read a row again that was written by somebody else."""
        await self._read_again(row)

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
        self._require_driver(scope.type)
        if spec.secret_ref is None and scope.type.secret_required:
            raise Stalled(
                Reason.INVALID_CONFIG, f"type {name} needs a secret: name the Secret that holds it in spec.secretRef"
            )
        return "the spec is valid"

    async def _own(self, scope: Scope) -> str:
        """The Connector has a row of its own."""
        spec, type_, resource = _required(scope.spec), _required(scope.type), scope.resource
        if self.ledger is None:
            raise Waiting(
                Reason.VAULT_UNAVAILABLE,
                "the vault is not open yet: see the operator's log and its --database and --secret-file",
            )
        owner = scope.owner = self.cluster.owner(resource.namespace)
        row = self._live_row(resource)
        if row is None or (row.owner.namespace_uid, row.type) != (owner.namespace_uid, type_.name):
            row = await self._found(scope, owner)
        if row is None and (wanted := resource.annotations.get(ADOPT_ANNOTATION)):
            row = await self._adopt(scope, owner, wanted)
        if row is None:
            self.fence()
            row = self.ledger.put(
                await self.vault.create(
                    owner,
                    name=resource.name,
                    display_name=spec.display_name or resource.name,
                    type=type_.name,
                    category=str(type_.category),
                    object_uid=resource.uid,
                )
            )
        scope.row = row
        await self._keep_policy(scope)
        if row.owner.org != owner.org:
            raise Stalled(
                Reason.ORG_MISMATCH,
                f"namespace {resource.namespace} belongs to org {owner.org}, this Connector to org {row.owner.org}: "
                f"put the label honeyframe.io/org={row.owner.org} back on the namespace, or create the Connector anew",
            )
        return row.id

    async def _recognise(self, scope: Scope) -> str:
        """What was adopted is no rotation: a version from before there were MACs is compared by its values, once."""
        row, type_ = _required(scope.row), _required(scope.type)
        if row.serving_version is not None and (row.config_mac is None or row.secret_mac is None):
            tuning = marked(type_.config, Mark.TUNING)
            try:
                version = await self.vault.serving(row, tuning)
            except RowChanged:
                await self._read_again(row)
                raise
            same_config = _untuned(scope.declared, tuning) == _untuned(version.config, tuning)
            macs = {
                "config_mac": scope.config_mac if same_config and scope.ca == version.ca else None,
                "secret_mac": scope.secret_mac if scope.values == version.secrets else None,
            }
            changes = {name: mac for name, mac in macs.items() if mac is not None and getattr(row, name) is None}
            scope.row = await self._update(row, **changes) if changes else row
        return "what serves is known"

    async def _read(self, scope: Scope) -> str:
        """The Secret and the CA are there and may be used."""
        spec, type_ = _required(scope.spec), _required(scope.type)
        if spec.secret_ref is not None:
            namespace, name = scope.resource.namespace, spec.secret_ref.name
            content = await self.cluster.content("Secret", namespace, name)
            if content is None:
                raise Waiting(
                    Reason.SECRET_NOT_FOUND,
                    f"Secret {name} is not in namespace {namespace}: create it with the label "
                    f'{CREDENTIALS_LABEL}: "true", or correct spec.secretRef.name',
                )
            scope.secret = content.source
            if not self._opted_in(content.source):
                raise unlabelled("Secret", namespace, name)
            scope.values = pick(type_, spec.secret_ref.keys, content.data, name)
        if spec.ca_ref is not None:
            scope.ca = await self._read_ca(scope)
        return "the Secret can be read"

    async def _merge(self, scope: Scope) -> str:
        """Config and secret values make a whole that the type can use."""
        type_, row = _required(scope.type), _required(scope.row)
        scope.config = merge(type_, scope.declared, scope.values)
        declared = _untuned(scope.declared, marked(type_.config, Mark.TUNING))
        trust = hashlib.sha256(scope.ca).hexdigest() if scope.ca else None
        scope.config_mac = self.vault.mac(row, "config", canonical([declared, trust]))
        values = sorted((key, value.hex()) for key, value in scope.values.items())
        scope.secret_mac = self.vault.mac(row, "secret", canonical(values))
        return "config and secret values fit the type"

    async def _accept(self, scope: Scope) -> str:
        """What is declared serves: it did already, or it passed a check and was committed."""
        row = _required(scope.row)
        in_sync = (row.config_mac, row.secret_mac) == (scope.config_mac, scope.secret_mac)
        row = scope.row = await self._found_again(scope, row)
        if in_sync and scope.serves:
            scope.row = await self._apply_unversioned(scope, row)
            return f"version {row.serving_version} serves"
        pending = scope.memory.pending or Pending.load(row.pending)
        content = f"{scope.config_mac}.{scope.secret_mac}"
        tried_before = pending is not None and pending.content == content and pending.next_at is not None
        if pending is not None and tried_before and not pending.due(scope.now) and scope.token is None:
            raise pending.error()
        scope.tried = True
        result = await self._probe(scope, _required(scope.type), _required(scope.config), scope.ca)
        if result.error is not None:
            raise result.error
        scope.result = result
        self.fence()
        if in_sync:
            scope.row = await self._update(
                row,
                revoked=False,
                deleted_at=None,
                object_uid=scope.resource.uid,
                pending=None,
                audit="connector.restored",
            )
            return f"version {row.serving_version} serves again"
        first = row.serving_version is None
        scope.row = await self._commit(scope, row, result)
        scope.committed = scope.row.serving_version
        self.committed(row.type)
        return f"version {scope.committed} was tested and serves" if not first else f"version {scope.committed} serves"

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
        return _healthy(type_)

    def _full(self) -> tuple[Step[Scope], ...]:
        return (
            Step("declare", ConditionType.CONFIG_VALID, self._declare),
            Step("own", ConditionType.READY, self._own, needs=("declare",)),
            Step("read", ConditionType.CREDENTIALS_IN_SYNC, self._read, needs=("own",)),
            Step("merge", ConditionType.CONFIG_VALID, self._merge, needs=("read",)),
            Step("recognise", ConditionType.CREDENTIALS_IN_SYNC, self._recognise, needs=("merge",)),
            Step("accept", ConditionType.CREDENTIALS_IN_SYNC, self._accept, needs=("recognise",)),
            *self._tick(),
        )

    def _tick(self) -> tuple[Step[Scope], ...]:
        return (Step("check", ConditionType.HEALTHY, self._check),)

    # --- whose row -------------------------------------------------------------------------------------------------

    async def _found(self, scope: Scope, owner: Owner) -> ConnectorRow | None:
        """The row that a Connector of this name had here before, or that was handed over; other rows of it end."""
        resource, type_ = scope.resource, _required(scope.type)
        candidates = _required(self.ledger).of(resource.namespace, resource.name)
        if candidates:
            await self._confirm(resource, owner)
        found = None
        for candidate in candidates:
            handed_over = not candidate.owner.namespace_uid
            same_namespace = candidate.owner.namespace_uid == owner.namespace_uid
            fits = candidate.type == type_.name and (same_namespace or handed_over)
            other = candidate.object_uid != resource.uid if same_namespace else not (handed_over and fits)
            if candidate.deleted_at is None and other:
                candidate = await self._soft_delete(candidate)  # noqa: PLW2901
            if fits and (found is None or (found.deleted_at is not None and _is_later(candidate, found))):
                found = candidate
        if found is None or found.owner.namespace_uid:
            return found
        # A namespace of that name proves nothing: it serves once its Secret shows the values, as one made again does.
        here = replace(found.owner, namespace_uid=owner.namespace_uid)
        changes: dict[str, Any] = {}
        if found.deleted_at is None:
            at = datetime.fromtimestamp(int(self.clock()), UTC)
            purge_at = purge_time(found.deletion_policy, at, purge_after=self.purge_after, halted=True)
            changes = {"deleted_at": at, "purge_at": purge_at}
        move = self.vault.move(found, here, name=found.name, audit="connector.moved", **changes)
        return await self._written(found, move)

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
        spec, type_, resource = _required(scope.spec), _required(scope.type), scope.resource
        found = await self.vault.find(wanted)
        row = adoption.require_adoptable(found, wanted, owner, type_.name, self.registry)
        await self._confirm(resource, owner)
        await self._read(scope)
        if row.serving_version is not None:
            served = await self.vault.serving(row, marked(type_.config, Mark.TUNING))
            adoption.require_possession(row, served.secrets, scope.values)
        # The platform's own MACs, if any, were made of something else: `_recognise` makes them.
        macs = {} if row.managed_by == OPERATOR else {"config_mac": None, "secret_mac": None}
        adopted = self.vault.move(
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
        taken = await self._written(row, adopted)
        if (row.owner.project, row.name) != (taken.owner.project, taken.name):
            _required(self.ledger).drop(row)
        return taken

    async def _soft_delete(self, row: ConnectorRow) -> ConnectorRow:
        """Nothing of it serves from now on; it is purged later, and much later where its CRD went."""
        halted = row.deletion_policy != "Retain" and not await self.cluster.kinds_intact()
        moment = datetime.fromtimestamp(int(self.clock()), UTC)
        purge_at = purge_time(row.deletion_policy, moment, purge_after=self.purge_after, halted=halted)
        self._memories.pop(row.object_uid, None)
        row = await self._update(row, deleted_at=moment, purge_at=purge_at, audit="connector.deleted")
        self.went(row)
        return row

    async def _keep_policy(self, scope: Scope) -> None:
        """The row says what becomes of it, for the object cannot any more when it is gone."""
        row, policy = scope.row, scope.resource.spec.get("deletionPolicy", "Delete")
        if row is not None and row.deletion_policy != policy:
            purge_at = None if policy == "Retain" else row.purge_at
            scope.row = await self._update(row, deletion_policy=policy, purge_at=purge_at)

    # --- what the steps share ------------------------------------------------------------------------------------

    def _require_driver(self, type_: ConnectorType[Any]) -> None:
        # What was found once is there until the process ends; to look again searches the whole path.
        if type_.name not in self._drivers_found:
            type_.require_driver()
            self._drivers_found.add(type_.name)

    async def _check_serving(self, scope: Scope, row: ConnectorRow, type_: ConnectorType[Any]) -> CheckResult:
        self._require_driver(type_)
        try:
            version = await self.vault.serving(row, marked(type_.config, Mark.TUNING))
        except RowChanged:
            await self._read_again(row)
            raise
        scope.result = await self._probe(scope, type_, merge(type_, version.config, version.secrets), version.ca)
        return scope.result

    async def _read_ca(self, scope: Scope) -> bytes:
        ref, namespace = _required(_required(scope.spec).ca_ref), scope.resource.namespace
        content = await self.cluster.content(ref.kind, namespace, ref.name)
        if content is None:
            raise Waiting(
                Reason.CA_NOT_FOUND,
                f"{ref.kind} {ref.name} is not in namespace {namespace}: create it, or correct spec.caRef",
            )
        scope.ca_source = content.source
        if not self._opted_in(content.source):
            raise unlabelled(ref.kind, namespace, ref.name)
        return certificates(content.data, ref.kind, ref.name, ref.key)

    async def _revoke_unlabelled(self, scope: Scope) -> None:
        """The owner of a Secret takes it back by taking the label away, whatever the spec says today."""
        row = scope.row
        if row is None or not scope.serves or row.secret_name is None:
            return
        source = await self.cluster.source("Secret", scope.resource.namespace, row.secret_name)
        if source is not None and not self._opted_in(source):
            scope.row = await self._update(row, revoked=True, audit="connector.revoked")

    async def _found_again(self, scope: Scope, row: ConnectorRow) -> ConnectorRow:
        """A Connector made again serves as before once its Secret shows the values that the row saw last."""
        if row.deleted_at is None or row.serving_version is None or row.config_mac != scope.config_mac:
            return row
        if scope.secret_mac != (row.observed or {}).get("seen", row.secret_mac):
            return row
        return await self._update(row, deleted_at=None, object_uid=scope.resource.uid, audit="connector.found")

    async def _apply_unversioned(self, scope: Scope, row: ConnectorRow) -> ConnectorRow:
        spec = _required(scope.spec)
        wanted = {
            "display_name": spec.display_name or row.name,
            "config": dict(scope.declared),
            "secret_name": spec.secret_ref.name if spec.secret_ref else None,
        }
        changes = {field: value for field, value in wanted.items() if getattr(row, field) != value}
        return await self._update(row, **changes) if changes else row

    async def _commit(self, scope: Scope, row: ConnectorRow, result: CheckResult) -> ConnectorRow:
        spec, type_ = _required(scope.spec), _required(scope.type)
        shown = scope.resource.status.get("servedVersion")
        return await self._written(
            row,
            self.vault.commit(
                row,
                config=scope.declared,
                tuning=marked(type_.config, Mark.TUNING),
                secrets=scope.values,
                config_mac=scope.config_mac,
                secret_mac=scope.secret_mac,
                secret_name=spec.secret_ref.name if spec.secret_ref else None,
                ca=scope.ca,
                test_status="passed" if result.credential_tested else "skipped",
                reason="",
                version_floor=shown if isinstance(shown, int) else 0,
                pending=None,
                revoked=False,
                deleted_at=None,
                object_uid=scope.resource.uid,
                display_name=spec.display_name or row.name,
            ),
        )

    async def _update(self, row: ConnectorRow, **changes: Any) -> ConnectorRow:
        return await self._written(row, self.vault.update(row, **changes))

    async def _written(self, row: ConnectorRow, write: Coroutine[Any, Any, ConnectorRow]) -> ConnectorRow:
        ledger = _required(self.ledger)
        try:
            self.fence()
        except ConnectorError:
            write.close()
            raise
        try:
            written = ledger.put(await write)
        except RowChanged:
            await self._read_again(row)
            raise
        if written.deleted_at is None and written.purge_at is not None:  # it came back
            written = await self._update(written, purge_at=None)
        return written

    async def _read_again(self, row: ConnectorRow) -> None:
        ledger, fresh = _required(self.ledger), await self.vault.load(row.id)
        ledger.drop(row)
        if fresh is not None and (fresh.owner.cluster_id, fresh.managed_by) == (self._cluster_id, OPERATOR):
            ledger.put(fresh)

    async def _probe(
        self, scope: Scope, type_: ConnectorType[Any], config: ConnectorConfig, ca: bytes | None
    ) -> CheckResult:
        spec = scope.spec  # None where it cannot be read, and what serves goes on
        result = await probe(
            type_,
            config,
            targets=self.targets,
            ca=ca,
            output_schemas=spec.output_schemas if spec else (),
            timeout=seconds(spec.timeout if spec else ConnectorSpec.model_fields["timeout"].default),
            gate=self.gate,
        )
        self.probed(type_.name, result)
        return result

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
        if error is not None:
            current = attempts.wanting(
                previous,
                error,
                content=f"{scope.config_mac}.{scope.secret_mac}" if scope.secret_mac else str(error.reason),
                generation=scope.resource.generation,
                interval=scope.interval,
                now=scope.now,
                tried=scope.tried,
                by_token=scope.token is not None,
            )
        if current != stored:
            scope.memory.pending = current
            scope.row = await self._update(row, pending=current.dump() if current else None)
        scope.memory.pending = None
        self._speak_of_the_config(scope, report)

    def _speak_of_the_config(self, scope: Scope, report: Report) -> None:
        """Where the values that serve are the Secret's, what did not pass is the config: Ready says so, alone."""
        row = _required(scope.row)
        error = report.errors.get(ConditionType.CREDENTIALS_IN_SYNC)
        if error is not None and scope.serves and scope.secret_mac and scope.secret_mac == row.secret_mac:
            report.errors[ConditionType.READY] = report.errors.pop(ConditionType.CREDENTIALS_IN_SYNC)
            report.messages[ConditionType.CREDENTIALS_IN_SYNC] = f"version {row.serving_version} holds them"

    async def _let_in_pending(self, scope: Scope, report: Report) -> None:
        """When what serves is turned away for the first time, what was refused may be right by now."""
        error, row = report.errors.get(ConditionType.HEALTHY), scope.row
        if error is None or row is None or error.reason != Reason.AUTHENTICATION_FAILED or scope.memory.failures != 1:
            return
        pending = Pending.load(row.pending)
        if scope.result is not None and pending is not None and pending.kind == "refused":
            scope.row = await self._update(row, pending=attempts.at_once(pending, scope.now).dump())

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
            unavailable_since=memory.unavailable_since,
            moment=scope.now,
        )
        kept = () if full else (ConditionType.CONFIG_VALID, ConditionType.CREDENTIALS_IN_SYNC)
        status: dict[str, Any] = {"observedGeneration": resource.generation}
        if unavailable:
            carried = ("connectorId", "servedVersion", "type", "category", "queryable", "credentials", "health")
            status |= {key: previous[key] for key in carried if key in previous}
        token = scope.token if full and not unavailable else previous.get("lastHandledReconcileAt")
        if token := token or previous.get("lastHandledReconcileAt"):
            status["lastHandledReconcileAt"] = token
        type_ = scope.type or (self.registry[row.type] if row else None)
        if type_ is not None and not unavailable:
            status |= connector_status.describe(type_)
        if row is not None and not unavailable:
            status |= self._facts(scope, row, pending, serving, threshold)
        status["conditions"] = conditions(
            report, judged, kept, previous=previous.get("conditions", ()), generation=resource.generation
        )
        if unavailable:
            return Outcome(status, None, retry=unavailable)
        observed: Mapping[str, Any] = {}
        if row is not None and row.deleted_at is None:
            observed = row.observed or {}
            if full:
                fingerprint = self._fingerprint(row.type, row.owner.org, resource.namespace)
                observed = restart.observed(scope, observed, pending, fingerprint)
        return Outcome(status, self._next_look(scope, pending, judged), observed)

    def _facts(
        self, scope: Scope, row: ConnectorRow, pending: Pending | None, serving: int | None, threshold: int
    ) -> dict[str, Any]:
        previous = scope.resource.status
        facts: dict[str, Any] = {"connectorId": row.id}
        if serving is not None:
            facts["servedVersion"] = serving
        facts["credentials"] = connector_status.credentials(
            row,
            serves=scope.serves,
            pending=pending,
            rotated=scope.committed is not None,
            previous=previous.get("credentials"),
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

    def _suspended(self, scope: Scope) -> Outcome:
        """Nothing is checked or changed; what serves goes on."""
        resource, row = scope.resource, scope.row
        previous = resource.status
        status = {**previous, "observedGeneration": resource.generation}
        named = next(iter(resource.spec.get("config") or {}), "")
        if named in self.registry:
            status |= connector_status.describe(self.registry[named])
        report = Report()
        looked_at = tuple(ConditionType)
        if row is not None and row.revoked and row.secret_name:
            error = unlabelled("Secret", resource.namespace, row.secret_name)
            judged = Verdict("False", error.reason, error.message, ConditionType.STALLED)
            status.pop("servedVersion", None)
            status["credentials"] = connector_status.credentials(
                row, serves=False, pending=None, rotated=False, previous=previous.get("credentials")
            )
        elif row is not None and (row.observed or {}).get("applied") == applied(resource.spec):
            ready = _condition(previous, ConditionType.READY)
            judged = Verdict(ready["status"], _reason(ready), ready["message"]) if ready else _SUSPENDED
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
        if row is None or not row.observed or scope.token is not None or scope.now >= scope.memory.next_full:
            return False
        if scope.memory.pending is not None:
            return False
        pending = Pending.load(row.pending)
        if pending is not None and (pending.due(scope.now) or pending.next_at is None):
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


T = TypeVar("T")
_SUSPENDED = Verdict("Unknown", Reason.SUSPENDED, "suspended before this was looked at: set spec.suspend to false")


def _parse(spec: Mapping[str, Any]) -> ConnectorSpec:
    try:
        return ConnectorSpec.model_validate(spec)
    except ValidationError as error:
        raise Stalled(Reason.INVALID_CONFIG, sentences(error, "spec")) from None


def _required(value: T | None) -> T:
    """What an earlier step has set; a step that needs it says so in its `needs`."""
    if value is None:
        raise AssertionError("a step ran before one that it needs")
    return value


def _untuned(config: Mapping[str, Any], tuning: frozenset[str]) -> dict[str, Any]:
    return {key: value for key, value in config.items() if key not in tuning}


def _is_later(row: ConnectorRow, other: ConnectorRow) -> bool:
    """Whether a row lives, or died later."""
    return row.deleted_at is None or (other.deleted_at is not None and row.deleted_at > other.deleted_at)


def _reason(condition: Mapping[str, Any]) -> Reason:
    """The reason of a condition as it stands in the cluster, where somebody may have written another."""
    known = condition["reason"] in Reason.__members__.values()
    return Reason(condition["reason"]) if known else Reason.PROGRESSING


def _healthy(type_: ConnectorType[Any]) -> str:
    return f"{type_.title} answers"


def _condition(status: Mapping[str, Any], type_: ConditionType) -> Mapping[str, Any] | None:
    return next((condition for condition in status.get("conditions", ()) if condition["type"] == type_), None)
