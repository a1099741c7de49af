from datetime import timedelta, timezone
from pathlib import Path

import pytest

from edgecount.config import LedgerSettings
from edgecount.count import query
from edgecount.count.ledger import Ledger
from edgecount.errors import ConfigError, LedgerError
from edgecount.records import CountEvent

NOON = 1_795_521_600.0
CET = timezone(timedelta(hours=1))


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("30min", NOON - 1800),
        ("12h", NOON - 43_200),
        ("7d", NOON - 7 * 86_400),
        ("2w", NOON - 14 * 86_400),
        ("today", NOON - 13 * 3600),
        ("yesterday", NOON - 37 * 3600),
        ("2026-11-24", NOON - 13 * 3600),
        ("2026-11-24 08:30", NOON - 4.5 * 3600),
        ("2026-11-24T08:30:00+00:00", NOON - 3.5 * 3600),
    ],
)
def test_times(text: str, expected: float) -> None:
    assert query.parse_time(text, NOON, CET) == expected


@pytest.mark.parametrize("text", ["", "soon", "24.11.2026", "5y", "-3h"])
def test_what_is_no_time_is_named(text: str) -> None:
    with pytest.raises(ConfigError, match="is no time"):
        query.parse_time(text, NOON, CET)


def test_a_missing_ledger_is_named(tmp_path: Path) -> None:
    with pytest.raises(LedgerError, match="there is no ledger"):
        query.events(tmp_path / "nowhere.db", 0, 1)


def test_another_file_is_named(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(b"no database" * 100)
    with pytest.raises(LedgerError, match="cannot be used"):
        query.events(tmp_path / "x", 0, 1)


def test_a_running_day_is_shown_up_to_now(tmp_path: Path) -> None:
    times = [NOON]
    ledger = Ledger.open(
        LedgerSettings(path=tmp_path / "l.db", commit_ms=1),
        clock=lambda: times[-1],
        monotonic=lambda: times[-1],
    )
    for n in range(90):
        ledger.record([CountEvent("line", "door", "a", "in", n, n, times[-1])])
        ledger.sample({("door", "hall"): n % 3})
        ledger.flush()
        times.append(times[-1] + 60)
        ledger.flush()
    ledger.close()
    now = times[-1]

    def read(period: str) -> list:
        rows = query.figures(tmp_path / "l.db", period, NOON - 86_400, now, CET)
        return [(row.start, row.into) for row in rows if row.kind == "line"]

    assert read("day") == [(NOON - 13 * 3600, 90)]
    assert read("hour") == [(NOON, 60), (NOON + 3600, 30)]
    assert len(read("minute")) == 90
    zone = [r for r in query.figures(tmp_path / "l.db", "day", 0, now, CET) if r.kind == "zone"]
    assert [(r.peak, r.mean) for r in zone] == [(2, 1.0)]


def test_events_and_stays_while_the_service_writes(tmp_path: Path) -> None:
    ledger = Ledger.open(LedgerSettings(path=tmp_path / "l.db"))
    ledger.record([CountEvent("line", "door", "a", "in", n, n, NOON + n) for n in range(10)])
    stays = [CountEvent("zone", "door", "hall", "left", n, n, NOON, n + 1.0) for n in range(10)]
    ledger.record(stays)
    ledger.flush()
    found = query.events(tmp_path / "l.db", NOON + 3, NOON + 6)
    assert [e.track for e in found] == [3, 4, 5]
    (dwell,) = query.dwell(tmp_path / "l.db", 0, 4e9)
    assert (dwell.visits, dwell.median_s, dwell.p90_s, dwell.longest_s) == (10, 6.0, 10.0, 10.0)
    ledger.close()
