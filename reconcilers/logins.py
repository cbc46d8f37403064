"""One budget of refused logins for everybody: an account that the operator could lock is never tried again and again.

A refusal belongs to a namespace, a destination, an account and the secret values. Who comes with values that were
refused there waits until their next time, whichever Connector or question he is; an attempt with values not known to
be good is noted before it is made, so that no crash forgets it.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from typing import Any

from honeyframe_connectors.connector_type import CheckResult, CheckStep, ConnectorConfig, ConnectorType, Outcome
from honeyframe_connectors.errors import Reason, Refused, TryAgain, Unanswered
from honeyframe_connectors.vault.refusals import LoginKey, Refusal, Refusals
from reconcilers.attempts import REFUSED_DELAYS

_NOT_DIALLED = "refused before, and its next time has not come"
_UNKNOWN = "a login with these values was begun and its answer is not known"


@dataclass(slots=True)
class Logins:
    """The refusals of all namespaces, in memory and in the database. Only the leader makes logins."""

    refusals: Refusals
    clock: Callable[[], float] = time.time
    _known: dict[LoginKey, Refusal] = field(default_factory=dict)
    _busy: dict[LoginKey, tuple[asyncio.Lock, int]] = field(default_factory=dict)

    async def load(self) -> None:
        """Read what is kept.

        Raises:
            Waiting: `VaultUnavailable`.
        """
        self._known = await self.refusals.all()

    def refused_at(self, namespace_uid: str, type_: ConnectorType[Any], config: ConnectorConfig) -> float | None:
        """When values were turned away last; None: they were not."""
        key = self.refusals.key(namespace_uid, type_, config)
        refusal = self._known.get(key) if key is not None else None
        return refusal.refused_at if refusal is not None else None

    async def login(
        self,
        namespace_uid: str,
        type_: ConnectorType[Any],
        config: ConnectorConfig,
        dial: Callable[[], Awaitable[CheckResult]],
        *,
        known_good: bool = False,
        anew_since: float | None = None,
        patience: float | None = None,
    ) -> CheckResult:
        """Dial, unless these values were refused there and their next time has not come: then what was said before.

        `known_good`: they were accepted there last, so nothing is noted before. `anew_since`: a refusal from before
        this moment does not count, and its times start anew. `patience`: seconds that another login with these values
        is waited for.

        Raises:
            Waiting: `VaultUnavailable`, the attempt cannot be noted; nothing is dialled.
            TryAgain: patience is at its end, or `dial` raised it.
        """
        key = self.refusals.key(namespace_uid, type_, config)
        if key is None:
            return await dial()
        if known_good and key not in self._known:
            return await self._judged(key, await dial(), None)
        async with self._alone(key, patience):
            before = self._known.get(key)
            if before is not None and anew_since is not None and before.refused_at < anew_since:
                before = replace(before, attempts=0, next_at=0.0)
            if before is not None and self.clock() < before.next_at:
                return _refused_before(type_, before)
            attempt = _next(before, self.clock())
            await self.refusals.note(key, attempt)
            self._known[key] = attempt
            try:
                # Where this is cancelled nobody knows what the target saw, and it stays noted.
                return await self._judged(key, await dial(), before)
            except TryAgain:  # nothing was dialled
                await self._keep(key, before)
                raise

    async def _judged(self, key: LoginKey, result: CheckResult, before: Refusal | None) -> CheckResult:
        noted = self._known.get(key)
        error = result.error
        if isinstance(error, Refused) and error.reason == Reason.AUTHENTICATION_FAILED:
            refusal = replace(noted or _next(None, self.clock()), message=error.message)
        elif error is None or isinstance(error, Refused) or before is None:
            refusal = None
        else:  # no answer that counts: as it was before
            refusal = before
        await self._keep(key, refusal)
        return result

    async def _keep(self, key: LoginKey, refusal: Refusal | None) -> None:
        if refusal is not None:
            await self.refusals.note(key, refusal)
            self._known[key] = refusal
        elif self._known.pop(key, None) is not None:
            await self.refusals.forget([key])

    @asynccontextmanager
    async def _alone(self, key: LoginKey, patience: float | None) -> AsyncIterator[None]:
        lock, waiting = self._busy.get(key, (asyncio.Lock(), 0))
        self._busy[key] = (lock, waiting + 1)
        try:
            try:
                async with asyncio.timeout(patience):
                    await lock.acquire()
            except TimeoutError:
                raise TryAgain(Reason.PROGRESSING, "another login with these values is under way") from None
            try:
                yield
            finally:
                lock.release()
        finally:
            lock, waiting = self._busy.pop(key)
            if waiting > 1:
                self._busy[key] = (lock, waiting - 1)


def _next(before: Refusal | None, now: float) -> Refusal:
    attempts = before.attempts + 1 if before is not None else 1
    delay = REFUSED_DELAYS[min(attempts, len(REFUSED_DELAYS)) - 1]
    return Refusal(attempts, now, now + delay, before.message if before is not None else "")


def _refused_before(type_: ConnectorType[Any], refusal: Refusal) -> CheckResult:
    error: Refused | Unanswered
    if refusal.message:
        error = Refused(Reason.AUTHENTICATION_FAILED, refusal.message)
    else:
        error = Unanswered(Reason.CONNECTION_FAILED, f"{_UNKNOWN}: it is tried again when its time comes")
    steps = [
        CheckStep(name, Outcome.FAILED, error.message)
        if name == "authenticate"
        else CheckStep(name, Outcome.NOT_TESTED, _NOT_DIALLED)
        for name in type_.steps
    ]
    return CheckResult(tuple(steps), error, latency_ms=0, again_at=refusal.next_at)
