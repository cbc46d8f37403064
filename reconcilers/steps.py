"""A reconcile as a list of named steps, and what came of them.

A step takes the scope and returns a message, or raises a `ConnectorError`; it never touches conditions. `TryAgain`,
and whatever is no `ConnectorError` and so a fault of ours, goes to the queue, which tries again.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from honeyframe_connectors.api.kinds import ConditionType
from honeyframe_connectors.errors import ConnectorError, Reason, TryAgain

S = TypeVar("S")


class Unreached(ConnectorError):
    """A step cannot be tried now, through no fault of its own."""


@dataclass(frozen=True, slots=True)
class Step(Generic[S]):
    """One thing to make so."""

    name: str
    condition: ConditionType
    run: Callable[[S], Awaitable[str]]
    needs: tuple[str, ...] = ()
    """Steps without which this one cannot be tried."""


@dataclass(slots=True)
class Report:
    """What came of the steps, by condition."""

    messages: dict[ConditionType, str] = field(default_factory=dict)
    errors: dict[ConditionType, ConnectorError] = field(default_factory=dict)
    blocked: dict[ConditionType, ConnectorError] = field(default_factory=dict)
    """Conditions whose step was not reached, with the error that was in the way."""

    @property
    def first_error(self) -> ConnectorError | None:
        """The error of the earliest step that failed."""
        return next(iter(self.errors.values()), None)

    def error(self, *reasons: Reason) -> ConnectorError | None:
        """The earliest error with one of these reasons."""
        return next((error for error in self.errors.values() if error.reason in reasons), None)


@dataclass(frozen=True, slots=True)
class Verdict:
    """What all of it means: the conditions Ready, and Reconciling or Stalled."""

    ready: str
    reason: Reason
    message: str
    progress: ConditionType | None = None
    """RECONCILING, STALLED or None."""
    ended: ConditionType | None = None
    """Of a question that was answered: COMPLETE or FAILED."""


@dataclass(frozen=True, slots=True)
class News:
    """What people are told once, as an Event."""

    type: str
    """Normal or Warning."""
    reason: Reason
    message: str


@dataclass(slots=True)
class Outcome:
    """What a reconcile leaves behind."""

    status: dict[str, Any]
    requeue_after: float | None
    """Seconds until this object is looked at again; None: on change only."""
    observed: Mapping[str, Any] = field(default_factory=dict)
    """What it was made from; a match after a restart costs nothing."""
    news: Sequence[News] = ()
    """What the status alone does not tell."""
    retry: ConnectorError | None = None
    """Try again with the queue's backoff, because of this."""


async def run(steps: Sequence[Step[S]], scope: S) -> Report:
    """Run the steps in order; one whose needs failed is not reached, the others go on."""
    report = Report()
    failed: dict[str, ConnectorError] = {}
    for step in steps:
        obstacle = next((failed[need] for need in step.needs if need in failed), None)
        if obstacle is not None:
            failed[step.name] = obstacle
            report.blocked.setdefault(step.condition, obstacle)
            continue
        try:
            message = await step.run(scope)
        except TryAgain:
            raise
        except Unreached as error:
            report.blocked.setdefault(step.condition, error)
        except ConnectorError as error:
            failed[step.name] = error
            report.errors.setdefault(step.condition, error)
        else:
            report.messages[step.condition] = message
    return report
