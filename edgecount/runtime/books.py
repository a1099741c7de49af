"""The books of one service: ledger, places and the sink, kept in step."""

import threading
import time
from dataclasses import replace
from typing import Dict, List, Mapping, Optional, Sequence, Tuple

from edgecount.config import Settings
from edgecount.count.crowding import Crowding, Witnesses
from edgecount.count.ledger import Ledger
from edgecount.count.occupancy import Places
from edgecount.count.schedule import DailyReset, Due
from edgecount.count.totals import CameraTotals, PlaceTotals
from edgecount.observe.metrics import Metrics
from edgecount.publish.base import PlaceState, Sink, Status
from edgecount.records import Aggregate, CountEvent, Snapshot


class Books:
    """Takes events in, keeps totals over restarts, and lets the sink know.

    ``record`` is called by the counting thread; everything else by the service's.
    """

    def __init__(
        self, settings: Settings, metrics: Metrics, ledger: Optional[Ledger] = None
    ) -> None:
        """Open the ledger, or go on with one that is open already."""
        self._metrics = metrics
        self._sink: Optional[Sink] = None
        self._lock = threading.Lock()
        self._places = Places(settings.places)
        self._stale_places: Dict[str, PlaceTotals] = {}
        self._degraded: Tuple[str, ...] = ()
        reset = settings.reset
        self._schedule = DailyReset(reset.at, reset.timezone) if reset else None
        self._began = time.monotonic()
        self._crowding = Crowding(settings.places, settings.cameras)
        self._witnesses = Witnesses(settings.places)
        self.ledger = ledger or Ledger.open(
            settings.ledger,
            outbox=settings.mqtt is not None,
            timezone=reset.timezone if reset else "UTC",
        )

    def start(self, sink: Optional[Sink]) -> None:
        """Take over the totals of the last run, and connect the sink."""
        self._sink = sink
        self._places.restore(self.ledger.places())
        self._stale_places = self._places.totals()
        self.ledger.listen(
            on_committed=self._committed,
            on_degraded=self._ledger_degraded,
            on_given_up=self._metrics.given_up,
            on_aggregates=self._aggregated,
        )
        for name, totals in self._places.totals().items():
            self._metrics.occupancy(name, totals.occupancy)
        if sink is not None:
            sink.start()

    def stop(self, *, keep_ledger: bool = False) -> None:
        """Commit what is pending, publish the last states and ``offline``."""
        self.ledger.flush(0.5)
        self.publish_places()
        if self._sink is not None:
            self._sink.notify()
            self._sink.stop()
        if not keep_ledger:
            self.ledger.close()
        for name in self._places.totals():
            self._metrics.forget_place(name)

    def totals(self, camera: str) -> CameraTotals:
        """Totals of a camera as the ledger holds them."""
        return self.ledger.totals(camera)

    def occupancy(self) -> Dict[str, int]:
        """People by place."""
        with self._lock:
            return {name: totals.occupancy for name, totals in self._places.totals().items()}

    @property
    def degraded(self) -> Optional[str]:
        """Why counts are not durable now; None when they are."""
        return self.ledger.degraded

    @property
    def sink(self) -> Optional[Sink]:
        """Where counts go; None without a broker."""
        return self._sink

    def record(self, events: Sequence[CountEvent]) -> None:
        """Count events into places and ledger. Returns at once."""
        with self._lock:
            touched = self._places.apply(events)
            self.ledger.record(events, touched)
            self._stale_places.update(touched)
        for name, totals in touched.items():
            self._metrics.occupancy(name, totals.occupancy)

    def due(self) -> Optional[Due]:
        """The daily reset, when it is to be made now."""
        if self._schedule is None:
            return None
        uptime = time.monotonic() - self._began
        return self._schedule.due(time.time(), self.ledger.since, uptime)

    def reset(self, at: float, *, keep_session: bool = False) -> None:
        """Set all totals to zero; the caller resets the counters in the same breath.

        Args:
            at: When the new period began, UTC seconds since 1970.
            keep_session: Keep what lines and zones counted since this start.
        """
        with self._lock:
            places = self._places.reset()
            self._stale_places = dict(places)
            self.ledger.reset(at, keep_session=keep_session)
        for name in places:
            self._metrics.occupancy(name, 0)

    def sample(self, zones: Mapping[Tuple[str, str], int]) -> None:
        """Say how many heads are in the zones now, about once a second."""
        now = time.monotonic()
        for place, people in self._witnesses.update(zones, self.occupancy(), now).items():
            self.set_occupancy(place, people)
        occupancy = self.occupancy()
        changed = self._crowding.update(zones, occupancy, now)
        with self._lock:
            totals = self._places.totals()
            self._stale_places.update({name: totals[name] for name in changed})
        self._metrics.ledger_wrote(self.ledger.bytes_written)
        self.ledger.sample(zones, occupancy)

    def set_occupancy(self, place: str, people: int) -> None:
        """Correct a place. Raises ConfigError where there is no such place."""
        with self._lock:
            totals = self._places.set(place, people)
            self.ledger.record([], {place: totals})
            self._stale_places[place] = totals
        self._metrics.occupancy(place, people)

    def publish(self, snapshot: Snapshot, status: Status) -> None:
        """Give the sink the newest state of a camera."""
        if self._sink is not None:
            self._sink.publish_camera_status(snapshot.camera, status)
            crowded = self._crowding.zones(snapshot.camera)
            zones = {
                name: replace(zone, crowded=crowded.get(name))
                for name, zone in snapshot.zones.items()
            }
            self._sink.publish_state(replace(snapshot, zones=zones))

    def publish_places(self, degraded: Tuple[str, ...] = ()) -> None:
        """Give the sink the places that changed since the last call."""
        with self._lock:
            if degraded != self._degraded:
                self._degraded = degraded
                self._stale_places = self._places.totals()
            changed, self._stale_places = self._stale_places, {}
        if self._sink is None:
            return
        now, seq = time.time(), self.ledger.seq
        for name, t in changed.items():
            self._sink.publish_place(
                PlaceState(
                    place=name,
                    ts=now,
                    seq=seq,
                    occupancy=t.occupancy,
                    into=t.into,
                    out=t.out,
                    peak=t.peak,
                    degraded=degraded,
                    crowded=self._crowding.place(name),
                )
            )

    def _committed(self, _events: List[CountEvent]) -> None:
        if self._sink is not None:
            self._sink.notify()

    def _aggregated(self, aggregates: Sequence[Aggregate]) -> None:
        if self._sink is not None:
            self._sink.publish_aggregates(aggregates)

    def _ledger_degraded(self, reason: Optional[str]) -> None:
        self._metrics.ledger_degraded(reason is not None)
