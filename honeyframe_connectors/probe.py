"""A check under its deadline, step by step, with a bound on how many one destination gets at the same time."""

import asyncio
import time
from collections import deque
from collections.abc import Hashable
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any, Final

from honeyframe_connectors.connector_type import (
    CheckResult,
    CheckStep,
    Checkup,
    ConnectorConfig,
    ConnectorType,
    Outcome,
    destination,
    secret_values,
)
from honeyframe_connectors.errors import CheckFailed, ConnectorError, Reason, Stalled, TryAgain, Unanswered
from honeyframe_connectors.redact import Redactor, shorten
from honeyframe_connectors.targets import Targets

GRACE: Final = 1.0
"""Seconds that a check has, once cancelled, to close what it opened."""
NOT_REACHED: Final = "not reached"

_DOING: Final = {
    "resolve": "the name was looked up",
    "connect": "the connection was opened",
    "TLS": "TLS was negotiated",
    "authenticate": "the credential was tried",
    "authorise": "the permissions were asked for",
    "query": "a query ran",
}


@dataclass(slots=True)
class _Destination:
    running: int = 0
    given_up: int = 0
    waiting: deque[asyncio.Future[None]] = field(default_factory=deque)


class Gate:
    """How many checks run at the same time: at most ``per_destination`` for one destination, ``total`` for all.

    A check that does not end when it is cancelled goes on counting for its destination, and no longer for the total:
    it holds back nobody else.
    """

    def __init__(self, per_destination: int = 4, total: int = 100) -> None:
        self._per_destination = per_destination
        self._total = asyncio.Semaphore(total)
        self._destinations: dict[Hashable, _Destination] = {}

    async def enter(self, key: Hashable, patience: float | None = None) -> None:
        """Wait for a place, `patience` seconds at most.

        Raises:
            Unanswered: `Timeout`, when every place of the destination is held by a check that was given up.
            TryAgain: patience is at its end.
        """
        try:
            async with asyncio.timeout(patience):
                await self._enter(key)
        except TimeoutError:
            raise TryAgain(Reason.PROGRESSING, "as many checks as may run at once are running there") from None

    async def _enter(self, key: Hashable) -> None:
        here = self._destinations.setdefault(key, _Destination())
        if here.given_up >= self._per_destination:
            raise _all_hang(here.given_up)
        if here.running < self._per_destination and not here.waiting:
            here.running += 1
        else:
            await self._wait(key, here)
        try:
            await self._total.acquire()
        except BaseException:
            self._release(key, here)
            raise

    async def _wait(self, key: Hashable, here: _Destination) -> None:
        place: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        here.waiting.append(place)
        try:
            await place
        except asyncio.CancelledError:
            if place.cancelled():
                here.waiting = deque(other for other in here.waiting if other is not place)
            elif place.exception() is None:
                # The place was handed over in the same moment: pass it on.
                self._release(key, here)
            raise

    def leave(self, key: Hashable, hanging: asyncio.Task[None] | None = None, *, grace: float = 0.0) -> None:
        """Give the place back; where a check still runs, its destination gets it back when that ends.

        What still runs after ``grace`` seconds counts as given up.
        """
        self._total.release()
        here = self._destinations[key]
        if hanging is None:
            self._release(key, here)
            return
        given_up = False

        def give_up() -> None:
            nonlocal given_up
            given_up = True
            here.given_up += 1
            while here.waiting and here.given_up >= self._per_destination:
                place = here.waiting.popleft()
                if not place.done():
                    place.set_exception(_all_hang(here.given_up))

        timer = asyncio.get_running_loop().call_later(grace, give_up) if grace else None
        if timer is None:
            give_up()

        def ended(_: asyncio.Task[None]) -> None:
            if timer is not None:
                timer.cancel()
            here.given_up -= given_up
            self._release(key, here)

        hanging.add_done_callback(ended)

    def _release(self, key: Hashable, here: _Destination) -> None:
        while here.waiting:
            place = here.waiting.popleft()
            if not place.done():
                place.set_result(None)
                return
        here.running -= 1
        if here.running == 0:
            self._destinations.pop(key, None)


def _all_hang(how_many: int) -> Unanswered:
    return Unanswered(
        Reason.TIMEOUT,
        f"{how_many} checks of this destination still hang after their deadline: "
        "mend the target, or restart the operator if it works for others",
    )


async def probe(
    type_: ConnectorType[Any],
    config: ConnectorConfig,
    *,
    targets: Targets,
    ca: bytes | None = None,
    output_schemas: tuple[str, ...] = (),
    timeout: float,  # noqa: ASYNC109 - the deadline is this function's whole purpose
    gate: Gate,
    patience: float | None = None,
) -> CheckResult:
    """Check a config against its target; what goes wrong is in the result.

    ``timeout`` is in seconds and counts from when the gate let the check in, for which ``patience`` seconds are waited.
    No message holds a secret value of the config, and none is longer than 1,024 characters.

    Raises:
        TryAgain: the gate did not let it in.
    """
    key = (type_.name, destination(type_, config))
    checkup = Checkup(targets=targets, ca=ca, output_schemas=output_schemas)
    try:
        await gate.enter(key, patience)
    except Unanswered as full:
        return _result(type_, config, checkup, full, 0.0)
    error: CheckFailed | Stalled | None
    grace = GRACE
    started = time.monotonic()
    task = asyncio.create_task(type_.check(config, checkup))
    try:
        done, _ = await asyncio.wait((task,), timeout=timeout)
        took = time.monotonic() - started
        if done:
            error = _judge(type_, checkup, task)
        else:
            error = Unanswered(
                Reason.TIMEOUT,
                f"no answer within {timeout:g} s while {_doing(type_, checkup)}: "
                "mend the target or the network between, or raise spec.timeout",
            )
            task.cancel()
            await asyncio.wait((task,), timeout=GRACE)
        grace = 0.0
    except BaseException:
        # Not waited for: who cancels wants to go on.
        task.cancel()
        raise
    finally:
        task.add_done_callback(_forget)
        gate.leave(key, None if task.done() else task, grace=grace)
    return _result(type_, config, checkup, error, took)


def _plain(text: str, config: ConnectorConfig) -> bool:
    # What a check that passed says is the type's own words, with a number or name of the target at most.
    return _looks_plain(text) and not any(
        (secret if isinstance(secret, str) else secret.decode("utf-8", "replace")) in text
        for secret in secret_values(config)
    )


@lru_cache(maxsize=512)
def _looks_plain(text: str) -> bool:
    return Redactor().message(text) == text


def _forget(task: asyncio.Task[None]) -> None:
    # Retrieved, so that the loop does not log what a driver raised, which nobody redacted.
    if not task.cancelled():
        task.exception()


def _judge(type_: ConnectorType[Any], checkup: Checkup, task: asyncio.Task[None]) -> CheckFailed | Stalled | None:
    if task.cancelled():
        return Unanswered(
            Reason.CONNECTION_FAILED, f"the check ended itself while {_doing(type_, checkup)}: try it again"
        )
    error = task.exception()
    if error is None or isinstance(error, CheckFailed | Stalled):
        return error
    if isinstance(error, ConnectorError):
        return Unanswered(error.reason, error.message)
    if not isinstance(error, Exception):
        raise error
    reason = Reason.TIMEOUT if isinstance(error, TimeoutError) else Reason.CONNECTION_FAILED
    return Unanswered(reason, f"the check failed while {_doing(type_, checkup)}: {type(error).__name__}: {error}")


def _doing(type_: ConnectorType[Any], checkup: Checkup) -> str:
    step = next((name for name in type_.steps if name not in checkup.steps), type_.steps[-1])
    return _DOING.get(step, f"at the step {step}")


def _result(
    type_: ConnectorType[Any],
    config: ConnectorConfig,
    checkup: Checkup,
    error: CheckFailed | Stalled | None,
    took: float,
) -> CheckResult:
    steps: list[CheckStep] = []
    # Compiled only where something failed: it costs more than a whole check that passes.
    redactor = Redactor(secret_values(config)) if error is not None else None

    def clean(text: str) -> str:
        if redactor is None and (not text or _plain(text, config)):
            return text
        return (redactor or Redactor(secret_values(config))).message(text)

    if error is not None:
        # A new one: the old carries a traceback whose frames hold the config.
        error = type(error)(error.reason, clean(error.message))
    for name in type_.steps:
        noted = checkup.steps.get(name)
        if noted is not None:
            steps.append(CheckStep(name, noted.outcome, clean(noted.message)))
        elif error is not None and all(step.outcome is not Outcome.FAILED for step in steps):
            steps.append(CheckStep(name, Outcome.FAILED, error.message))
        else:
            steps.append(CheckStep(name, Outcome.NOT_TESTED, NOT_REACHED))
    version = checkup.server_version
    return CheckResult(
        steps=tuple(steps),
        error=error,
        latency_ms=round(took * 1000),
        server_version=None if version is None else shorten(clean(version), 128),
    )
