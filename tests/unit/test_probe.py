import asyncio
from collections.abc import Awaitable, Callable
from typing import Annotated, Any, ClassVar

import pytest
from pydantic import Field, SecretStr

from honeyframe_connectors.connector_type import (
    Category,
    CheckResult,
    Checkup,
    ConnectorConfig,
    ConnectorType,
    Guard,
    Mark,
    Outcome,
)
from honeyframe_connectors.errors import CheckFailed, Reason, Refused, Stalled, TryAgain, Unanswered, Waiting
from honeyframe_connectors.probe import Gate, probe
from honeyframe_connectors.targets import Targets

SECRET = "hunter22-of-the-config"


class Config(ConnectorConfig):
    host: Annotated[str, Mark.DESTINATION] = "a.example"
    password: Annotated[SecretStr, Mark.SECRET] = SecretStr(SECRET)
    path: Annotated[str, Field(repr=False)] = "/hidden-path"


Check = Callable[[Config, Checkup], Awaitable[None]]


class Scripted(ConnectorType[Config]):
    name: ClassVar[str] = "scripted"
    title: ClassVar[str] = "Scripted"
    category: ClassVar[Category] = Category.API
    driver: ClassVar[str | None] = None
    steps: ClassVar[tuple[str, ...]] = ("resolve", "connect", "authenticate", "query")
    guard: ClassVar[Guard] = Guard.PINNED
    config = Config

    def __init__(self, script: Check) -> None:
        self._script = script

    async def check(self, config: Config, checkup: Checkup) -> None:
        await self._script(config, checkup)


async def run(
    script: Check,
    *,
    timeout: float = 30.0,  # noqa: ASYNC109 - the deadline under test
    gate: Gate | None = None,
    host: str = "a.example",
) -> CheckResult:
    return await probe(Scripted(script), Config(host=host), targets=Targets(), timeout=timeout, gate=gate or Gate())


def raising(error: BaseException, *passed: str) -> Check:
    async def script(_: Config, checkup: Checkup) -> None:
        for name in passed:
            checkup.passed(name)
        raise error

    return script


async def test_every_declared_step_in_order() -> None:
    async def script(_: Config, checkup: Checkup) -> None:
        checkup.passed("connect", "quickly")
        checkup.passed("resolve")
        checkup.not_tested("query", "costs money")
        checkup.passed("authenticate")
        checkup.server_version = "1.2"

    result = await run(script)
    assert [(step.name, step.outcome, step.message) for step in result.steps] == [
        ("resolve", Outcome.PASSED, ""),
        ("connect", Outcome.PASSED, "quickly"),
        ("authenticate", Outcome.PASSED, ""),
        ("query", Outcome.NOT_TESTED, "costs money"),
    ]
    assert result.ok
    assert result.credential_tested
    assert result.server_version == "1.2"


@pytest.mark.parametrize("kind", [Refused, Unanswered, Stalled])
async def test_the_first_step_that_is_not_noted_failed(kind: type[CheckFailed | Stalled]) -> None:
    result = await run(raising(kind(Reason.AUTHENTICATION_FAILED, "no"), "resolve", "connect"))
    assert [(step.outcome, step.message) for step in result.steps] == [
        (Outcome.PASSED, ""),
        (Outcome.PASSED, ""),
        (Outcome.FAILED, "no"),
        (Outcome.NOT_TESTED, "not reached"),
    ]
    assert type(result.error) is kind
    assert result.error.reason is Reason.AUTHENTICATION_FAILED


async def test_an_error_brings_no_frames_that_hold_the_config() -> None:
    result = await run(raising(Refused(Reason.AUTHENTICATION_FAILED, "no")))
    assert result.error is not None
    assert result.error.__traceback__ is None
    assert result.error.__context__ is None


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (RuntimeError(f"driver says {SECRET}"), Reason.CONNECTION_FAILED),
        (TimeoutError(f"driver says {SECRET}"), Reason.TIMEOUT),
        (Waiting(Reason.RATE_LIMITED, f"later, {SECRET}"), Reason.RATE_LIMITED),
        (asyncio.CancelledError(), Reason.CONNECTION_FAILED),
    ],
)
async def test_what_a_driver_raises_is_unanswered(error: BaseException, reason: Reason) -> None:
    result = await run(raising(error, "resolve"))
    assert isinstance(result.error, Unanswered)
    assert result.error.reason is reason
    assert SECRET not in repr(result)


async def test_no_message_shows_a_secret_or_grows() -> None:
    async def script(config: Config, checkup: Checkup) -> None:
        checkup.passed("resolve", f"at {config.path}")
        checkup.passed("connect", f"{SECRET} " * 1000)
        checkup.server_version = f"{SECRET} " * 1000
        raise Refused(Reason.AUTHENTICATION_FAILED, f"{config.password.get_secret_value()} " * 1000)

    result = await run(script)
    assert SECRET not in repr(result)
    assert "/hidden-path" not in repr(result)
    assert result.error is not None
    assert len(result.error.message) <= 1024
    assert all(len(step.message) <= 1024 for step in result.steps)
    assert len(result.server_version or "") <= 128


async def test_a_check_that_passes_shows_no_secret_either() -> None:
    async def script(config: Config, checkup: Checkup) -> None:
        checkup.passed("resolve", f"with {config.password.get_secret_value()}")
        checkup.passed("connect", "with Bearer abcdef0123456789")
        checkup.passed("authenticate", f"at {config.path}")
        checkup.server_version = "x" * 10_000

    result = await run(script)
    assert result.ok
    assert SECRET not in repr(result)
    assert "abcdef0123456789" not in repr(result)
    assert "/hidden-path" not in repr(result)
    assert len(result.server_version or "") <= 128


async def test_the_deadline_names_the_step() -> None:
    async def script(_: Config, checkup: Checkup) -> None:
        checkup.passed("resolve")
        await asyncio.Event().wait()

    result = await run(script, timeout=0.01)
    assert isinstance(result.error, Unanswered)
    assert result.error.reason is Reason.TIMEOUT
    assert result.error.message.startswith("no answer within 0.01 s while the connection was opened: ")
    assert result.steps[1].outcome is Outcome.FAILED


async def test_a_check_that_ignores_cancellation_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("honeyframe_connectors.probe.GRACE", 0.01)
    release = asyncio.Event()
    ended = asyncio.Event()

    async def deaf(_: Config, __: Checkup) -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue
        ended.set()
        raise RuntimeError("nobody hears this any more")

    gate = Gate(per_destination=1, total=1)
    result = await run(deaf, timeout=0.01, gate=gate)
    assert result.error is not None
    assert result.error.reason is Reason.TIMEOUT

    # Its destination waits for it no longer than it must, and the others not at all.
    again = await run(raising(RuntimeError("never called")), gate=gate)
    assert again.error is not None
    assert again.error.reason is Reason.TIMEOUT
    assert "still hang" in again.error.message
    assert again.steps[0].outcome is Outcome.FAILED
    elsewhere = await run(_passes, gate=gate, host="b.example")
    assert elsewhere.ok

    release.set()
    await ended.wait()
    await asyncio.sleep(0)
    assert (await run(_passes, gate=gate)).ok


async def _passes(_: Config, checkup: Checkup) -> None:
    for name in Scripted.steps:
        checkup.passed(name)


async def test_who_waits_for_a_check_that_is_given_up_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("honeyframe_connectors.probe.GRACE", 0.01)
    release = asyncio.Event()

    async def deaf(_: Config, __: Checkup) -> None:
        while not release.is_set():
            try:
                await release.wait()
            except asyncio.CancelledError:
                continue

    gate = Gate(per_destination=1)
    first = asyncio.create_task(run(deaf, timeout=0.05, gate=gate))
    await asyncio.sleep(0)
    second = await run(_passes, gate=gate)
    assert second.error is not None
    assert "still hang" in second.error.message
    await first
    release.set()


class Crowd:
    """Checks that all wait, and how many of them do at the same time."""

    def __init__(self) -> None:
        self.inside: list[str] = []
        self.most = 0
        self.go = asyncio.Event()
        self.changed = asyncio.Condition()

    async def __call__(self, config: Config, checkup: Checkup) -> None:
        self.inside.append(config.host)
        self.most = max(self.most, len(self.inside))
        async with self.changed:
            self.changed.notify_all()
        await self.go.wait()
        self.inside.remove(config.host)
        await _passes(config, checkup)

    async def until(self, how_many: int) -> None:
        async with self.changed:
            await self.changed.wait_for(lambda: len(self.inside) >= how_many)


async def settled() -> None:
    for _ in range(10):
        await asyncio.sleep(0)


async def test_a_destination_has_a_bound_and_others_do_not_wait_for_it() -> None:
    crowd, gate = Crowd(), Gate(per_destination=2, total=100)
    tasks = [asyncio.create_task(run(crowd, gate=gate)) for _ in range(5)]
    await crowd.until(2)
    await settled()
    assert crowd.inside == ["a.example"] * 2
    other = asyncio.create_task(run(crowd, gate=gate, host="b.example"))
    await crowd.until(3)
    crowd.go.set()
    assert all(result.ok for result in await asyncio.gather(*tasks, other))
    assert crowd.most == 3
    assert gate._destinations == {}


async def test_all_together_have_a_bound() -> None:
    crowd, gate = Crowd(), Gate(total=3)
    tasks = [asyncio.create_task(run(crowd, gate=gate, host=f"{number}.example")) for number in range(9)]
    await crowd.until(3)
    await settled()
    crowd.go.set()
    assert all(result.ok for result in await asyncio.gather(*tasks))
    assert crowd.most == 3


async def test_waiting_for_the_gate_does_not_use_up_the_deadline() -> None:
    crowd, gate = Crowd(), Gate(per_destination=1)
    first = asyncio.create_task(run(crowd, gate=gate))
    await crowd.until(1)
    second = asyncio.create_task(run(_passes, gate=gate, timeout=0.05))
    await asyncio.wait((second,), timeout=0.2)
    assert not second.done()
    crowd.go.set()
    assert (await first).ok
    assert (await second).ok


async def test_who_has_no_patience_is_told_to_come_again_and_takes_no_place() -> None:
    crowd, gate = Crowd(), Gate(per_destination=1)
    first = asyncio.create_task(run(crowd, gate=gate))
    await crowd.until(1)
    with pytest.raises(TryAgain):
        await gate.enter(next(iter(gate._destinations)), 0.01)
    crowd.go.set()
    assert (await first).ok
    assert (await run(_passes, gate=gate)).ok
    assert gate._destinations == {}


async def test_a_place_is_not_lost_by_who_stops_waiting() -> None:
    crowd, gate = Crowd(), Gate(per_destination=1)
    first = asyncio.create_task(run(crowd, gate=gate))
    await crowd.until(1)
    waiting = [asyncio.create_task(run(_passes, gate=gate)) for _ in range(3)]
    await settled()
    waiting[0].cancel()
    crowd.go.set()
    await first
    # Just handed its place by the first, and cancelled before it could take it.
    waiting[1].cancel()
    results: list[Any] = await asyncio.gather(*waiting, return_exceptions=True)
    assert isinstance(results[0], asyncio.CancelledError)
    assert results[2].ok
    assert (await run(_passes, gate=gate)).ok
    assert gate._destinations == {}


async def test_cancelling_a_probe_cancels_its_check() -> None:
    started, cancelled = asyncio.Event(), asyncio.Event()

    async def script(_: Config, __: Checkup) -> None:
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            cancelled.set()

    gate = Gate(per_destination=1)
    task = asyncio.create_task(run(script, gate=gate))
    await started.wait()
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    await cancelled.wait()
    assert (await run(_passes, gate=gate)).ok
