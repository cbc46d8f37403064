"""When a deleted row goes for good, and what stops it."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from honeyframe_connectors.vault.rows import ConnectorRow, Owner
from reconcilers.deletion import KEPT_FOR, WINDOW, due, is_halted, purge_time, to_halt

NOW = datetime(2027, 1, 1, tzinfo=UTC)
DAY = timedelta(hours=24)
LIVE = ConnectorRow(
    id="live", owner=Owner("c", "n", "o", "p"), name="live", display_name="", type="t", category="database",
    object_uid="", deleted_at=None, serving_version=None, last_version=0, config={}, config_mac=None, secret_mac=None,
    secret_name=None, revoked=False, held=None, forced=False, handled_rollback_at=None, deletion_policy="Delete",
    purge_at=None, pending=None, observed=None, revision="r", wrapped_keys=b"",
)  # fmt: skip


def rows(living: int, went: int, *, ago: timedelta = timedelta(minutes=5)) -> list[ConnectorRow]:
    gone = replace(LIVE, deleted_at=NOW - ago, purge_at=NOW - ago + DAY)
    return [replace(LIVE, id=f"l{number}") for number in range(living)] + [
        replace(gone, id=f"g{number}") for number in range(went)
    ]


def test_when_a_row_goes() -> None:
    assert purge_time("Delete", NOW, purge_after=DAY, halted=False) == NOW + DAY
    assert purge_time("Delete", NOW, purge_after=DAY, halted=True) == NOW + timedelta(days=7)
    assert purge_time("Delete", NOW, purge_after=DAY * 30, halted=True) == NOW + DAY * 30, "never earlier than usual"
    assert purge_time("Retain", NOW, purge_after=DAY, halted=False) is None
    assert purge_time("Retain", NOW, purge_after=DAY, halted=True) is None


@pytest.mark.parametrize(
    ("living", "went", "halted"),
    [(0, 10, 0), (0, 11, 11), (5, 11, 11), (90, 10, 0), (180, 20, 0), (180, 21, 21), (1000, 100, 0), (1000, 112, 112)],
)
def test_the_brake_is_more_than_ten_and_more_than_a_tenth(living: int, went: int, halted: int) -> None:
    assert len(to_halt(rows(living, went), (), moment=NOW)) == halted


def test_the_brake_counts_an_hour_and_what_is_purged_already() -> None:
    assert to_halt(rows(5, 11, ago=WINDOW), (), moment=NOW) == []
    lately = [NOW - timedelta(minutes=59)] * 5
    assert len(to_halt(rows(5, 6), lately, moment=NOW)) == 6
    assert to_halt(rows(5, 6), [NOW - WINDOW] * 5, moment=NOW) == []


def test_what_came_back_does_not_count_and_what_is_kept_anyway_is_left_alone() -> None:
    back = [replace(row, deleted_at=None, purge_at=None) for row in rows(0, 11)]
    assert to_halt(back, (), moment=NOW) == []
    kept = [replace(row, purge_at=None) for row in rows(0, 5)]
    halted = [replace(row, purge_at=row.deleted_at + KEPT_FOR) for row in rows(0, 3) if row.deleted_at]
    assert {row.id for row in to_halt([*kept, *halted, *rows(0, 8)], (), moment=NOW)} == {f"g{n}" for n in range(8)}


def test_what_is_due() -> None:
    early, late, kept = rows(0, 3)
    early, late, kept = replace(early, purge_at=NOW), replace(late, purge_at=NOW + DAY), replace(kept, purge_at=None)
    leftover = replace(LIVE, purge_at=NOW)
    assert due([early, late, kept, leftover, LIVE], moment=NOW) == [early]
    assert [is_halted(row, timedelta()) for row in (early, kept, LIVE)] == [True, False, False]
    assert not is_halted(rows(0, 1)[0], DAY)
