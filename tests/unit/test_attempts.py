from dataclasses import replace

import pytest

from honeyframe_connectors.errors import ConnectorError, Reason, Refused, Stalled, Unanswered, Waiting
from reconcilers.attempts import GRACE, Pending, at_once, wanting

REFUSED = Refused(Reason.AUTHENTICATION_FAILED, "no")
UNANSWERED = Unanswered(Reason.TIMEOUT, "silence")


def after(previous: Pending | None, error: ConnectorError, now: float, **changes: object) -> Pending:
    given = {"content": "c", "generation": 1, "interval": 60.0, "tried": True, "by_token": False, **changes}
    return wanting(previous, error, now=now, **given)  # type: ignore[arg-type]


def test_a_refused_content_is_tried_after_20_s_2_min_10_min_and_hourly() -> None:
    pending, moment, delays = None, 1000.0, []
    for _ in range(5):
        pending = after(pending, REFUSED, moment)
        assert pending.next_at is not None
        delays.append(pending.next_at - moment)
        moment = pending.next_at
    assert delays == [20, 120, 600, 3600, 3600]
    assert pending is not None
    assert pending.since == 1000.0


def test_no_answer_backs_off_up_to_the_interval_or_an_hour() -> None:
    for interval, longest in ((60.0, 60.0), (0.0, 3600.0)):
        pending, moment = None, 0.0
        for _ in range(20):
            pending = after(pending, UNANSWERED, moment, interval=interval)
            assert pending.next_at is not None
            assert pending.next_at - moment <= longest + 1e-6
            moment = pending.next_at


def test_another_content_starts_anew_and_another_generation_only_the_grace() -> None:
    first = after(None, REFUSED, 0.0)
    again = after(first, REFUSED, 20.0)
    edited = after(again, REFUSED, 30.0, generation=2, tried=False)
    assert (edited.since, edited.attempts, edited.next_at, edited.id) == (30.0, again.attempts, again.next_at, first.id)
    other = after(again, REFUSED, 40.0, content="d")
    assert (other.since, other.attempts, other.next_at) == (40.0, 1, 60.0)
    assert other.id != first.id


def test_a_token_leaves_the_times_alone() -> None:
    first = after(None, REFUSED, 0.0)
    assert after(first, REFUSED, 5.0, by_token=True) == first


def test_what_serves_being_turned_away_lets_it_in_at_once() -> None:
    pending = at_once(after(after(None, REFUSED, 0.0), REFUSED, 20.0), 50.0)
    assert pending.due(50.0)
    assert after(pending, REFUSED, 50.0).next_at == 70.0


@pytest.mark.parametrize(
    "error", [REFUSED, UNANSWERED, Stalled(Reason.INVALID_CONFIG, "x"), Waiting(Reason.CA_NOT_FOUND, "y")]
)
def test_it_survives_the_row(error: ConnectorError) -> None:
    pending = after(None, error, 7.0)
    loaded = Pending.load(pending.dump())
    assert loaded == pending
    assert type(loaded.error()) is type(error)
    assert (loaded.error().reason, loaded.error().message) == (error.reason, error.message)
    assert replace(pending, since=0.0).young(GRACE - 1)
    assert not replace(pending, since=0.0).young(GRACE)
