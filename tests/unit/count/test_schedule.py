from datetime import datetime, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecount.count.schedule import DailyReset, Due

DAY = 86_400.0
BERLIN = DailyReset("04:00", "Europe/Berlin")


def utc(text: str) -> float:
    return datetime.fromisoformat(text).replace(tzinfo=timezone.utc).timestamp()


def test_it_is_due_once_a_day() -> None:
    last = utc("2026-11-23T03:00:00")
    assert BERLIN.due(utc("2026-11-24T02:59:59"), last, 5 * DAY) is None
    due = BERLIN.due(utc("2026-11-24T03:00:00"), last, 5 * DAY)
    assert due == Due(utc("2026-11-24T03:00:00"), keep_session=False)
    assert BERLIN.due(utc("2026-11-24T03:00:01"), due.at, 5 * DAY) is None


def test_a_reset_that_fell_into_a_time_without_power_is_made_up_for() -> None:
    due = BERLIN.due(utc("2026-11-24T08:00:00"), utc("2026-11-21T03:00:00"), 10.0)
    assert due == Due(utc("2026-11-24T03:00:00"), keep_session=True)


def test_a_clock_that_goes_back_makes_no_second_reset() -> None:
    last = utc("2026-11-24T03:00:00")
    for now in ("2026-11-24T02:59:00", "2026-11-24T03:00:30", "2026-11-23T20:00:00"):
        assert BERLIN.due(utc(now), last, DAY) is None


def test_a_board_that_boots_in_1970_resets_when_its_clock_is_right() -> None:
    last = utc("2026-11-23T03:00:00")
    assert BERLIN.due(12.0, last, 12.0) is None
    due = BERLIN.due(utc("2026-11-24T07:00:00"), last, 300.0)
    assert due == Due(utc("2026-11-24T03:00:00"), keep_session=True)


def test_a_new_ledger_that_was_begun_in_1970_gets_a_real_date() -> None:
    due = BERLIN.due(utc("2026-11-24T07:00:00"), 5.0, 300.0)
    assert due == Due(utc("2026-11-24T03:00:00"), keep_session=True)


def test_a_last_reset_far_in_the_future_does_not_stop_resets_for_years() -> None:
    due = BERLIN.due(utc("2026-11-24T07:00:00"), utc("2099-01-01T00:00:00"), 9 * DAY)
    assert due == Due(utc("2026-11-24T03:00:00"), keep_session=False)


def test_days_on_which_clocks_change() -> None:
    reset = DailyReset("02:30", "Europe/Berlin")
    # Forward: 02:30 does not exist; 02:30 standard time is 03:30 summer time, 01:30 UTC.
    assert reset.latest(utc("2026-03-29T12:00:00")) == utc("2026-03-29T01:30:00")
    # Back: 02:30 comes twice, the first one (summer time) is 00:30 UTC.
    assert reset.latest(utc("2026-10-25T12:00:00")) == utc("2026-10-25T00:30:00")
    assert reset.due(utc("2026-10-25T01:30:00"), utc("2026-10-25T00:30:00"), DAY) is None


def test_an_unknown_zone_is_an_error() -> None:
    with pytest.raises(ValueError, match="Mars"):
        DailyReset("04:00", "Mars/Olympus")


@given(
    start=st.integers(1_600_000_000, 2_000_000_000),
    at=st.times().map(lambda t: t.strftime("%H:%M")),
    zone=st.sampled_from(
        ["UTC", "Europe/Berlin", "America/New_York", "Asia/Kolkata", "Pacific/Apia"]
    ),
)
def test_over_400_days_every_day_has_exactly_one_reset(start: int, at: str, zone: str) -> None:
    reset = DailyReset(at, zone)
    last, resets = float(start), 0
    for step in range(1, 400 * 4):
        now = start + step * DAY / 4
        due = reset.due(now, last, step * DAY / 4)
        if due:
            assert last < due.at <= now
            last, resets = due.at, resets + 1
    assert 398 <= resets <= 400
