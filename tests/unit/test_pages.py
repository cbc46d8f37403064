"""What the pages for a bad night say: every condition, reason and state, and none that there is not."""

import re
from pathlib import Path
from typing import get_args

from honeyframe_connectors.api.connector import Credentials
from honeyframe_connectors.api.kinds import ConditionType
from honeyframe_connectors.errors import Reason
from tests.support.how_to import commands, headings

DOCS = Path(__file__).parents[2] / "docs"
PAGE = "at-3-am.md"
NO_REASON = {"", "Nothing moves", "Connectors are gone"}


def first_column(page: str, head: str) -> list[str]:
    """What stands in the first column of a table that begins with a head."""
    table = (DOCS / page).read_text().partition(f"| {head} |")[2].partition("\n\n")[0]
    return re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)


def test_every_reason_has_its_entry_at_3_am() -> None:
    named = [name for heading in headings(PAGE).keys() - NO_REASON for name in heading.split(", ")]
    assert sorted(named) == sorted(Reason)


def test_every_entry_is_found_from_what_one_sees() -> None:
    """The links within the page lead somewhere; a reason shows under STATUS, or in the card of `status`."""
    text = (DOCS / "how-to" / PAGE).read_text()
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    anchors = {re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles}
    targets = re.findall(r"\]\(#([^)]+)\)", text)
    assert set(targets) - anchors == set()


def test_no_command_of_the_page_names_a_made_up_connector() -> None:
    found = [line for lines in commands(PAGE).values() for line in lines]
    assert [line for line in found if "NAME" in line or "…" in line] == []


def test_the_reference_has_every_condition_reason_and_state() -> None:
    page = "reference/conditions.md"
    assert sorted(first_column(page, "condition")) == sorted(ConditionType)
    assert sorted(first_column(page, "reason")) == sorted(Reason)
    assert sorted(first_column(page, "state")) == sorted(get_args(Credentials.model_fields["state"].annotation))
