"""An earlier version's secret values are brought back: asked for by an annotation, once, tested first, never forced."""

import re
from dataclasses import dataclass
from typing import Any

from honeyframe_connectors.api.kinds import LONGEST_TOKEN, ROLLBACK_ANNOTATION, parse_timestamp
from honeyframe_connectors.errors import Reason, Stalled
from honeyframe_connectors.registry import Registry
from honeyframe_connectors.vault.content import held_mac, secret_mac
from honeyframe_connectors.vault.rows import ConnectorRow, Version
from honeyframe_connectors.vault.vault import Tampered
from reconcilers.candidate import Candidate
from reconcilers.connector_scope import RollbackToken, Scope, required
from reconcilers.ports import Resource
from reconcilers.rotation import Rotation
from reconcilers.steps import News

_TOKEN = re.compile(r"(?P<version>[1-9][0-9]{0,8})@(?P<time>.+)", re.ASCII)


def asked(resource: Resource, row: ConnectorRow | None) -> RollbackToken | None:
    """The token of a Connector, if it is later than the last that was handled, as row and status know it."""
    match = _TOKEN.fullmatch(resource.annotations.get(ROLLBACK_ANNOTATION, "")[: LONGEST_TOKEN + 10])
    moment = parse_timestamp(match["time"]) if match and len(match["time"]) <= LONGEST_TOKEN else None
    if match is None or moment is None:
        return None
    handled = latest(resource.status.get("lastHandledRollbackAt"), row.handled_rollback_at if row else None)
    before = parse_timestamp(handled) if handled else None
    return RollbackToken(int(match["version"]), match["time"]) if before is None or moment > before else None


def latest(*times: str | None) -> str | None:
    """The latest of some RFC 3339 times."""
    known = [(moment, text) for text in times if text and (moment := parse_timestamp(text)) is not None]
    return max(known)[1] if known else None


@dataclass(slots=True)
class Rollback:
    """Brings versions back."""

    rotation: Rotation
    registry: Registry

    async def run(self, scope: Scope) -> str:
        """Handle the token, whatever comes of it: one that does not pass is told by an Event and not tried again."""
        token = scope.rollback
        if token is None:
            return ""
        try:
            message = await self._bring_back(scope, token)
        except Stalled as rejected:
            message = rejected.message
            scope.news.append(News("Warning", Reason.ROLLBACK_REJECTED, message))
            row = required(scope.row)
            scope.row = await self.rotation.rows.update(
                row, handled_rollback_at=token.at, audit="connector.rollback_rejected"
            )
        return message

    async def _bring_back(self, scope: Scope, token: RollbackToken) -> str:
        row, rows = required(scope.row), self.rotation.rows
        if not scope.serves or row.serving_version is None:
            raise _rejected(token, "nothing serves now that could be rolled back")
        type_ = self.registry[row.type]
        try:
            version = await rows.version(row, token.version, type_)
        except Tampered as error:
            raise _rejected(token, error.message) from None
        if version is None:
            kept = ", ".join(str(each.number) for each in rows.open.versions(row))
            raise _rejected(token, f"it is not kept: the history has {kept}")
        serving = await rows.serving(row, type_)
        held = self._to_hold(scope, row, type_, version, serving)
        if version.number == serving.number:
            scope.row = await rows.update(
                row, held=held, handled_rollback_at=token.at, pending=None, audit="connector.held"
            )
            return f"version {serving.number} serves on, and what the Secret has is held back"
        candidate = Candidate(
            type_,
            serving.config,
            version.secrets,
            serving.ca,
            required(row.config_mac),
            secret_mac(rows.vault, row, version.secrets),
            kept=version,
            restored_from=version.number,
        )
        try:
            config = candidate.whole()
        except Stalled as error:
            raise _rejected(token, error.message) from None
        # A person asks: as with a reconcile token, an earlier refusal does not answer for the target.
        result = await self.rotation.checks.check(scope, type_, config, serving.ca, anew_since=scope.now)
        if result.error is not None:
            raise _rejected(token, result.error.message)
        scope.candidate = candidate
        await self.rotation.commit(
            scope, candidate, "rollback", held=held, handled_rollback_at=token.at, pending=_kept_pending(scope, held)
        )
        scope.result, scope.serving = result, None
        return f"version {required(scope.row).serving_version} brings back the values of version {token.version}"

    def _to_hold(self, scope: Scope, row: ConnectorRow, type_: Any, version: Version, serving: Version) -> str | None:
        """What the Secret has (where it is gone: what served until now), unless that is what is brought back."""
        current = held_mac(self.rotation.rows.vault, row, type_, scope.values or serving.secrets)
        return None if current == held_mac(self.rotation.rows.vault, row, type_, version.secrets) else current


def _kept_pending(scope: Scope, held: str | None) -> Any:
    """A declared config that is still refused stays pending; values that are held back are not."""
    row = required(scope.row)
    return row.pending if held is None or scope.config_mac not in ("", row.config_mac) else None


def _rejected(token: RollbackToken, why: str) -> Stalled:
    return Stalled(Reason.ROLLBACK_REJECTED, f"the rollback to version {token.version} is rejected: {why}")
