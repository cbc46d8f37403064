"""What is declared comes to serve: tested first, whole or by halves, forced, or held back by a rollback."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

from honeyframe_connectors.api.connector import ConnectorSpec
from honeyframe_connectors.api.kinds import FORCE_ANNOTATION
from honeyframe_connectors.connector_type import CheckResult, ConnectorConfig
from honeyframe_connectors.errors import ConnectorError, Reason, Stalled, Waiting
from honeyframe_connectors.secret_targets import require_allowed
from honeyframe_connectors.vault.content import held_mac
from honeyframe_connectors.vault.rows import UNKNOWN_MAC, ConnectorRow, TestStatus, Version
from reconcilers.attempts import Pending
from reconcilers.candidate import Candidate
from reconcilers.checks import Checks
from reconcilers.connector_scope import Scope, required
from reconcilers.ports import Resource
from reconcilers.rows import Rows
from reconcilers.steps import Unreached


@dataclass(slots=True)
class Rotation:
    """Decides what becomes of a content that is not what serves."""

    rows: Rows
    checks: Checks
    committed: Callable[[str], None] = lambda _type: None
    """Told of every version that was made: the type's name."""

    async def accept(self, scope: Scope) -> str:
        """What is declared serves: it did already, or it passed a check and was committed.

        Raises:
            ConnectorError: why it does not serve; what did before goes on.
        """
        row = await self._let_go_of_what_is_held(scope, required(scope.row))
        candidate = scope.candidate = await self._candidate(scope, row)
        in_sync = (row.config_mac, row.secret_mac) == (candidate.config_mac, candidate.secret_mac)
        config = self._whole(scope, candidate)
        if in_sync and scope.serves:
            if scope.problem is not None and scope.problem.reason == Reason.TARGET_NOT_ALLOWED:
                scope.row = await self.rows.update(row, revoked=True, audit="connector.revoked")
                raise scope.problem
            scope.row = row = await self._apply_unversioned(scope, row)
            if row.held is not None:
                raise held_back(row)
            return f"version {row.serving_version} serves"
        pending = scope.memory.pending or Pending.load(row.pending)
        same = pending if pending is not None and pending.content == candidate.content else None
        if same is not None and config is not None and may_force(scope.resource, same):
            return await self._force(scope, candidate, same)
        tried_before = same if same is not None and same.next_at is not None else None
        if tried_before is not None and not tried_before.due(scope.now) and scope.token is None:
            raise tried_before.error()
        error = scope.problem
        if config is not None:
            result = await self.checks.check(
                scope,
                candidate.type,
                config,
                candidate.ca,
                known_good=in_sync,
                anew_since=_anew_since(scope, tried_before),
            )
            error = result.error
            scope.again_at, scope.tried = result.again_at, result.again_at is None
            if error is None:
                return await self._let_in(scope, candidate, result, restored=in_sync)
        await self._halves(scope, candidate)
        if error is not None:
            raise error
        # The step before says that config and secret values do not fit together.
        if required(scope.row).secret_mac != candidate.secret_mac:
            raise Unreached(Reason.PROGRESSING, "config and secret values do not fit together")
        return f"version {required(scope.row).serving_version} holds them"

    def _whole(self, scope: Scope, candidate: Candidate) -> ConnectorConfig | None:
        """The whole, if it may be dialled; else `scope.problem` says why not, or the step before did."""
        as_declared = candidate.values is scope.values
        if as_declared and scope.config is None:
            return None
        try:
            config = candidate.whole(scope.config if as_declared else None)
            self._require_allowed(scope, candidate, config)
        except Stalled as error:
            scope.problem = error
            return None
        return config

    async def _candidate(self, scope: Scope, row: ConnectorRow) -> Candidate:
        """What is declared; while its secret values are held back, with those that serve instead."""
        declared = Candidate(
            required(scope.type),
            scope.declared,
            scope.values,
            scope.ca,
            scope.config_mac,
            scope.secret_mac,
            kept=scope.kept,
        )
        if row.held is None or row.serving_version is None:
            return declared
        serving = await self._serving(scope, row)
        return replace(
            declared,
            values=serving.secrets,
            secret_mac=required(row.secret_mac),
            kept=serving,
            restored_from=self._restored_from(row),
        )

    async def _let_go_of_what_is_held(self, scope: Scope, row: ConnectorRow) -> ConnectorRow:
        """A hold ends when the Secret shows other values, and by nothing else."""
        if (
            row.held is None or required(scope.spec).secret_ref is None
        ):  # no Secret shows nothing, and so no other values
            return row
        shown = held_mac(self.rows.vault, row, required(scope.type), scope.values)
        if row.held == UNKNOWN_MAC and scope.secret_mac != row.secret_mac:
            scope.row = await self.rows.update(row, held=shown)
        elif row.held != shown:
            scope.row = await self.rows.update(row, held=None, audit="connector.let_go")
        return required(scope.row)

    def _require_allowed(self, scope: Scope, candidate: Candidate, config: ConnectorConfig) -> None:
        endpoints = candidate.type.endpoints(config)
        spec, source = required(scope.spec), scope.secret
        if source is not None and spec.secret_ref is not None:
            require_allowed(source.targets, endpoints, spec.secret_ref.name)
        for host, _ in endpoints:
            refusal = self.checks.targets.declared_refusal(host)
            if refusal is not None:
                raise Stalled(Reason.TARGET_NOT_ALLOWED, refusal)

    async def _apply_unversioned(self, scope: Scope, row: ConnectorRow) -> ConnectorRow:
        spec = required(scope.spec)
        wanted = {
            "display_name": spec.display_name or row.name,
            "config": dict(scope.declared),
            "deletion_policy": spec.deletion_policy,
            **({"secret_name": _secret_name(spec)} if row.held is None else {}),
        }
        changes = {name: value for name, value in wanted.items() if getattr(row, name) != value}
        return await self.rows.update(row, audit="connector.updated", **changes) if changes else row

    # --- in ----------------------------------------------------------------------------------------------------------

    async def _let_in(self, scope: Scope, candidate: Candidate, result: CheckResult, *, restored: bool) -> str:
        scope.result = result
        row = required(scope.row)
        if restored:
            scope.row = await self.rows.update(
                row,
                revoked=False,
                deleted_at=None,
                object_uid=scope.resource.uid,
                secret_name=_secret_name(required(scope.spec)),
                pending=None,
                audit="connector.restored",
            )
            if row.held is not None:
                raise held_back(row)
            return f"version {row.serving_version} serves again"
        first = row.serving_version is None
        row = await self.commit(scope, candidate, _status(result), pending=None)
        if row.held is not None:
            raise held_back(row)
        return f"version {row.serving_version} {'serves' if first else 'was tested and serves'}"

    async def _force(self, scope: Scope, candidate: Candidate, pending: Pending) -> str:
        row = await self.commit(scope, candidate, "failed", pending=None, forced=True)
        scope.memory.next_check = scope.now
        return f"version {row.serving_version} was let in by force, although: {pending.message}"

    async def _halves(self, scope: Scope, candidate: Candidate) -> None:
        """Where both differ, each half with the serving other half, secret values first: a working one is let in."""
        row = required(scope.row)
        both = row.config_mac != candidate.config_mac and row.secret_mac != candidate.secret_mac
        if not scope.serves or not both:
            return
        serving = await self._serving(scope, row)
        secret_half = replace(candidate, declared=serving.config, ca=serving.ca, config_mac=required(row.config_mac))
        config_half = replace(
            candidate,
            values=serving.secrets,
            secret_mac=required(row.secret_mac),
            kept=serving,
            restored_from=self._restored_from(row),
        )
        for half in (secret_half, config_half):
            try:
                config = half.whole()
                self._require_allowed(scope, half, config)
            except Stalled:  # it cannot be dialled; what is wrong with the whole is said of the whole
                continue
            result = await self.checks.check(scope, half.type, config, half.ca)
            scope.tried = scope.tried or result.again_at is None
            scope.again_at = scope.again_at or result.again_at
            if result.error is None:
                await self.commit(scope, half, _status(result))
                scope.result = result
                return

    async def commit(self, scope: Scope, candidate: Candidate, test_status: TestStatus, **changes: Any) -> ConnectorRow:
        """Make a candidate serve, as a new version. What it is made of is in `scope`."""
        spec, row = scope.spec, required(scope.row)
        # Values that are kept came from the Secret that they came from, and no rotation's reason is theirs.
        kept = candidate.restored_from is not None or candidate.secret_mac == row.secret_mac
        shown = scope.resource.status.get("servedVersion")
        values: dict[str, Any] = {
            "secret_name": row.secret_name if kept or spec is None else _secret_name(spec),
            "revoked": False,
            "deleted_at": None,
            "forced": False,
            "object_uid": scope.resource.uid,
            **changes,
        }
        if spec is not None:
            values |= {"display_name": spec.display_name or row.name, "deletion_policy": spec.deletion_policy}
        scope.row = await self.rows.commit(
            row,
            candidate,
            test_status=test_status,
            reason=scope.secret.reason if scope.secret is not None and not kept else "",
            version_floor=shown if isinstance(shown, int) else 0,
            history_limit=spec.history_limit if spec else 10,
            **values,
        )
        scope.committed = scope.row.serving_version
        self.committed(row.type)
        return scope.row

    async def _serving(self, scope: Scope, row: ConnectorRow) -> Version:
        if scope.serving is None or scope.serving.number != row.serving_version:
            scope.serving = await self.rows.serving(row, required(scope.type))
        return scope.serving

    def _restored_from(self, row: ConnectorRow) -> int | None:
        versions = self.rows.open.versions(row)
        return next((each.restored_from for each in versions if each.number == row.serving_version), None)


def _secret_name(spec: ConnectorSpec) -> str | None:
    return spec.secret_ref.name if spec.secret_ref else None


def held_back(row: ConnectorRow) -> ConnectorError:
    """What the Secret holds was rolled back from."""
    return Waiting(
        Reason.ROTATION_HELD,
        f"a rollback holds back what the Secret has, and version {row.serving_version} serves: write other values into "
        "the Secret, or roll to the version that has these",
    )


def may_force(resource: Resource, pending: Pending) -> bool:
    """Whether a person said to let in this very content in spite of its check."""
    return resource.annotations.get(FORCE_ANNOTATION) == pending.id and pending.kind in ("refused", "unanswered")


def _anew_since(scope: Scope, tried_before: Pending | None) -> float | None:
    """The moment from which a refusal counts: a token asks now, and what serves was turned away at a known time."""
    if scope.token is not None:
        return scope.now
    return tried_before.next_at if tried_before is not None and tried_before.anew else None


def _status(result: CheckResult) -> TestStatus:
    return "passed" if result.credential_tested else "skipped"
