"""Durable counts: every event and the running totals, committed before anything is published.

    ledger = Ledger.open(settings.ledger, outbox=settings.mqtt is not None)
    ledger.listen(on_committed=..., on_degraded=..., on_given_up=...)
    ledger.totals("door").lines, ledger.places(), ledger.since    # after a restart: as before it
    ledger.record(events, places)                     # counting threads; takes microseconds
    ledger.warm(camera, cells)                        # the heat map; lost up to ten minutes
    ledger.sample(zones, places)                      # about once a second, for peaks and means
    ledger.reset(at)                                  # by schedule or command
    ledger.close()                                    # last commit

``record`` adds to the totals in memory and hands over to the ledger's own thread, which
commits events and totals together, at most ``commit_ms`` later. Committed events are
what :meth:`Ledger.fetch` gives to the sink that publishes them; :meth:`Ledger.acknowledge`
moves the mark behind which events are unpublished. That mark is the whole outbox: an
event is written once, whether it is published or not.

Nothing here stops the counting. Where the file cannot be used (disk full, read-only,
no permission), ``degraded`` says so in a sentence, counts go on in memory, events are
handed out from there, and the file is tried again; what was missed is written then. A
damaged file is kept beside the new one as ``NAME.corrupt-<time>``, and the totals that
can still be read from it are taken over.
"""

import os
import threading
import time
from dataclasses import replace
from typing import Callable, Dict, List, Mapping, Optional, Sequence, Tuple

import structlog

from edgecount.config import LedgerSettings
from edgecount.count._aggregates import MINUTE, aggregate, minute_of
from edgecount.count._file import (
    CLOCK_IS_SET,
    DamagedError,
    Group,
    LedgerFile,
    Restored,
    Roll,
    bytes_written,
    ledger_path,
)
from edgecount.count._tally import Dirty, Tally
from edgecount.count._ulid import IdFactory
from edgecount.count.totals import CameraTotals, CounterKey, PlaceTotals
from edgecount.errors import LedgerError
from edgecount.records import Aggregate, CountEvent, LineTotals
from edgecount.timezones import zone

__all__ = ["Ledger", "ledger_path"]

Clock = Callable[[], float]
OnEvents = Callable[[List[CountEvent]], None]
OnDegraded = Callable[[Optional[str]], None]
OnGivenUp = Callable[[int], None]
OnAggregates = Callable[[List[Aggregate]], None]

_RETRY_S = 5.0
_IDLE_S = 5.0
_HOUSEKEEPING_S = 60.0
_DAY_S = 86_400.0
_MAX_IN_MEMORY = 50_000
_DELETE_CHUNK = 5_000
# Events of a minute may be committed a little after its end.
_LATE_S = 2.0
_HEAT_S = 600

_log = structlog.get_logger(__name__)


class Ledger:
    """The durable counts of one device. All methods may be called from any thread."""

    def __init__(
        self,
        file: Optional[LedgerFile],
        settings: LedgerSettings,
        *,
        outbox: bool,
        timezone: str,
        clock: Clock,
        monotonic: Clock,
    ) -> None:
        """Made by :meth:`open`, which also starts the writer."""
        self._file = file
        self._settings = settings
        self._outbox = outbox
        self._clock = clock
        self._monotonic = monotonic
        self._ids = IdFactory()
        self._on_committed: OnEvents = lambda _events: None
        self._on_degraded: OnDegraded = lambda _reason: None
        self._on_given_up: OnGivenUp = lambda _count: None
        self._on_aggregates: OnAggregates = lambda _aggregates: None

        # Guarded by _changed: everything that other threads see.
        self._changed = threading.Condition()
        self._tally = Tally(clock())
        self._pending: List[CountEvent] = []
        # Events that are not in the file, numbered when somebody first tried to write them.
        # Up to _seq they were given out all the same, because it cannot be written.
        self._homeless: List[CountEvent] = []
        self._seq = 0
        self._acknowledged = 0
        self._flush_wanted = False
        self._closing = False

        # The writer's own.
        self._restored = False
        self._degraded: Optional[str] = None
        self._retry_at = 0.0
        self._stored_mark = 0
        self._mark_at = 0.0
        self._housekeeping_at = 0.0
        self._zone = zone(timezone)
        self._minute = minute_of(clock())
        self._written_unrolled: Dict[str, LineTotals] = {}
        self._writer_id: Optional[int] = None
        self._thread = threading.Thread(target=self._run, name="ledger", daemon=True)

    @staticmethod
    def open(
        settings: LedgerSettings,
        *,
        outbox: bool = True,
        timezone: str = "UTC",
        clock: Clock = time.time,
        monotonic: Clock = time.monotonic,
    ) -> "Ledger":
        """Open the file, take over what it holds, start the writer. Never raises for the file.

        Args:
            settings: Where and how; ``enabled: false`` counts in memory only.
            outbox: Whether a sink will publish; without one no backlog is kept.
            timezone: IANA name; figures of a day are of a day there.
            clock: Wall clock, UTC seconds since 1970.
            monotonic: Clock for intervals, seconds.
        """
        path = ledger_path(settings.path, os.environ) if settings.enabled else None
        file = LedgerFile(path, clock) if path is not None else None
        ledger = Ledger(
            file, settings, outbox=outbox, timezone=timezone, clock=clock, monotonic=monotonic
        )
        ledger._restore()
        ledger._thread.start()
        return ledger

    def listen(
        self,
        *,
        on_committed: Optional[OnEvents] = None,
        on_degraded: Optional[OnDegraded] = None,
        on_given_up: Optional[OnGivenUp] = None,
        on_aggregates: Optional[OnAggregates] = None,
    ) -> None:
        """Be told, on the ledger's thread. Callbacks are short and do not raise.

        Args:
            on_committed: Events with ``id`` and ``seq``, after their commit; while the
                ledger is degraded, when they are held in memory.
            on_degraded: A sentence, or None when the file works again. Called at once
                where the ledger is degraded already.
            on_given_up: How many events will never be published.
            on_aggregates: Minutes, hours and days that have ended.
        """
        self._on_aggregates = on_aggregates or self._on_aggregates
        self._on_committed = on_committed or self._on_committed
        self._on_given_up = on_given_up or self._on_given_up
        if on_degraded is not None:
            self._on_degraded = on_degraded
            if self._degraded:
                on_degraded(self._degraded)

    # -- counting ----------------------------------------------------------------------

    def record(
        self, events: Sequence[CountEvent], places: Optional[Mapping[str, PlaceTotals]] = None
    ) -> None:
        """Count ``events``, and remember the new state of the places that they changed.

        Both reach the file in one transaction. Returns at once.
        """
        if not events and not places:
            return
        with self._changed:
            for event in events:
                self._tally.add(event)
            self._pending.extend(events)
            for name, place in (places or {}).items():
                self._tally.set_place(name, place)
            self._changed.notify_all()

    def sample(
        self, zones: Mapping[Tuple[str, str], int], places: Optional[Mapping[str, int]] = None
    ) -> None:
        """Say how many are there now, about once a second: peaks and means come from this.

        Args:
            zones: Heads by ``(camera, zone)``.
            places: Occupancy by place.
        """
        with self._changed:
            for (camera, name), heads in zones.items():
                self._tally.sample(CounterKey("zone", camera, name), heads)
            for name, people in (places or {}).items():
                self._tally.sample(CounterKey("place", "", name), people)

    def warm(self, camera: str, cells: Sequence[int]) -> None:
        """Add a person-second to each of ``cells`` of the camera's heat map."""
        if not cells:
            return
        with self._changed:
            self._tally.warm(camera, cells)

    def reset(self, at: float, *, keep_session: bool = False) -> None:
        """Set all totals and places to zero.

        Args:
            at: When the new period began, UTC seconds since 1970.
            keep_session: Keep what was counted since this start. For a reset that fell
                due while the device was off, made up for once its clock is right.
        """
        with self._changed:
            self._tally.reset(at, keep_session=keep_session)
            self._changed.notify_all()

    def totals(self, camera: str) -> CameraTotals:
        """Totals of ``camera`` since the last reset, uncommitted ones included."""
        with self._changed:
            return self._tally.camera(camera)

    def places(self) -> Dict[str, PlaceTotals]:
        """State of every place that was ever recorded."""
        with self._changed:
            return self._tally.places()

    @property
    def since(self) -> float:
        """When the totals were last reset, UTC seconds since 1970."""
        return self._tally.since

    @property
    def seq(self) -> int:
        """Sequence number of the newest event that was given out."""
        return self._seq

    @property
    def degraded(self) -> Optional[str]:
        """Why counts are not durable now, in a sentence; None when they are."""
        return self._degraded

    @property
    def alive(self) -> bool:
        """Whether the writer works; False after ``close``, and should it ever die of a defect."""
        return self._thread.is_alive()

    @property
    def bytes_written(self) -> int:
        """Bytes that the writer caused to be written, as the kernel accounts them; 0 unknown."""
        return bytes_written(self._writer_id)

    # -- the outbox --------------------------------------------------------------------

    def fetch(self, after: int, limit: int) -> List[CountEvent]:
        """At most ``limit`` unpublished events with a number above ``after``, in order."""
        after = max(after, self._acknowledged)
        events = self._read_file(after, limit)
        with self._changed:
            newest = events[-1].seq if events else after
            held = [e for e in self._homeless if newest < e.seq <= self._seq]
        return events + held[: limit - len(events)]

    def acknowledge(self, seq: int) -> None:
        """All events up to ``seq`` have reached the broker."""
        with self._changed:
            self._acknowledged = max(self._acknowledged, seq)
            if self._file is None:
                self._homeless = [e for e in self._homeless if e.seq > self._acknowledged]

    @property
    def acknowledged(self) -> int:
        """The outbox's mark: events behind it are unpublished."""
        return self._acknowledged

    @property
    def backlog(self) -> int:
        """How many events are committed and not yet acknowledged."""
        return max(0, self._seq - self._acknowledged) if self._outbox else 0

    # -- life --------------------------------------------------------------------------

    def flush(self, timeout: float = 5.0) -> bool:
        """Commit what is pending now, tell the listener, and wait for that.

        Returns:
            False where it did not happen in time.
        """
        with self._changed:
            self._flush_wanted = True
            self._changed.notify_all()
            return self._changed.wait_for(lambda: not self._flush_wanted, timeout)

    def close(self, timeout: float = 1.5) -> None:
        """Commit what is pending and let go of the file. May be called twice."""
        with self._changed:
            self._closing = True
            self._changed.notify_all()
        self._thread.join(timeout)

    def _read_file(self, after: int, limit: int) -> List[CountEvent]:
        try:
            return self._file.read(after, limit) if self._file else []
        except LedgerError as error:
            _log.warning("ledger_unreadable", reason=str(error))
        with self._changed:
            # What is held in memory goes on; what only the file has is out of reach.
            if self._homeless:
                self._give_up_until(self._homeless[0].seq - 1, "the ledger cannot be read")
        return []

    # -- under the lock ----------------------------------------------------------------

    def _has_work(self) -> bool:
        return bool(self._pending or self._tally.dirty)

    def _is_urgent(self) -> bool:
        return self._closing or self._flush_wanted

    # -- the writer's thread -----------------------------------------------------------

    def _run(self) -> None:
        self._writer_id = threading.get_native_id()
        while not self._closing:
            flushing = self._wait()
            self._commit()
            self._roll()
            self._keep_house()
            if flushing:
                self._flushed()
        self._commit()
        self._save_heat()
        if self._file:
            self._file.close()

    def _wait(self) -> bool:
        """Sleep until there is a group to commit, or something else may be due.

        Returns:
            Whether somebody waits for this turn to be over.
        """
        with self._changed:
            self._changed.wait_for(lambda: self._has_work() or self._is_urgent(), _IDLE_S)
            if self._has_work():
                self._changed.wait_for(self._is_urgent, self._settings.commit_ms / 1000.0)
            return self._flush_wanted

    def _flushed(self) -> None:
        with self._changed:
            self._flush_wanted = False
            self._changed.notify_all()

    def _commit(self) -> None:
        """Number what is pending, write it, and tell the listener."""
        usable = self._make_usable()
        group, dirty = self._take()
        saved = usable and self._save(group)
        with self._changed:
            if saved:
                self._homeless = []
            else:
                self._tally.dirty.add(dirty)
            fresh = [e for e in group.events if e.seq > self._seq]
            if fresh:
                self._seq = fresh[-1].seq
            self._limit_backlog()
        if saved:
            self._works()
        if fresh:
            self._on_committed(fresh)

    def _take(self) -> Tuple[Group, Dirty]:
        """All that is to be written, as of one moment: totals are those of the events."""
        with self._changed:
            self._homeless += [
                replace(event, id=self._ids.make(event.ts), seq=self._seq + n)
                for n, event in enumerate(self._pending, 1)
            ]
            self._pending = []
            changes, dirty = self._tally.take_changes()
            group = Group(tuple(self._homeless), *changes)
        return group, dirty

    def _make_usable(self) -> bool:
        """Whether the file can be written to; opens it again where that is due."""
        if self._file is None:
            return False
        if self._file.is_open:
            return True
        if self._degraded and self._monotonic() < self._retry_at and not self._is_urgent():
            return False
        try:
            self._reopen(self._file)
        except LedgerError as error:
            self._degrade(str(error))
            return False
        return True

    def _save(self, group: Group) -> bool:
        """Write ``group`` to the file. False: it is not there, and must be kept."""
        assert self._file is not None
        try:
            self._write_group(self._file, group)
        except LedgerError as error:
            self._trouble(error)
            return False
        return True

    def _trouble(self, error: LedgerError) -> None:
        """The file cannot be used; where it was damaged, a new one takes all that is known."""
        self._degrade(str(error))
        if isinstance(error, DamagedError):
            _log.error("ledger_replaced", reason=str(error))
            self._retry_at = 0.0
            with self._changed:
                saved = [e for e in error.unpublished if e.seq > self._acknowledged]
                self._homeless = saved + self._homeless

    def _write_group(self, file: LedgerFile, group: Group) -> None:
        mark = self._acknowledged
        if not group and not self._mark_is_due(mark):
            return
        if mark != self._stored_mark:
            with_mark = replace(group, meta={**group.meta, "published": mark})
        else:
            with_mark = group
        # A mark that is lost costs a second delivery, which its id gives away: no sync for it.
        file.write(with_mark, durable=bool(group))
        self._written_unrolled.update(group.unrolled)
        self._stored_mark = mark
        self._mark_at = self._monotonic() + _IDLE_S

    def _mark_is_due(self, mark: int) -> bool:
        return mark != self._stored_mark and (
            self._is_urgent() or self._monotonic() >= self._mark_at
        )

    def _reopen(self, file: LedgerFile) -> None:
        found = file.open()
        with self._changed:
            if not self._restored:
                self._merge(found)
            # The file may be a new one, or not what it was when it was closed.
            self._tally.mark_all_dirty()
            self._tally.dirty.meta.update(outbox=int(self._outbox), base=self._seq)
            self._stored_mark = -1

    # -- figures -----------------------------------------------------------------------

    def _roll(self) -> None:
        """Shortly after each minute: its figures, and those of the periods that end with it."""
        current = minute_of(self._clock() - _LATE_S)
        if current < self._minute - MINUTE:
            self._minute = current  # the clock was set back
        if current <= self._minute or self._file is None or not self._file.is_open:
            return
        minute, self._minute = self._minute, current
        with self._changed:
            samples = self._tally.drain_samples()
            # Every ten minutes, so that it goes out in few writes.
            heat = {} if (minute + MINUTE) % _HEAT_S else self._tally.drain_heat()
            known = self._tally.known()
        try:
            periods = self._file.roll(
                Roll(minute, self._written_unrolled, samples, heat, self._zone)
            )
        except LedgerError as error:
            self._trouble(error)
            return
        with self._changed:
            self._tally.rolled(self._written_unrolled)
        self._written_unrolled = {}
        if minute >= CLOCK_IS_SET:
            known += samples
            self._on_aggregates([aggregate(period, rows, known) for period, rows in periods])

    def _save_heat(self) -> None:
        """At the end: what was collected since the last full ten minutes."""
        with self._changed:
            heat = self._tally.drain_heat()
        if heat and self._file is not None and self._file.is_open:
            try:
                self._file.add_heat(self._minute, heat)
            except LedgerError as error:
                self._trouble(error)

    # -- limits ------------------------------------------------------------------------

    def _limit_backlog(self) -> None:
        surplus = len(self._homeless) - _MAX_IN_MEMORY
        if self._outbox:
            self._give_up_until(self._seq - self._settings.outbox_max, "there are too many")
            if surplus > 0:
                self._give_up_until(self._homeless[surplus - 1].seq, "memory is limited")
        else:
            self._acknowledged = self._seq
            if self._file is None:
                self._homeless = []
        if surplus > 0:
            del self._homeless[:surplus]

    def _give_up_until(self, seq: int, why: str) -> None:
        lost = seq - self._acknowledged
        if lost > 0:
            self._acknowledged = seq
            _log.warning("outbox_given_up", count=lost, reason=why)
            self._on_given_up(lost)

    def _keep_house(self) -> None:
        """Once a minute: age and size limits."""
        if self._file is None or not self._file.is_open:
            return
        if self._monotonic() < self._housekeeping_at:
            return
        self._housekeeping_at = self._monotonic() + _HOUSEKEEPING_S
        now = self._clock()
        with self._changed:
            oldest_kept = now - self._settings.outbox_max_days * _DAY_S
            self._give_up_until(self._file.newest_before(oldest_kept), "they are too old")
        try:
            deleted = self._file.prune(
                before=now - self._settings.keep_days * _DAY_S,
                max_bytes=self._settings.max_mb * 1e6,
                chunk=_DELETE_CHUNK,
            )
        except LedgerError as error:
            self._trouble(error)
            return
        if deleted:
            with self._changed:
                self._give_up_until(deleted, "the ledger is full")
            self._housekeeping_at = 0.0

    # -- the file ----------------------------------------------------------------------

    def _restore(self) -> None:
        if self._file is None:
            return
        try:
            found = self._file.open()
        except LedgerError as error:
            self._degrade(str(error))
            return
        self._merge(found)
        self._stored_mark = found.published
        if found.since is None:
            self._tally.dirty.meta["since"] = self._tally.since
        if found.outbox != self._outbox:
            self._tally.dirty.meta["outbox"] = int(self._outbox)

    def _merge(self, found: Restored) -> None:
        """Put what the file holds under what was counted before it could be opened."""
        self._restored = True
        self._tally.merge(found)
        if found.newest_id:
            self._ids.resume(found.newest_id)
        self._written_unrolled = dict(found.unrolled)
        self._homeless = [replace(e, seq=found.seq + n) for n, e in enumerate(self._homeless, 1)]
        self._seq = found.seq + len(self._homeless)
        # What was counted while nobody published is not news when somebody does.
        self._acknowledged = found.published if found.outbox and self._outbox else found.seq

    def _degrade(self, reason: str) -> None:
        self._retry_at = self._monotonic() + _RETRY_S
        if reason != self._degraded:
            self._degraded = reason
            _log.error("ledger_degraded", reason=reason)
            self._on_degraded(reason)

    def _works(self) -> None:
        if self._degraded is not None:
            self._degraded = None
            _log.info("ledger_recovered")
            self._on_degraded(None)
