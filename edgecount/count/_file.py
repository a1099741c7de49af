"""The ledger's file as a whole: where it lies, whose it is, what to do when it is damaged."""

import fcntl
import os
import sqlite3
import threading
import time
from dataclasses import dataclass, field
from datetime import tzinfo
from pathlib import Path
from typing import Callable, Dict, List, Mapping, Optional, Sequence, Tuple, TypeVar

import structlog

from edgecount.count._aggregates import (
    DAY,
    HOUR,
    KEEP_S,
    MINUTE,
    FigureRow,
    Period,
    Sampled,
    closed,
)
from edgecount.count._schema import ForeignFileError, NewerSchemaError
from edgecount.count._store import MetaValue, Reader, Store
from edgecount.count._ulid import is_id
from edgecount.count.heatmap import Grid
from edgecount.count.totals import CounterKey, PlaceTotals
from edgecount.errors import LedgerError
from edgecount.records import CountEvent, LineTotals

# Before 2020 a clock was never set: a board without a battery boots in 1970.
CLOCK_IS_SET = 1_577_836_800.0
_KEPT_BAD_FILES = 2
_MOST_SAVED = 50_000
_LONGEST_CATCH_UP_S = 40 * DAY
_SIDE_FILES = ("", "-wal", "-shm")

# ValueError: text that is no UTF-8, out of a damaged page or in SQLite's words about it.
_FAULTS = (sqlite3.Error, OSError, ValueError)
T = TypeVar("T")

_log = structlog.get_logger(__name__)


class DamagedError(LedgerError):
    """The file was damaged and has been put aside; a new one can be opened in its place.

    ``unpublished`` holds the events that could still be read from it.
    """

    def __init__(self, message: str, unpublished: Sequence[CountEvent] = ()) -> None:
        super().__init__(message)
        self.unpublished = unpublished


@dataclass(frozen=True)
class Group:
    """What goes into the file in one transaction.

    Attributes:
        events: With id and number.
        totals: Running totals that changed.
        places: States of places that changed.
        meta: Single values.
        unrolled: Entries and exits of those places that are in no minute's figures yet.
    """

    events: Sequence[CountEvent] = ()
    totals: Mapping[CounterKey, LineTotals] = field(default_factory=dict)
    places: Mapping[str, PlaceTotals] = field(default_factory=dict)
    meta: Mapping[str, MetaValue] = field(default_factory=dict)
    unrolled: Mapping[str, LineTotals] = field(default_factory=dict)

    def __bool__(self) -> bool:
        return bool(self.events or self.totals or self.places or self.meta)


@dataclass(frozen=True)
class Roll:
    """A minute that is over.

    Attributes:
        minute: Its start, UTC seconds since 1970.
        unrolled: Entries and exits of places in it.
        samples: What was seen in it.
        heat: Person-seconds by camera since the last time that some were given; mostly empty.
        zone: Time zone in which days are days.
    """

    minute: int
    unrolled: Mapping[str, LineTotals]
    samples: Mapping[CounterKey, Sampled]
    heat: Mapping[str, Grid]
    zone: tzinfo


@dataclass(frozen=True)
class Restored:
    """What a file holds.

    Attributes:
        totals: Running totals since ``since``.
        places: State of places.
        since: When totals were last reset; None in a new file.
        seq: The last sequence number that was given.
        newest_id: Id of the newest event, or "".
        published: All events up to this number were published, or given up.
        outbox: Whether the run that wrote it had somebody to publish to.
        unrolled: Entries and exits of places that are in no minute's figures yet.
        unpublished: Events saved from a damaged file; empty for a sound one, which has them.
    """

    totals: Mapping[CounterKey, LineTotals]
    places: Mapping[str, PlaceTotals]
    since: Optional[float]
    seq: int
    newest_id: str
    published: int
    outbox: bool
    unrolled: Mapping[str, LineTotals] = field(default_factory=dict)
    unpublished: Sequence[CountEvent] = ()

    @staticmethod
    def read(source: Reader) -> "Restored":
        """Take everything out of an open file.

        Raises:
            sqlite3.Error: It cannot be read, or holds what cannot be.
        """
        try:
            return Restored._read(source)
        except (ValueError, TypeError, OverflowError) as error:
            raise sqlite3.DatabaseError(f"a value is damaged: {error}") from error

    @staticmethod
    def _read(source: Reader) -> "Restored":
        meta = source.meta()
        newest, newest_id = source.newest()
        if (newest, newest_id) != (0, "") and not is_id(str(newest_id)):
            raise ValueError(f"{newest_id!r} is no id of an event")
        return Restored(
            totals=source.totals(),
            places=source.places(),
            since=float(meta["since"]) if "since" in meta else None,
            seq=max(int(newest), int(meta.get("base", 0))),
            newest_id=str(newest_id),
            published=int(meta.get("published", 0)),
            outbox=bool(meta.get("outbox", True)),
            unrolled=source.unrolled(),
        )


class LedgerFile:
    """One ledger file, held by one process. ``read`` may be called from any thread."""

    def __init__(self, path: Path, clock: Callable[[], float] = time.time) -> None:
        self.path = path
        self._clock = clock
        self._lock: Optional[int] = None
        self._store: Optional[Store] = None
        self._reader: Optional[Reader] = None
        self._reading = threading.Lock()

    @property
    def is_open(self) -> bool:
        """Whether it can be written to."""
        return self._store is not None

    def open(self) -> Restored:
        """Open or create the file; a damaged one is put aside and replaced.

        Raises:
            LedgerError: It cannot be used now; the message says why and what to do.
        """
        try:
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._acquire()
            restored = self._open()
            self._open_reader()
        except (*_FAULTS, NewerSchemaError, ForeignFileError) as error:
            self._close_store()
            raise LedgerError(explain(self.path, error)) from error
        except LedgerError:
            self._close_store()
            raise
        return restored

    def write(self, group: Group, *, durable: bool = True) -> None:
        """Commit ``group``.

        Args:
            group: All of it is in the file afterwards, or nothing.
            durable: False spares the sync; a power cut may then undo the commit.

        Raises:
            DamagedError: The file was damaged and is put aside; call ``open`` again.
            LedgerError: The file cannot be written now.
        """
        assert self._store is not None, "open() comes first"
        try:
            self._store.begin(durable=durable)
            self._store.add_events(group.events)
            self._store.set_totals(group.totals)
            self._store.set_places(group.places, group.unrolled)
            self._store.set_meta(group.meta)
            self._store.commit()
        except _FAULTS as error:
            raise self._failed(error) from error

    def roll(self, roll: Roll) -> List[Tuple[Period, List[FigureRow]]]:
        """Make figures of a minute that is over, and of the hours and days that ended with it.

        Figures are derived from events, so a power cut that undoes this loses none of them.

        Returns:
            The periods that ended, with their figures.

        Raises:
            LedgerError: As in ``write``.
        """
        assert self._store is not None, "open() comes first"
        try:
            self._store.begin(durable=False)
            periods = self._roll(self._store, roll)
            self._store.commit()
            return [(p, self._store.figures(p.seconds, p.start, p.end)) for p in periods]
        except _FAULTS as error:
            raise self._failed(error) from error

    def add_heat(self, minute: int, heat: Mapping[str, Grid]) -> None:
        """Add person-seconds by camera to the hour of ``minute``. Raises LedgerError."""
        assert self._store is not None, "open() comes first"
        try:
            self._store.begin(durable=False)
            _add_heat(self._store, minute, heat)
            self._store.commit()
        except _FAULTS as error:
            raise self._failed(error) from error

    def _roll(self, store: Store, roll: Roll) -> List[Period]:
        end = roll.minute + MINUTE
        meta = store.meta()
        rolled, newest = int(meta.get("rolled", 0)), store.newest()[0]
        if newest > rolled:
            store.roll_events(rolled)
            store.set_meta({"rolled": newest})
        store.roll_places(roll.minute, roll.unrolled)
        store.roll_samples(roll.minute, roll.samples)
        _add_heat(store, roll.minute, roll.heat)
        until = float(meta.get("rolled_until", roll.minute))
        periods = _ended(until, end, roll.zone)
        for period in periods:
            store.roll_period(period)
        if periods or "rolled_until" not in meta or until > end + DAY:
            store.set_meta({"rolled_until": end})
            for seconds, keep_s in KEEP_S.items():
                store.delete_figures(seconds, end - keep_s)
            store.delete_heat(end - KEEP_S[HOUR])
        return [Period(MINUTE, roll.minute, end), *periods]

    def prune(self, *, before: float, max_bytes: float, chunk: int) -> int:
        """Delete some old events.

        Args:
            before: Events before this time go (UTC seconds); ones with an unset clock stay
                until newer ones go.
            max_bytes: While the file holds more than this, the oldest go too.
            chunk: How many may go in one call, so that commits are not held up.

        Returns:
            The highest sequence number that was deleted; 0 where there was nothing to do.

        Raises:
            LedgerError: As in ``write``.
        """
        assert self._store is not None, "open() comes first"
        try:
            last = self._store.newest_before(before, CLOCK_IS_SET)
            oldest = self._store.oldest()
            if self._store.used_bytes() > max_bytes:
                last = max(last, oldest + chunk - 1)
            if last < oldest or not oldest:
                return 0
            last = min(last, oldest + chunk - 1)
            self._store.begin(durable=False)
            deleted = self._store.delete_until(last)
            self._store.commit()
        except _FAULTS as error:
            raise self._failed(error) from error
        return last if deleted else 0

    def newest_before(self, ts: float) -> int:
        """Greatest number of an event older than ``ts`` (clock set); 0: none, or unreadable."""
        with self._reading:
            try:
                return self._reader.newest_before(ts, CLOCK_IS_SET) if self._reader else 0
            except _FAULTS:
                return 0  # the writer meets the same fault and reports it

    def read(self, after: int, limit: int) -> List[CountEvent]:
        """At most ``limit`` committed events above ``after``; none while it is not open.

        A file that cannot be written to (the disk is full, say) is read all the same.

        Raises:
            LedgerError: It cannot be read.
        """
        with self._reading:
            try:
                return self._reader.events(after, limit) if self._reader else []
            except _FAULTS as error:
                raise LedgerError(explain(self.path, error)) from error

    def close(self) -> None:
        """Let go of the file. May be called twice, and after a fault."""
        with self._reading:
            connections = (self._reader, self._store)
            self._reader, self._store = None, None
        for connection in connections:
            if connection is not None:
                _close(connection)
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None

    def _acquire(self) -> None:
        """Two writers would give the same numbers twice, so the second one is refused."""
        if self._lock is not None:
            return
        name = self.path.with_name(self.path.name + ".lock")
        lock = os.open(str(name), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o640)
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            os.close(lock)
            raise LedgerError(
                f"the ledger {self.path} is used by another edgecount process; "
                "stop that one, or give this one a ledger.path of its own"
            ) from error
        self._lock = lock

    def _open_reader(self) -> None:
        with self._reading:
            if self._reader is not None:
                _close(self._reader)
            self._reader = Reader(self.path)

    def _open(self) -> Restored:
        try:
            self._store = Store(self.path)
            return Restored.read(self._store)
        except _FAULTS as error:
            if not is_damage(error):
                raise
            self._close_store()
            return self._replace(error)

    def _replace(self, damage: Exception) -> Restored:
        aside = set_aside(self.path, self._clock())
        rest = salvage(aside, self._clock())
        _log.error(
            "ledger_replaced",
            path=str(self.path),
            kept_as=str(aside),
            error=str(damage),
            totals_saved=bool(rest.totals),
        )
        self._store = Store(self.path)
        meta: Dict[str, MetaValue] = {"base": rest.seq, "published": rest.published}
        if rest.since is not None:
            meta["since"] = rest.since
        self.write(Group(rest.unpublished, rest.totals, rest.places, meta))
        return rest

    def _failed(self, error: Exception) -> LedgerError:
        """Stop writing, and translate; after damage also make room for a new file."""
        self._close_store()
        if not is_damage(error):
            return LedgerError(explain(self.path, error))
        self.close()
        try:
            aside = set_aside(self.path, self._clock())
        except OSError as again:
            return LedgerError(explain(self.path, again))
        return DamagedError(
            f"the ledger was damaged ({error}) and is kept as {aside}",
            salvage(aside, self._clock()).unpublished,
        )

    def _close_store(self) -> None:
        if self._store is not None:
            _close(self._store)
            self._store = None


def ledger_path(path: Optional[Path], environ: Mapping[str, str]) -> Path:
    """Where the ledger lies: as configured, or in the service's or the user's state folder."""
    if path is not None:
        return path
    if environ.get("STATE_DIRECTORY"):
        return Path(environ["STATE_DIRECTORY"].split(":")[0]) / "ledger.db"
    state = environ.get("XDG_STATE_HOME")
    return (Path(state) if state else Path.home() / ".local" / "state") / "edgecount" / "ledger.db"


def is_damage(error: Exception) -> bool:
    """Whether the file's content is wrong (rather than its surroundings)."""
    if isinstance(error, sqlite3.OperationalError):
        return str(error).startswith("no such ")  # a table or column that must be there
    return isinstance(error, (sqlite3.Error, ValueError))


def explain(path: Path, error: Exception) -> str:
    """Why the ledger cannot be used, and what to do about it."""
    return f"the ledger {path} cannot be used: {error}; {_advice(error)}"


def _advice(error: Exception) -> str:
    if isinstance(error, NewerSchemaError):
        return "install the edgecount that wrote it, or set ledger.path to a new file"
    if isinstance(error, ForeignFileError):
        return "set ledger.path to a file of its own"
    text = str(error).lower()
    if "full" in text or "no space" in text or "too large" in text:
        return "free space on that disk"
    if "readonly" in text or "read-only" in text or "unable to open" in text or "denied" in text:
        return "give this user write permission to the folder, or set ledger.path"
    return "check the disk"


def set_aside(path: Path, now: float) -> Path:
    """Rename a bad file, with what belongs to it, and delete all but the newest bad ones."""
    stamp = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime(now))
    aside = path.with_name(f"{path.name}.corrupt-{stamp}")
    n = 1
    while aside.exists():
        aside = path.with_name(f"{path.name}.corrupt-{stamp}.{n}")
        n += 1
    for suffix in _SIDE_FILES:
        part = path.with_name(path.name + suffix)
        if part.exists():
            part.rename(aside.with_name(aside.name + suffix))
    _forget_old(path, aside)
    return aside


def _forget_old(path: Path, newest: Path) -> None:
    kept = [
        bad
        for bad in path.parent.glob(f"{path.name}.corrupt-*")
        if not bad.name.endswith(_SIDE_FILES[1:]) and bad != newest
    ]
    kept.sort(key=lambda bad: bad.stat().st_mtime)
    for bad in kept[: max(0, len(kept) - (_KEPT_BAD_FILES - 1))]:
        for suffix in _SIDE_FILES:
            part = bad.with_name(bad.name + suffix)
            if part.exists():
                part.unlink()


def salvage(bad: Path, now: float) -> Restored:
    """What can still be read from a damaged file: each part on its own, or nothing of it.

    Where the last sequence number is lost, the time in seconds takes its place: it is
    above any number given before, so numbers go on rising.
    """
    try:
        reader = Reader(bad)
    except _FAULTS:
        reader = None
    newest, newest_id = _part(reader, _newest, (0, ""))
    seq = newest or (int(now) if now > CLOCK_IS_SET else 0)
    published = _part(reader, lambda r: int(r.meta().get("published", seq)), seq)
    rest = Restored(
        totals=_part(reader, lambda r: r.totals(), {}),
        places=_part(reader, lambda r: r.places(), {}),
        since=_part(reader, lambda r: float(r.meta()["since"]), None),
        seq=seq,
        newest_id=newest_id,
        published=published,
        outbox=True,
        unpublished=_part(reader, lambda r: r.events(published, _MOST_SAVED), []),
    )
    if reader is not None:
        _close(reader)
    return rest


def _part(reader: Optional[Reader], read: Callable[[Reader], T], otherwise: T) -> T:
    try:
        return read(reader) if reader is not None else otherwise
    except (sqlite3.Error, ValueError, TypeError, KeyError, OverflowError):
        return otherwise  # a damaged page may hold anything


def _newest(reader: Reader) -> Tuple[int, str]:
    newest, id_ = reader.newest()
    return (int(newest), id_ if is_id(str(id_)) else "")


def bytes_written(thread_id: Optional[int]) -> int:
    """Bytes that a thread of this process caused to be written; 0 where the kernel does not say."""
    try:
        text = Path(f"/proc/self/task/{thread_id}/io").read_text(encoding="ascii")
    except OSError:
        return 0
    fields = dict(line.split(": ") for line in text.splitlines())
    return int(fields.get("write_bytes", 0))


def _add_heat(store: Store, minute: int, heat: Mapping[str, Grid]) -> None:
    for camera, grid in heat.items():
        store.add_heat(minute // HOUR * HOUR, camera, grid)


def _ended(after: float, until: int, zone: tzinfo) -> List[Period]:
    """As ``closed``, but a clock that was set by years does not make years of hours."""
    return closed(max(after, until - _LONGEST_CATCH_UP_S), until, zone) if after < until else []


def _close(connection: Reader) -> None:
    try:
        connection.close()
    except sqlite3.Error as error:
        _log.warning("ledger_not_closed", path=str(connection.path), error=str(error))
