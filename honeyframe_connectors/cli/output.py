"""How answers are written: tables for people, JSON and YAML for programs, and no control characters for terminals."""

import json
import os
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from enum import StrEnum
from typing import Any

import yaml
from rich.console import Console
from rich.table import Table
from rich.text import Text

from honeyframe_connectors.api.kinds import parse_timestamp

_WIDTH = 120
"""Columns where nobody's terminal says how wide it is."""
_ENDLESS = 100_000
"""Columns of a table's longest row: a row is a line, as kubectl writes it."""


class Output(StrEnum):
    """The formats of `-o`."""

    TABLE = "table"
    WIDE = "wide"
    JSON = "json"
    YAML = "yaml"

    @property
    def for_programs(self) -> bool:
        """Whether a program reads it."""
        return self in (Output.JSON, Output.YAML)


def console(width: int | None = None) -> Console:
    """Standard output, as wide as the terminal where no width is given."""
    known = sys.stdout.isatty() or "COLUMNS" in os.environ
    return Console(width=width or (None if known else _WIDTH), highlight=False, markup=False)


def write(output: Output, value: Any) -> None:
    """Write data as JSON or YAML."""
    if output is Output.YAML:
        print(yaml.safe_dump(value, sort_keys=False, allow_unicode=True), end="")
    else:
        print(json.dumps(value, indent=2))


def table(columns: Sequence[str], rows: Sequence[Sequence[Text | str]]) -> None:
    """Write a table as kubectl does: capitals, no lines, nothing cut."""
    found = Table(box=None, pad_edge=False, padding=(0, 3, 0, 0), header_style="")
    for column in columns:
        found.add_column(column, no_wrap=True)
    for row in rows:
        found.add_row(*(each if isinstance(each, Text) else Text(each) for each in row))
    out = console(_ENDLESS)
    with out.capture() as captured:
        out.print(found)
    # The last column is filled up to its longest row, which may be a long message.
    print("\n".join(line.rstrip() for line in captured.get().splitlines()))


def plain(text: str) -> str:
    """A text from elsewhere without what a terminal would obey."""
    return "".join(character if character.isprintable() else " " for character in text)


def ago(moment: str | None, now: datetime | None = None) -> str:
    """How long ago an RFC 3339 time was, as people say it."""
    age = age_of(moment, now)
    if age is None:
        return "never"
    for unit, seconds in (("d", 86400), ("h", 3600), ("m", 60)):
        if age >= seconds:
            return f"{int(age // seconds)}{unit} ago"
    return "just now"


def age_of(moment: str | None, now: datetime | None = None) -> float | None:
    """How many seconds ago an RFC 3339 time was; None where there is none."""
    found = parse_timestamp(moment) if moment else None
    return None if found is None else max(0.0, ((now or datetime.now(UTC)) - found).total_seconds())
