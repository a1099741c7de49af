import os
import random
import shutil
import sqlite3
import time
from pathlib import Path
from typing import Dict, Iterator, List, Optional

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from edgecount.config import LedgerSettings
from edgecount.count._store import Reader
from edgecount.count.ledger import Ledger
from edgecount.count.totals import PlaceTotals
from edgecount.records import Aggregate, CountEvent, LineTotals

NOON = 1_795_521_600.0  # 2026-11-24 12:00 UTC


def event(
    n: int = 0, direction: str = "in", ts: float = NOON, name: str = "entrance"
) -> CountEvent:
    return CountEvent("line", "door", name, direction, n, n, ts)


def left(dwell_s: float, ts: float = NOON) -> CountEvent:
    return CountEvent("zone", "door", "hall", "left", 1, 1, ts, dwell_s=dwell_s)


class Clock:
    """A wall clock and a monotonic clock that move together, unless the wall clock is set."""

    def __init__(self) -> None:
        self.wall = NOON
        self.steady = 0.0

    def pass_(self, seconds: float) -> None:
        self.wall += seconds
        self.steady += seconds


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "ledger.db"


def open_ledger(path: Optional[Path], clock: Optional[Clock] = None, **more: object) -> Ledger:
    outbox = bool(more.pop("outbox", True))
    timezone = str(more.pop("timezone", "UTC"))
    clock = clock or Clock()
    chosen = LedgerSettings(path=path, enabled=path is not None, commit_ms=1, **more)
    return Ledger.open(
        chosen,
        outbox=outbox,
        timezone=timezone,
        clock=lambda: clock.wall,
        monotonic=lambda: clock.steady,
    )


@pytest.fixture
def ledger(path: Path) -> Iterator[Ledger]:
    ledger = open_ledger(path)
    yield ledger
    ledger.close()


class TestRestart:
    def test_totals_places_and_numbers_come_back(self, path: Path) -> None:
        first = open_ledger(path)
        first.record([event(1), event(2, "out"), left(4.0)], {"hall": PlaceTotals(3, 5, 2, 4)})
        first.close()
        second = open_ledger(path)
        assert second.totals("door").lines == {"entrance": LineTotals(1, 1)}
        assert second.totals("door").zones == {"hall": LineTotals(0, 1)}
        assert second.places() == {"hall": PlaceTotals(3, 5, 2, 4)}
        assert second.since == NOON
        second.record([event(3)])
        second.flush()
        assert [e.seq for e in second.fetch(0, 10)] == [1, 2, 3, 4]
        second.close()

    def test_a_reset_is_remembered(self, path: Path) -> None:
        first = open_ledger(path)
        first.record([event()], {"hall": PlaceTotals(1, 1, 0, 1)})
        first.reset(NOON + 60)
        first.close()
        second = open_ledger(path)
        assert second.totals("door").lines == {"entrance": LineTotals()}
        assert second.places() == {"hall": PlaceTotals()}
        assert second.since == NOON + 60
        second.close()

    def test_a_late_reset_can_keep_what_this_run_counted(self, path: Path) -> None:
        first = open_ledger(path)
        first.record([event(), event()])
        first.close()
        second = open_ledger(path)
        second.record([event()])
        second.reset(NOON, keep_session=True)
        assert second.totals("door").lines == {"entrance": LineTotals(1, 0)}
        second.close()

    def test_totals_are_there_before_they_are_committed(self, ledger: Ledger) -> None:
        ledger.record([event()])
        assert ledger.totals("door").lines == {"entrance": LineTotals(1, 0)}


class TestOrder:
    def test_ids_and_numbers_rise(self, ledger: Ledger) -> None:
        committed: List[CountEvent] = []
        ledger.listen(on_committed=committed.extend)
        for n in range(100):
            ledger.record([event(n, ts=NOON - n)])  # a clock that runs backwards
        ledger.flush()
        assert [e.track for e in committed] == list(range(100))
        assert [e.seq for e in committed] == list(range(1, 101))
        assert [e.id for e in committed] == sorted({e.id for e in committed})

    def test_ids_go_on_rising_after_a_restart(self, path: Path) -> None:
        first = open_ledger(path)
        first.record([event(ts=NOON + 3600)])
        first.close()
        second = open_ledger(path)
        second.record([event(ts=NOON)])
        second.flush()
        old, new = second.fetch(0, 2)
        assert old.id < new.id
        second.close()

    def test_nothing_is_given_out_before_its_commit(self, path: Path) -> None:
        ledger = open_ledger(path)
        seen: List[int] = []

        def look(events: List[CountEvent]) -> None:
            reader = Reader(path)
            seen.append(reader.newest()[0] - events[-1].seq)
            reader.close()

        ledger.listen(on_committed=look)
        for _ in range(20):
            ledger.record([event()])
            ledger.flush()
        assert seen == [0] * 20
        ledger.close()


class TestOutbox:
    def test_the_mark_survives(self, path: Path) -> None:
        first = open_ledger(path)
        first.record([event(n) for n in range(10)])
        first.flush()
        first.acknowledge(6)
        assert first.backlog == 4
        first.close()
        second = open_ledger(path)
        assert [e.seq for e in second.fetch(0, 100)] == [7, 8, 9, 10]
        second.close()

    def test_without_a_broker_nothing_piles_up(self, path: Path) -> None:
        first = open_ledger(path, outbox=False)
        first.record([event(n) for n in range(10)])
        first.flush()
        assert first.backlog == 0
        first.close()
        second = open_ledger(path, outbox=True)
        assert second.backlog == 0
        second.record([event()])
        second.flush()
        assert [e.seq for e in second.fetch(0, 100)] == [11]
        second.close()

    def test_the_oldest_go_when_there_are_too_many(self, path: Path) -> None:
        ledger = open_ledger(path, outbox_max=5)
        given_up: List[int] = []
        ledger.listen(on_given_up=given_up.append)
        ledger.record([event(n) for n in range(12)])
        ledger.flush()
        assert given_up == [7]
        assert [e.seq for e in ledger.fetch(0, 100)] == [8, 9, 10, 11, 12]
        ledger.close()

    def test_the_oldest_go_when_they_are_too_old(self, path: Path) -> None:
        clock = Clock()
        ledger = open_ledger(path, clock, outbox_max_days=1)
        given_up: List[int] = []
        ledger.listen(on_given_up=given_up.append)
        ledger.record([event(ts=clock.wall) for _ in range(3)])
        ledger.flush()
        clock.pass_(2 * 86_400.0)
        ledger.record([event(ts=clock.wall)])
        ledger.flush()
        ledger.flush()
        assert given_up == [3]
        assert ledger.backlog == 1
        ledger.close()

    def test_in_memory_it_works_too(self) -> None:
        ledger = open_ledger(None)
        ledger.record([event(n) for n in range(3)])
        ledger.flush()
        assert [e.seq for e in ledger.fetch(0, 10)] == [1, 2, 3]
        ledger.acknowledge(2)
        assert [e.seq for e in ledger.fetch(0, 10)] == [3]
        ledger.close()

    def test_in_memory_without_a_broker_nothing_is_kept(self) -> None:
        ledger = open_ledger(None, outbox=False)
        ledger.record([event(n) for n in range(3)])
        ledger.flush()
        assert ledger.fetch(0, 10) == []
        assert ledger.totals("door").lines == {"entrance": LineTotals(3, 0)}
        ledger.close()


class TestFaults:
    def test_garbage_is_kept_aside(self, path: Path) -> None:
        path.write_bytes(b"this is no database, but something else entirely" * 100)
        ledger = open_ledger(path)
        assert ledger.degraded is None
        ledger.record([event()])
        ledger.flush()
        aside = list(path.parent.glob("ledger.db.corrupt-*"))
        assert [p.read_bytes()[:10] for p in aside] == [b"this is no"]
        # Numbers go on above all that may have been given before.
        assert ledger.seq > NOON - 1
        ledger.close()

    def test_totals_of_a_damaged_file_are_saved(self, path: Path) -> None:
        first = open_ledger(path)
        for n in range(2000):
            first.record([event(n)])
        first.close()
        damage(path, table="event")
        second = open_ledger(path)
        assert second.totals("door").lines == {"entrance": LineTotals(2000, 0)}
        assert list(path.parent.glob("ledger.db.corrupt-*"))
        second.close()

    def test_damage_while_running_loses_no_count(self, path: Path) -> None:
        ledger = open_ledger(path)
        committed: List[CountEvent] = []
        ledger.listen(on_committed=committed.extend)
        ledger.record([event(n) for n in range(10)])
        ledger.flush()
        for part in path.parent.glob("ledger.db*"):
            if part.suffix != ".lock":
                part.write_bytes(b"\xff" * 8192)
        for n in range(10, 20):
            ledger.record([event(n)])
            ledger.flush()
        assert ledger.totals("door").lines == {"entrance": LineTotals(20, 0)}
        assert [e.track for e in committed] == list(range(20))
        ledger.close()
        again = open_ledger(path)
        assert again.totals("door").lines == {"entrance": LineTotals(20, 0)}
        assert again.seq == 20
        again.close()

    def test_a_folder_that_cannot_be_made_degrades_and_recovers(self, tmp_path: Path) -> None:
        blocker = tmp_path / "state"
        blocker.write_text("a file where the folder should be")
        clock = Clock()
        ledger = open_ledger(blocker / "ledger.db", clock)
        reasons: List[Optional[str]] = []
        ledger.listen(on_degraded=reasons.append)
        assert ledger.degraded
        ledger.record([event(n) for n in range(3)])
        ledger.flush()
        assert [e.seq for e in ledger.fetch(0, 10)] == [1, 2, 3]  # published from memory
        blocker.unlink()
        clock.pass_(10.0)
        ledger.flush()
        assert ledger.degraded is None
        assert reasons[-1] is None
        ledger.close()
        again = open_ledger(blocker / "ledger.db", clock)
        assert again.totals("door").lines == {"entrance": LineTotals(3, 0)}
        again.close()

    def test_what_was_counted_before_an_old_file_came_back_is_added(self, path: Path) -> None:
        first = open_ledger(path)
        first.record([event(n) for n in range(5)], {"hall": PlaceTotals(5, 5, 0, 5)})
        first.close()
        hidden = path.parent / "hidden"
        shutil.move(str(path), str(hidden))
        path.mkdir()  # SQLite cannot open a folder
        clock = Clock()
        second = open_ledger(path, clock)
        assert second.degraded
        second.record([event(9)], {"hall": PlaceTotals(1, 1, 0, 1)})
        second.flush()
        path.rmdir()
        shutil.move(str(hidden), str(path))
        clock.pass_(10.0)
        second.flush()
        assert second.degraded is None
        assert second.totals("door").lines == {"entrance": LineTotals(6, 0)}
        assert second.places() == {"hall": PlaceTotals(6, 6, 0, 6)}
        assert second.seq == 6
        second.close()

    def test_a_full_disk_degrades_and_recovers(self, path: Path) -> None:
        """SQLite's own SQLITE_FULL, from a limit on the number of pages."""
        clock = Clock()
        ledger = open_ledger(path, clock)
        ledger.flush()
        assert ledger._file is not None
        store = ledger._file._store
        assert store is not None
        pages = store._connection.execute("PRAGMA page_count").fetchone()[0]
        store._connection.execute(f"PRAGMA max_page_count = {pages + 1}")
        for n in range(500):
            ledger.record([event(n)])
        deadline = time.monotonic() + 5.0
        while not (ledger.degraded and len(ledger.fetch(0, 1000)) == 500):
            assert time.monotonic() < deadline
            time.sleep(0.01)
        assert "full" in ledger.degraded
        assert "free space" in ledger.degraded
        clock.pass_(10.0)
        ledger.record([event(500)])
        ledger.flush()  # opens again, without the limit
        assert ledger.degraded is None
        ledger.close()
        again = open_ledger(path)
        assert again.totals("door").lines == {"entrance": LineTotals(501, 0)}
        assert [e.track for e in again.fetch(0, 1000)] == list(range(501))
        again.close()

    def test_a_second_process_is_refused(self, path: Path) -> None:
        first = open_ledger(path)
        second = open_ledger(path)
        assert second.degraded
        assert "another edgecount process" in second.degraded
        first.close()
        second.close()

    def test_a_file_of_another_program_is_not_touched(self, path: Path) -> None:
        other = sqlite3.connect(str(path))
        other.execute("CREATE TABLE mine (x)")
        other.close()
        before = path.read_bytes()
        ledger = open_ledger(path)
        assert "another program" in (ledger.degraded or "")
        ledger.record([event()])
        ledger.close()
        assert path.read_bytes() == before

    def test_a_file_of_a_newer_edgecount_is_not_touched(self, path: Path) -> None:
        open_ledger(path).close()
        newer = sqlite3.connect(str(path))
        newer.execute("PRAGMA user_version = 99")
        newer.close()
        ledger = open_ledger(path)
        assert "layout 99" in (ledger.degraded or "")
        assert not list(path.parent.glob("*corrupt*"))
        ledger.close()

    @pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
    def test_a_folder_without_permission_is_named(self, tmp_path: Path) -> None:
        folder = tmp_path / "closed"
        folder.mkdir(mode=0o500)
        ledger = open_ledger(folder / "ledger.db")
        assert "write permission" in (ledger.degraded or "")
        ledger.close()

    @pytest.mark.parametrize("seed", range(30))
    def test_whatever_is_wrong_with_the_file_counting_goes_on(self, path: Path, seed: int) -> None:
        rng = random.Random(seed)
        first = open_ledger(path)
        for n in range(30):
            first.record([event(n), left(1.0)], {"hall": PlaceTotals(n, n, 0, n)})
            first.flush()
        first.close()
        content = bytearray(path.read_bytes())
        for _ in range(rng.choice([1, 5, 50, 500])):
            at = rng.randrange(len(content))
            content[at : at + 8] = rng.getrandbits(64).to_bytes(8, "big")
        path.write_bytes(content[: rng.choice([len(content), rng.randrange(len(content))])])
        second = open_ledger(path)
        second.record([event(99)], {"hall": PlaceTotals(1, 1, 0, 1)})
        second.flush()
        second.fetch(0, 1000)
        assert second.alive
        assert second.totals("door").lines["entrance"].into >= 1
        second.close()

    def test_only_two_bad_files_are_kept(self, path: Path) -> None:
        for n in range(4):
            path.write_bytes(b"garbage" * 1000 + bytes([n]))
            clock = Clock()
            clock.wall += n
            open_ledger(path, clock).close()
            path.unlink()
        kept = [p for p in path.parent.glob("*corrupt*") if not p.name.endswith(("-wal", "-shm"))]
        assert len(kept) == 2


def damage(path: Path, table: str) -> None:
    """Overwrite every page of a table but its root."""
    connection = sqlite3.connect(str(path))
    size = connection.execute("PRAGMA page_size").fetchone()[0]
    root = connection.execute(
        "SELECT rootpage FROM sqlite_master WHERE name = ?", (table,)
    ).fetchone()[0]
    total = connection.execute("PRAGMA page_count").fetchone()[0]
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    assert total > 60, "the table must fill most of the file"
    with path.open("r+b") as file:
        file.seek((root - 1) * size)
        file.write(b"\xee" * size)
        file.seek(40 * size)
        file.write(b"\xee" * size * 20)


class TestRetention:
    def test_old_events_go_and_totals_stay(self, path: Path) -> None:
        clock = Clock()
        ledger = open_ledger(path, clock, keep_days=10)
        ledger.record([event(n, ts=clock.wall) for n in range(100)])
        ledger.flush()
        ledger.acknowledge(100)
        clock.pass_(11 * 86_400.0)
        ledger.record([event(100, ts=clock.wall)])
        ledger.flush()
        clock.pass_(100.0)
        ledger.flush()
        ledger.close()
        reader = Reader(path)
        assert reader.oldest() == 101
        assert sum(t.into for t in reader.totals().values()) == 101
        reader.close()

    def test_events_with_an_unset_clock_are_not_old(self, path: Path) -> None:
        clock = Clock()
        ledger = open_ledger(path, clock, keep_days=10)
        ledger.record([event(n, ts=12.0) for n in range(5)])
        ledger.flush()
        clock.pass_(100.0)
        ledger.flush()
        clock.pass_(100.0)
        ledger.flush()
        assert ledger.backlog == 5
        assert len(ledger.fetch(0, 10)) == 5
        ledger.close()

    def test_the_file_stays_within_its_size(self, path: Path) -> None:
        clock = Clock()
        ledger = open_ledger(path, clock, max_mb=1.1, outbox=False)
        for n in range(60):
            ledger.record([event(n)] * 1000)
            ledger.flush()
            clock.pass_(61.0)
            for _ in range(3):
                ledger.flush()
        ledger.close()
        assert path.stat().st_size < 1.6e6
        reader = Reader(path)
        assert sum(t.into for t in reader.totals().values()) == 60_000
        reader.close()


class TestFigures:
    def test_a_minute_is_told_when_it_is_over(self, path: Path) -> None:
        clock = Clock()
        ledger = open_ledger(path, clock)
        told: List[Aggregate] = []
        ledger.listen(on_aggregates=told.extend)
        ledger.record(
            [event(1, ts=NOON + 1), event(2, "out", NOON + 2)], {"hall": PlaceTotals(7, 9, 2, 8)}
        )
        for heads in (1, 5, 3):
            ledger.sample({("door", "hall"): heads}, {"hall": 2 * heads})
        ledger.flush()
        assert told == []
        clock.pass_(63.0)
        ledger.flush()
        ledger.flush()
        (minute,) = told
        assert (minute.period, minute.start, minute.end) == ("minute", NOON, NOON + 60)
        assert (minute.lines["door", "entrance"].into, minute.lines["door", "entrance"].out) == (
            1,
            1,
        )
        assert (minute.zones["door", "hall"].peak, minute.zones["door", "hall"].mean) == (5, 3.0)
        hall = minute.places["hall"]
        assert (hall.into, hall.out, hall.peak, hall.mean) == (9, 2, 10, 6.0)
        ledger.close()

    def test_hours_and_days_are_made_of_minutes(self, path: Path) -> None:
        clock = Clock()
        ledger = open_ledger(path, clock, timezone="Asia/Kolkata")
        told: List[Aggregate] = []
        ledger.listen(on_aggregates=told.extend)
        for _ in range(24 * 12):
            ledger.record([event(ts=clock.wall)])
            ledger.flush()
            clock.pass_(300.0)
            ledger.flush()
        hours = [a for a in told if a.period == "hour"]
        days = [a for a in told if a.period == "day"]
        assert [a.lines["door", "entrance"].into for a in hours] == [12] * len(hours)
        assert len(hours) in (23, 24)
        (day,) = days
        assert day.end - day.start == 86_400
        assert day.end % 86_400 == 86_400 - 19_800  # midnight in India is 18:30 UTC
        # The day had begun before the ledger did: from noon UTC to 18:30.
        assert day.lines["door", "entrance"].into == 78
        ledger.close()

    def test_a_minute_that_a_crash_interrupted_is_not_lost(self, path: Path) -> None:
        clock = Clock()
        first = open_ledger(path, clock)
        first.record([event(ts=NOON + 1)], {"hall": PlaceTotals(1, 1, 0, 1)})
        first.close()  # in the middle of the minute
        clock.pass_(600.0)
        second = open_ledger(path, clock)
        clock.pass_(63.0)
        second.flush()
        second.flush()
        second.close()
        reader = Reader(path)
        rows = {(r.start, r.key.kind): r.figures for r in reader.figures(60, 0, 4e9)}
        reader.close()
        assert rows[int(NOON), "line"].into == 1
        assert sum(f.into for (_, kind), f in rows.items() if kind == "place") == 1

    def test_a_jump_over_decades_makes_no_decades_of_hours(self, path: Path) -> None:
        clock = Clock()
        clock.wall = 100.0
        ledger = open_ledger(path, clock)
        told: List[Aggregate] = []
        ledger.listen(on_aggregates=told.extend)
        ledger.record([event(ts=100.0)])
        ledger.flush()
        clock.wall = NOON
        started = time.monotonic()
        for _ in range(3):
            ledger.flush()
            clock.pass_(61.0)
        ledger.flush()
        assert time.monotonic() - started < 5.0
        assert [a for a in told if a.start < NOON - 50 * 86_400] == []
        ledger.close()

    def test_dwell_times_are_kept(self, path: Path) -> None:
        ledger = open_ledger(path)
        ledger.record([left(3.0), left(1.0), left(2.0)])
        ledger.close()
        reader = Reader(path)
        assert list(reader.dwell_times(0, 4e9).values()) == [[1.0, 2.0, 3.0]]
        reader.close()


class LedgerAgainstModel(RuleBasedStateMachine):
    """Whatever is done in whatever order, the ledger equals a dictionary."""

    def __init__(self) -> None:
        super().__init__()
        import tempfile

        self.folder = tempfile.TemporaryDirectory()
        self.path = Path(self.folder.name) / "ledger.db"
        self.clock = Clock()
        self.model: Dict[str, List[int]] = {}
        self.recorded = 0
        self.acknowledged = 0
        self.ledger = open_ledger(self.path, self.clock)

    @rule(
        directions=st.lists(st.sampled_from(["in", "out"]), max_size=5), name=st.sampled_from("ab")
    )
    def record(self, directions: List[str], name: str) -> None:
        self.ledger.record([event(direction=d, name=name, ts=self.clock.wall) for d in directions])
        for direction in directions:
            self.model.setdefault(name, [0, 0])[direction == "out"] += 1
        self.recorded += len(directions)

    @rule()
    def reset(self) -> None:
        self.ledger.reset(self.clock.wall)
        self.model = {name: [0, 0] for name in self.model}

    @rule(seconds=st.floats(-100, 4000))
    def clock_moves(self, seconds: float) -> None:
        self.clock.wall += seconds
        self.clock.steady += abs(seconds)

    @rule(data=st.data())
    def acknowledge(self, data: st.DataObject) -> None:
        self.ledger.flush()
        self.acknowledged = data.draw(st.integers(self.acknowledged, self.recorded))
        self.ledger.acknowledge(self.acknowledged)

    @rule()
    def restart(self) -> None:
        self.ledger.close()
        self.ledger = open_ledger(self.path, self.clock)

    @invariant()
    def totals_are_right(self) -> None:
        lines = self.ledger.totals("door").lines
        assert {n: [t.into, t.out] for n, t in lines.items()} == self.model

    @invariant()
    def outbox_is_right(self) -> None:
        assert self.ledger.flush()
        numbers = [e.seq for e in self.ledger.fetch(0, 10_000)]
        assert numbers == list(range(self.acknowledged + 1, self.recorded + 1))

    def teardown(self) -> None:
        self.ledger.close()
        self.folder.cleanup()


TestModel = LedgerAgainstModel.TestCase
TestModel.settings = settings(
    max_examples=15,
    stateful_step_count=20,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)


@given(st.lists(st.floats(0, 4e9), min_size=1, max_size=50))
def test_ids_rise_strictly_whatever_the_clock_does(times: List[float]) -> None:
    from edgecount.count._ulid import IdFactory

    factory = IdFactory()
    ids = [factory.make(ts) for ts in times for _ in range(3)]
    assert ids == sorted(set(ids))
    assert all(len(i) == 26 for i in ids)
