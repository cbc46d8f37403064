"""A declared content that does not serve: since when, and when it is tried again."""

import random
import secrets
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

from honeyframe_connectors.errors import ConnectorError, Reason, Refused, Stalled, Unanswered, Waiting

GRACE = 600.0
"""Seconds in which the rest may arrive in the same sync: until then a wanting content is Reconciling."""
REFUSED_DELAYS = (20.0, 120.0, 600.0, 3600.0)
"""Seconds between tries of a refused content; the last is repeated."""
HOURLY = 3600.0
FIRST_RETRY = 5.0
WATCHED_WHILE_REFUSED = 15.0
"""Seconds between checks of what serves while a refusal is young: the first login that fails there lets the new
content in."""

Kind = Literal["refused", "unanswered", "waiting", "stalled"]
_ERRORS: dict[str, type[ConnectorError]] = {
    "refused": Refused,
    "unanswered": Unanswered,
    "waiting": Waiting,
    "stalled": Stalled,
}


@dataclass(frozen=True, slots=True)
class Pending:
    """Why a content does not serve. Times are seconds since the epoch."""

    id: str
    content: str
    """A keyed MAC of the content, or what is missing of it."""
    generation: int
    kind: Kind
    reason: str
    message: str
    since: float
    attempts: int = 0
    next_at: float | None = None
    anew: bool = False
    """It is tried at `next_at` whatever was refused before: what serves was turned away then."""

    @classmethod
    def load(cls, stored: Mapping[str, Any] | None) -> "Pending | None":
        """A pending content as it stands in its row."""
        return cls(**stored) if stored else None

    def dump(self) -> dict[str, Any]:
        """As JSON for the row."""
        return asdict(self)

    def error(self) -> ConnectorError:
        """The error again, as it was."""
        return _ERRORS[self.kind](Reason(self.reason), self.message)

    def due(self, now: float) -> bool:
        """Whether the time has come to try again."""
        return self.next_at is not None and now >= self.next_at

    def young(self, now: float) -> bool:
        """Whether the rest may still arrive in the same sync."""
        return now < self.since + GRACE


def kind_of(error: ConnectorError) -> Kind:
    """How an error is treated."""
    for kind, class_ in _ERRORS.items():
        if isinstance(error, class_):
            return kind  # type: ignore[return-value]  # the keys of _ERRORS are the Kinds
    return "waiting"


def wanting(
    previous: Pending | None,
    error: ConnectorError,
    *,
    content: str,
    generation: int,
    interval: float,
    now: float,
    tried: bool,
    by_token: bool,
    again_at: float | None = None,
) -> Pending:
    """What is pending after an error.

    `again_at` is when a login that was refused before may be tried again: nothing was tried now, so no rung is climbed.
    The grace runs anew with a new generation or other values, the times between tries with another content only; a
    try that a token asked for leaves the times alone.
    """
    kind = kind_of(error)
    same = previous is not None and previous.content == content
    pending = Pending(
        id=previous.id if same and previous else secrets.token_hex(8),
        content=content,
        generation=generation,
        kind=kind,
        reason=str(error.reason),
        message=error.message,
        since=previous.since if same and previous and previous.generation == generation else now,
        attempts=previous.attempts if same and previous else 0,
        next_at=previous.next_at if same and previous else None,
    )
    if not tried and again_at is not None:
        return replace(pending, next_at=again_at)
    if not tried and pending.due(now):
        return replace(pending, next_at=now + (interval or HOURLY))
    if not tried or (by_token and same and pending.next_at is not None):
        return pending
    attempts = pending.attempts + 1
    return replace(pending, attempts=attempts, next_at=now + _delay(kind, attempts, interval))


def at_once(pending: Pending, now: float) -> Pending:
    """The same content, to be tried now and with the times anew."""
    return replace(pending, attempts=0, next_at=now, anew=True)


def _delay(kind: Kind, attempts: int, interval: float) -> float:
    if kind == "stalled":
        return interval or HOURLY
    if kind == "refused":
        return REFUSED_DELAYS[min(attempts, len(REFUSED_DELAYS)) - 1]
    backoff: float = FIRST_RETRY * 2.0 ** min(attempts - 1, 16)
    return min(interval or HOURLY, backoff * random.uniform(0.8, 1.2))  # noqa: S311 - jitter needs no secrecy
