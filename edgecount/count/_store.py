"""The ledger's file: SQL in one place, no policy. Every method may raise ``sqlite3.Error``."""

import sqlite3
from pathlib import Path
from typing import Dict, Iterable, Iterator, List, Mapping, Sequence, Tuple, Union

from edgecount.count import _schema, heatmap
from edgecount.count._aggregates import FigureRow, Period, Sampled
from edgecount.count.totals import CounterKey, PlaceTotals
from edgecount.records import CountEvent, Figures, LineTotals

_DIRECTIONS = {"line": ("in", "out"), "zone": ("entered", "left")}
_BUSY_S = 2.0
_EVENTS = (
    "SELECT e.seq, e.id, e.ts, c.kind, c.camera, c.name, e.outward, e.track, e.frame, e.dwell_s"
    " FROM event e JOIN counter c ON c.id = e.counter"
)
_ON_CONFLICT = (
    "ON CONFLICT (period, start, counter) DO UPDATE SET into_ = into_ + excluded.into_,"
    " out_ = out_ + excluded.out_, peak = max(peak, excluded.peak),"
    " total = total + excluded.total, samples = samples + excluded.samples"
)
_ROLL_EVENTS = (
    "INSERT INTO aggregate SELECT 60, CAST(ts / 60 AS INTEGER) * 60, counter,"  # noqa: S608
    " sum(1 - outward), sum(outward), 0, 0, 0 FROM event WHERE seq > ? GROUP BY 2, 3 "
    + _ON_CONFLICT
)
_ROLL_VALUES = "INSERT INTO aggregate VALUES (60, ?, ?, ?, ?, ?, ?, ?) " + _ON_CONFLICT  # noqa: S608
MetaValue = Union[int, float, str]


class Reader:
    """A connection that reads what is committed, beside the one that writes."""

    def __init__(self, path: Path) -> None:
        """Open ``path`` for reading. Raises ``sqlite3.Error`` where there is no such file."""
        self.path = path
        # Not mode=ro: after a power cut the first who comes must recover the write-ahead log.
        self._connection = _connect(f"{path.resolve().as_uri()}?mode=rw", uri=True)
        self._connection.execute("PRAGMA query_only = ON")

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def check(self) -> None:
        """Read every page. Raises ``sqlite3.DatabaseError`` where the file is damaged."""
        verdict = self._connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if verdict != "ok":
            raise sqlite3.DatabaseError(str(verdict))

    def meta(self) -> Dict[str, MetaValue]:
        """All single values."""
        return dict(self._connection.execute("SELECT key, value FROM meta"))

    def totals(self) -> Dict[CounterKey, LineTotals]:
        """Running totals of every counter that was ever used."""
        rows = self._connection.execute(
            "SELECT kind, camera, name, into_, out_ FROM counter WHERE kind IN ('line', 'zone')"
        )
        return {_key(row[:3]): LineTotals(int(row[3]), int(row[4])) for row in rows}

    def places(self) -> Dict[str, PlaceTotals]:
        """State of every place."""
        rows = self._connection.execute("SELECT name, occupancy, into_, out_, peak FROM place")
        return {str(row[0]): PlaceTotals(*map(int, row[1:])) for row in rows}

    def unrolled(self) -> Dict[str, LineTotals]:
        """Entries and exits of places that are not in the figures of a minute yet."""
        rows = self._connection.execute(
            "SELECT name, new_into, new_out FROM place WHERE new_into <> 0 OR new_out <> 0"
        )
        return {str(row[0]): LineTotals(int(row[1]), int(row[2])) for row in rows}

    def figures(self, seconds: int, since: float, until: float) -> List[FigureRow]:
        """Figures of all periods of a length that start in ``[since, until)``, in order."""
        rows = self._connection.execute(
            "SELECT a.start, c.kind, c.camera, c.name, a.into_, a.out_, a.peak,"
            " CASE WHEN a.samples THEN 1.0 * a.total / a.samples ELSE 0.0 END"
            " FROM aggregate a JOIN counter c ON c.id = a.counter"
            " WHERE a.period = ? AND a.start >= ? AND a.start < ?"
            " ORDER BY a.start, c.kind, c.camera, c.name",
            (seconds, since, until),
        )
        return [FigureRow(row[0], CounterKey(*row[1:4]), Figures(*row[4:])) for row in rows]

    def figures_of(self, start: int, end: float) -> List[FigureRow]:
        """Figures of a stretch of time that need not be over, made from its minutes."""
        rows = self._connection.execute(
            "SELECT c.kind, c.camera, c.name, sum(a.into_), sum(a.out_), max(a.peak),"
            " CASE WHEN sum(a.samples) THEN 1.0 * sum(a.total) / sum(a.samples) ELSE 0.0 END"
            " FROM aggregate a JOIN counter c ON c.id = a.counter"
            " WHERE a.period = 60 AND a.start >= ? AND a.start < ?"
            " GROUP BY c.id ORDER BY c.kind, c.camera, c.name",
            (start, end),
        )
        return [FigureRow(start, CounterKey(*row[:3]), Figures(*row[3:])) for row in rows]

    def heat(self, camera: str, since: float, until: float) -> heatmap.Grid:
        """Person-seconds per cell over all hours that start in ``[since, until)``."""
        rows = self._connection.execute(
            "SELECT cells FROM heat WHERE camera = ? AND hour >= ? AND hour < ?",
            (camera, since, until),
        )
        total = heatmap.empty()
        for (cells,) in rows:
            total += heatmap.from_bytes(cells)
        return total

    def heat_cameras(self) -> List[str]:
        """Cameras that have a heat map."""
        rows = self._connection.execute("SELECT DISTINCT camera FROM heat ORDER BY camera")
        return [row[0] for row in rows]

    def dwell_times(self, since: float, until: float) -> Dict[CounterKey, List[float]]:
        """How long people stayed in each zone, seconds, rising; by time of leaving."""
        rows = self._connection.execute(
            "SELECT c.kind, c.camera, c.name, e.dwell_s FROM event e"
            " JOIN counter c ON c.id = e.counter"
            " WHERE c.kind = 'zone' AND e.outward = 1 AND e.ts >= ? AND e.ts < ?"
            " ORDER BY c.camera, c.name, e.dwell_s",
            (since, until),
        )
        times: Dict[CounterKey, List[float]] = {}
        for kind, camera, name, dwell_s in rows:
            times.setdefault(CounterKey(kind, camera, name), []).append(dwell_s)
        return times

    def events_between(self, since: float, until: float) -> Iterator[CountEvent]:
        """All events that happened in ``[since, until)``, in the order of their numbers."""
        rows = self._connection.execute(
            f"{_EVENTS} WHERE e.ts >= ? AND e.ts < ? ORDER BY e.seq", (since, until)
        )
        return _events(rows)

    def events(self, after: int, limit: int) -> List[CountEvent]:
        """At most ``limit`` events with a sequence number above ``after``, in order."""
        rows = self._connection.execute(
            f"{_EVENTS} WHERE e.seq > ? ORDER BY e.seq LIMIT ?", (after, limit)
        )
        return list(_events(rows))

    def newest(self) -> Tuple[int, str]:
        """Sequence number and id of the newest event; 0 and "" where there is none."""
        row = self._connection.execute(
            "SELECT seq, id FROM event ORDER BY seq DESC LIMIT 1"
        ).fetchone()
        return (row[0], row[1]) if row else (0, "")

    def count_until(self, seq: int, after: int) -> int:
        """Number of events in ``(after, seq]``."""
        row = self._connection.execute(
            "SELECT count(*) FROM event WHERE seq > ? AND seq <= ?", (after, seq)
        ).fetchone()
        return int(row[0])

    def newest_before(self, ts: float, not_before: float) -> int:
        """Greatest sequence number of an event in ``[not_before, ts)``; 0 where there is none."""
        row = self._connection.execute(
            "SELECT max(seq) FROM event WHERE ts >= ? AND ts < ?", (not_before, ts)
        ).fetchone()
        return int(row[0] or 0)

    def oldest(self) -> int:
        """Sequence number of the oldest event; 0 where there is none."""
        return int(self._connection.execute("SELECT min(seq) FROM event").fetchone()[0] or 0)

    def used_bytes(self) -> int:
        """Bytes of the file that hold data (free pages will be used again)."""
        pragma = self._connection.execute
        pages = pragma("PRAGMA page_count").fetchone()[0]
        free = pragma("PRAGMA freelist_count").fetchone()[0]
        return int(pages - free) * int(pragma("PRAGMA page_size").fetchone()[0])


class Store(Reader):
    """The one connection that writes. The methods that write belong into a transaction.

    Pages are 1 KiB: a commit of one event touches two or three of them, and what an SD
    card has to take is the number of pages. ``synchronous = FULL`` makes every commit
    survive a power cut (in WAL mode NORMAL keeps the file whole, but may lose commits).
    """

    def __init__(self, path: Path) -> None:
        """Open or create ``path`` and bring it to the present layout.

        Raises:
            sqlite3.Error: It cannot be opened, or is damaged.
            NewerSchemaError, ForeignFileError: It is not this program's to write to.
        """
        self.path = path
        self._counters: Dict[CounterKey, int] = {}
        self._connection = _connect(str(path))
        try:
            self._prepare()
        except BaseException:
            self._connection.close()
            raise

    def _prepare(self) -> None:
        execute = self._connection.execute
        _schema.claim(self._connection)
        execute("PRAGMA page_size = 1024")
        mode = execute("PRAGMA journal_mode = WAL").fetchone()[0]
        if mode != "wal":
            raise sqlite3.OperationalError(f"the file system gives no WAL mode, only {mode!r}")
        execute("PRAGMA journal_size_limit = 4194304")
        self.version_found = _schema.migrate(self._connection)
        self._counters = self._read_counters()

    def begin(self, *, durable: bool = True) -> None:
        """Start a transaction. Not ``durable``: a power cut may take it back, and costs no sync."""
        self._connection.execute(f"PRAGMA synchronous = {'FULL' if durable else 'NORMAL'}")
        self._connection.execute("BEGIN IMMEDIATE")

    def commit(self) -> None:
        """Make the transaction permanent."""
        self._connection.execute("COMMIT")

    def rollback(self) -> None:
        """Undo what the transaction did; harmless where there is none."""
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")
        # A counter that was made in the transaction is gone with it.
        self._counters = self._read_counters()

    def add_events(self, events: Sequence[CountEvent]) -> None:
        """Append events that carry their id and sequence number."""
        self._connection.executemany(
            "INSERT INTO event VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
            [self._event_row(e) for e in events],
        )

    def set_totals(self, totals: Mapping[CounterKey, LineTotals]) -> None:
        """Store running totals."""
        self._connection.executemany(
            "UPDATE counter SET into_ = ?, out_ = ? WHERE id = ?",
            [(t.into, t.out, self._counter(key)) for key, t in totals.items()],
        )

    def set_places(
        self, places: Mapping[str, PlaceTotals], unrolled: Mapping[str, LineTotals]
    ) -> None:
        """Store the state of places, and what is not in their figures yet."""
        new = {name: unrolled.get(name, LineTotals()) for name in places}
        self._connection.executemany(
            "INSERT OR REPLACE INTO place VALUES (?, ?, ?, ?, ?, ?, ?)",
            [
                (name, p.occupancy, p.into, p.out, p.peak, new[name].into, new[name].out)
                for name, p in places.items()
            ],
        )

    def roll_events(self, after: int) -> None:
        """Add the events above ``after`` to the figures of their minutes."""
        self._connection.execute(_ROLL_EVENTS, (after,))

    def roll_places(self, minute: int, unrolled: Mapping[str, LineTotals]) -> None:
        """Add entries and exits of places to the figures of ``minute``."""
        self._connection.executemany(
            _ROLL_VALUES,
            [
                (minute, self._counter(CounterKey("place", "", name)), new.into, new.out, 0, 0, 0)
                for name, new in unrolled.items()
            ],
        )
        self._connection.executemany(
            "UPDATE place SET new_into = 0, new_out = 0 WHERE name = ?",
            [(name,) for name in unrolled],
        )

    def roll_samples(self, minute: int, samples: Mapping[CounterKey, Sampled]) -> None:
        """Add what was sampled to the figures of ``minute``."""
        self._connection.executemany(
            _ROLL_VALUES,
            [
                (minute, self._counter(key), 0, 0, s.peak, s.total, s.samples)
                for key, s in samples.items()
            ],
        )

    def add_heat(self, hour: int, camera: str, grid: heatmap.Grid) -> None:
        """Add person-seconds to the hour that starts at ``hour``."""
        total = self.heat(camera, hour, hour + 1) + grid
        self._connection.execute(
            "INSERT OR REPLACE INTO heat VALUES (?, ?, ?)",
            (hour, camera, heatmap.to_bytes(total)),
        )

    def delete_heat(self, before: float) -> None:
        """Delete the heat of hours that start before ``before``."""
        self._connection.execute("DELETE FROM heat WHERE hour < ?", (before,))

    def roll_period(self, period: Period) -> None:
        """Make the figures of an hour or a day from those of its minutes."""
        self._connection.execute(
            "INSERT OR REPLACE INTO aggregate SELECT ?, ?, counter, sum(into_), sum(out_),"
            " max(peak), sum(total), sum(samples) FROM aggregate"
            " WHERE period = 60 AND start >= ? AND start < ? GROUP BY counter",
            (period.seconds, period.start, period.start, period.end),
        )

    def delete_figures(self, seconds: int, before: float) -> None:
        """Delete the figures of periods that start before ``before``."""
        self._connection.execute(
            "DELETE FROM aggregate WHERE period = ? AND start < ?", (seconds, before)
        )

    def set_meta(self, values: Mapping[str, MetaValue]) -> None:
        """Store single values."""
        self._connection.executemany("INSERT OR REPLACE INTO meta VALUES (?, ?)", values.items())

    def delete_until(self, seq: int) -> int:
        """Delete all events up to ``seq`` but never the newest one; returns how many went."""
        cursor = self._connection.execute(
            "DELETE FROM event WHERE seq <= ? AND seq < (SELECT max(seq) FROM event)", (seq,)
        )
        return cursor.rowcount

    def _read_counters(self) -> Dict[CounterKey, int]:
        rows = self._connection.execute("SELECT kind, camera, name, id FROM counter")
        return {CounterKey(*row[:3]): row[3] for row in rows}

    def _counter(self, key: CounterKey) -> int:
        known = self._counters.get(key)
        if known is None:
            cursor = self._connection.execute(
                "INSERT INTO counter (kind, camera, name) VALUES (?, ?, ?)", key
            )
            known = self._counters[key] = int(cursor.lastrowid or 0)
        return known

    def _event_row(self, event: CountEvent) -> Tuple[object, ...]:
        counter = self._counter(CounterKey(event.kind, event.camera, event.name))
        outward = _DIRECTIONS[event.kind].index(event.direction)
        return (
            event.seq, event.id, event.ts, counter, outward,
            event.track, event.frame, event.dwell_s,
        )  # fmt: skip


def _connect(name: str, *, uri: bool = False) -> sqlite3.Connection:
    return sqlite3.connect(
        name, timeout=_BUSY_S, isolation_level=None, check_same_thread=False, uri=uri
    )


def _key(row: Sequence[object]) -> CounterKey:
    """Raises ValueError for a counter that no edgecount has made."""
    kind, camera, name = map(str, row)
    if kind not in _DIRECTIONS:
        raise ValueError(f"there are no counters of kind {kind!r}")
    return CounterKey(kind, camera, name)


def is_outward(event: CountEvent) -> bool:
    """Whether the event leads out of the line's or zone's inside."""
    return event.direction == _DIRECTIONS[event.kind][1]


def _events(rows: Iterable[Sequence[object]]) -> Iterator[CountEvent]:
    for row in rows:
        try:
            event = _event(row)
        except (ValueError, TypeError, LookupError, OverflowError) as error:
            raise sqlite3.DatabaseError(f"an event is damaged: {error}") from error
        yield event


def _event(row: Sequence[object]) -> CountEvent:
    seq, id_, ts, kind, camera, name, outward, track, frame, dwell_s = row
    return CountEvent(
        kind=str(kind),
        camera=str(camera),
        name=str(name),
        direction=_DIRECTIONS[str(kind)][int(outward)],  # type: ignore[call-overload]
        track=int(track),  # type: ignore[call-overload]
        frame=int(frame),  # type: ignore[call-overload]
        ts=float(ts),  # type: ignore[arg-type]
        dwell_s=float(dwell_s),  # type: ignore[arg-type]
        id=str(id_),
        seq=int(seq),  # type: ignore[call-overload]
    )
