"""Waiting on a watch until an object says what is waited for, and no longer than allowed."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from honeyframe_connectors.api.kinds import ConditionType
from honeyframe_connectors.cli.cluster import ApiFault, Body, Cluster
from honeyframe_connectors.cli.faults import Code, Fault
from honeyframe_connectors.cli.objects import condition
from honeyframe_connectors.cli.options import duration
from honeyframe_connectors.cli.output import plain

_LONGEST_WATCH = 300
_PAUSE = 1.0
"""Seconds between tries while the API server does not answer."""

T = TypeVar("T")


@dataclass(frozen=True)
class Deadline:
    """The moment at which waiting ends, on the monotonic clock."""

    text: str
    at: float

    @classmethod
    def after(cls, text: str) -> "Deadline":
        """So long from now.

        Raises:
            Fault: the text is no duration.
        """
        return cls(text, time.monotonic() + duration(text))

    @property
    def left(self) -> float:
        """Seconds left; 0 at the end."""
        return max(0.0, self.at - time.monotonic())


def until(
    cluster: Cluster, plural: str, name: str, answer: Callable[[Body], T | None], deadline: Deadline, what: str
) -> T:
    """The first answer that is not None, of an object as it is and as it becomes.

    ``what`` says what is the matter until then, such as "not ready". While the API server does not answer, it is asked
    again.

    Raises:
        Fault: with `Code.TIMED_OUT` at the deadline; what the API server refuses at once.
    """
    body = None
    while True:
        try:
            body = cluster.get(plural, name)
            found = answer(body)
            if found is None and deadline.left:
                seconds = min(math.ceil(deadline.left), _LONGEST_WATCH)
                for each in cluster.watch(plural, name, body["metadata"]["resourceVersion"], seconds):
                    body = each
                    if (found := answer(each)) is not None or not deadline.left:
                        break
        except ApiFault as fault:
            if not fault.passing or not deadline.left:
                raise
            found = None
            time.sleep(min(_PAUSE, deadline.left))
        if found is not None:
            return found
        if not deadline.left:
            raise Fault(f"{name}: {what} after {deadline.text}{_as_it_is(body)}", Code.TIMED_OUT)


def _as_it_is(body: Body | None) -> str:
    said = condition(body, ConditionType.READY) if body else None
    return f"; Ready={said['status']}: {said['reason']}: {plain(said['message'])}" if said else ""
