"""The ledger's state in memory, and which part of it the file does not know yet.

Not thread-safe: the ledger holds its lock around every call.
"""

from typing import Dict, List, Mapping, NamedTuple, Sequence, Set, Tuple

import numpy as np

from edgecount.count import heatmap
from edgecount.count._aggregates import Sampled, Sampler
from edgecount.count._file import Restored
from edgecount.count._store import MetaValue, is_outward
from edgecount.count.totals import CameraTotals, CounterKey, PlaceTotals
from edgecount.records import CountEvent, LineTotals

_ZERO = LineTotals()


class Dirty:
    """What in memory differs from the file."""

    def __init__(self) -> None:
        self.counters: Set[CounterKey] = set()
        self.places: Set[str] = set()
        self.meta: Dict[str, MetaValue] = {}

    def __bool__(self) -> bool:
        return bool(self.counters or self.places or self.meta)

    def add(self, other: "Dirty") -> None:
        """Take over what ``other`` holds; a newer single value stays."""
        self.counters |= other.counters
        self.places |= other.places
        self.meta = {**other.meta, **self.meta}


class Changes(NamedTuple):
    """The values of what was dirty, as of one moment."""

    totals: Mapping[CounterKey, LineTotals]
    places: Mapping[str, PlaceTotals]
    meta: Mapping[str, MetaValue]
    unrolled: Mapping[str, LineTotals]


class Tally:
    """Totals of lines and zones, states of places, and what is collected for figures.

    Args:
        since: When counting began, UTC seconds since 1970.
    """

    def __init__(self, since: float) -> None:
        self.since = since
        self.dirty = Dirty()
        self._totals: Dict[CounterKey, LineTotals] = {}
        self._session: Dict[CounterKey, LineTotals] = {}
        self._places: Dict[str, PlaceTotals] = {}
        # Entries and exits of places that are in no minute's figures yet.
        self._unrolled: Dict[str, LineTotals] = {}
        self._sampler = Sampler()
        self._heat: Dict[str, heatmap.Grid] = {}

    # -- counting ----------------------------------------------------------------------

    def add(self, event: CountEvent) -> None:
        """Count one event."""
        key = CounterKey(event.kind, event.camera, event.name)
        outward = is_outward(event)
        for totals in (self._totals, self._session):
            old = totals.get(key, _ZERO)
            totals[key] = LineTotals(old.into + (not outward), old.out + outward)
        self.dirty.counters.add(key)

    def set_place(self, name: str, place: PlaceTotals) -> None:
        """Take the new state of a place."""
        old = self._places.get(name, PlaceTotals())
        entered, left = max(0, place.into - old.into), max(0, place.out - old.out)
        self._unrolled[name] = _plus(self._unrolled.get(name, _ZERO), LineTotals(entered, left))
        self._places[name] = place
        self.dirty.places.add(name)

    def sample(self, key: CounterKey, people: int) -> None:
        """Somebody looked at a zone or a place."""
        self._sampler.add(key, people)

    def warm(self, camera: str, cells: Sequence[int]) -> None:
        """Add a person-second to cells of a heat map."""
        grid = self._heat.setdefault(camera, heatmap.empty())
        np.add.at(grid.reshape(-1), cells, 1)

    def reset(self, at: float, *, keep_session: bool) -> None:
        """Begin a new period at ``at``, with what this run counted or with nothing."""
        self._totals = {
            key: self._session.get(key, _ZERO) if keep_session else _ZERO for key in self._totals
        }
        self._places = {name: PlaceTotals() for name in self._places}
        self.since = at
        self.mark_all_dirty()

    # -- reading -----------------------------------------------------------------------

    def camera(self, name: str) -> CameraTotals:
        """Totals of a camera."""
        mine = [(k, t) for k, t in self._totals.items() if k.camera == name]
        return CameraTotals(
            lines={k.name: t for k, t in mine if k.kind == "line"},
            zones={k.name: t for k, t in mine if k.kind == "zone"},
        )

    def places(self) -> Dict[str, PlaceTotals]:
        """State of every place."""
        return dict(self._places)

    def known(self) -> List[CounterKey]:
        """Everything that has figures."""
        return [*self._totals, *(CounterKey("place", "", name) for name in self._places)]

    # -- to and from the file ----------------------------------------------------------

    def take_changes(self) -> Tuple[Changes, Dirty]:
        """What has to be written; ``dirty`` takes it back where that fails."""
        dirty, self.dirty = self.dirty, Dirty()
        changes = Changes(
            totals={k: self._totals[k] for k in dirty.counters},
            places={n: self._places[n] for n in dirty.places},
            meta=dirty.meta,
            unrolled={n: self._unrolled.get(n, _ZERO) for n in dirty.places},
        )
        return changes, dirty

    def mark_all_dirty(self) -> None:
        """The file may know nothing of this."""
        self.dirty.counters.update(self._totals)
        self.dirty.places.update(self._places)
        self.dirty.meta["since"] = self.since

    def merge(self, found: Restored) -> None:
        """Put what the file holds under what was counted before it could be opened."""
        for key, old in found.totals.items():
            self._totals[key] = _plus(old, self._totals.get(key, _ZERO))
        for name, place in found.places.items():
            self._places[name] = place.plus(self._places.get(name, PlaceTotals()))
        for name, new in found.unrolled.items():
            self._unrolled[name] = _plus(new, self._unrolled.get(name, _ZERO))
        if found.since is not None:
            self.since = found.since

    # -- figures -----------------------------------------------------------------------

    def drain_samples(self) -> Dict[CounterKey, Sampled]:
        """What was seen since the last call."""
        return self._sampler.drain()

    def drain_heat(self) -> Dict[str, heatmap.Grid]:
        """Person-seconds since the last call."""
        heat, self._heat = self._heat, {}
        return heat

    def rolled(self, unrolled: Mapping[str, LineTotals]) -> None:
        """These entries and exits of places are in the figures now."""
        for name, done in unrolled.items():
            now = self._unrolled.get(name, _ZERO)
            self._unrolled[name] = LineTotals(now.into - done.into, now.out - done.out)


def _plus(one: LineTotals, other: LineTotals) -> LineTotals:
    return LineTotals(one.into + other.into, one.out + other.out)
