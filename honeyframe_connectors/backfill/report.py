"""What a backfill says of each row, and what its exit code is."""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Any

from honeyframe_connectors.redact import shorten


class Outcome(StrEnum):
    """What became of a row."""

    DONE = "done"
    ALREADY = "already"
    """Done by an earlier run."""
    LEFT = "left"
    """Not for us: passed through untouched."""
    FAILED = "failed"
    """It should have been done and could not be."""


@dataclass(frozen=True, slots=True)
class Line:
    """One row, and what became of it; never a value."""

    subject: str
    outcome: Outcome
    what: str

    def __str__(self) -> str:
        return f"{self.outcome:<7} {self.subject}: {self.what}"


@dataclass(slots=True)
class Report:
    """Hands each line on at once, and counts: nothing of a row is kept."""

    tell: Callable[[Line], None]
    counts: Counter[Outcome] = field(default_factory=Counter)

    def __call__(self, line: Line) -> None:
        """Tell one line."""
        self.counts[line.outcome] += 1
        self.tell(line)

    @property
    def summary(self) -> str:
        """All of it in one line."""
        return ", ".join(f"{self.counts[outcome]} {outcome}" for outcome in Outcome)

    @property
    def nothing(self) -> bool:
        """Whether there was nothing to do, now or in an earlier run."""
        return not (self.counts[Outcome.DONE] or self.counts[Outcome.ALREADY])

    @property
    def complete(self) -> bool:
        """Whether nothing that should have been done is left."""
        return not self.counts[Outcome.FAILED]


class Undone(Exception):
    """Raised at the end of a dry run, so that its transaction keeps nothing."""


def subject(row: Any) -> str:
    """A row's id, place, name and type, as they may be printed: what stands in the database may be anything."""
    return f"{plain(row.id)} {plain(row.org)}/{plain(row.project)}/{plain(row.name)} ({plain(row.type)})"


def plain(text: Any) -> str:
    """On one line, without control characters, and not endless."""
    return shorten("".join(each if each.isprintable() else "?" for each in str(text)), 120)


def listed(names: Any) -> str:
    """Names of fields, as they may be printed."""
    return ", ".join(plain(name) for name in sorted(names))
