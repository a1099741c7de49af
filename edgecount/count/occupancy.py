"""Places: how many people are behind one or several lines, by net flow."""

from dataclasses import replace
from typing import Dict, List, Mapping, Sequence, Tuple

from edgecount.config import PlaceSettings
from edgecount.count.totals import PlaceTotals
from edgecount.errors import ConfigError
from edgecount.records import CountEvent


class Places:
    """Occupancy, entries and exits of every place.

    Occupancy never goes below zero: whoever leaves a place that is thought to be empty had
    come in unseen. The exit is counted all the same.

    Args:
        settings: Places by name.
    """

    def __init__(self, settings: Mapping[str, PlaceSettings]) -> None:
        self._totals = {name: PlaceTotals() for name in settings}
        # "camera.line" → the places it touches, and whether crossing "in" enters them.
        self._doors: Dict[str, List[Tuple[str, bool]]] = {}
        for name, place in settings.items():
            for line in place.enters:
                self._doors.setdefault(line, []).append((name, True))
            for line in place.leaves:
                self._doors.setdefault(line, []).append((name, False))

    def totals(self) -> Dict[str, PlaceTotals]:
        """The state of every place, by name."""
        return dict(self._totals)

    def apply(self, events: Sequence[CountEvent]) -> Dict[str, PlaceTotals]:
        """Count events in order; zones' events and other lines do nothing.

        Returns:
            The new state of the places that the events touched.
        """
        touched: Dict[str, PlaceTotals] = {}
        for event in events:
            if event.kind != "line":
                continue
            for name, enters_by_in in self._doors.get(f"{event.camera}.{event.name}", ()):
                entered = (event.direction == "in") == enters_by_in
                self._totals[name] = touched[name] = _moved(self._totals[name], entered)
        return touched

    def restore(self, totals: Mapping[str, PlaceTotals]) -> None:
        """Take over from an earlier run; places that are not configured are ignored."""
        self._totals.update({n: t for n, t in totals.items() if n in self._totals})

    def set(self, place: str, occupancy: int) -> PlaceTotals:
        """Correct who is in a place now; entries and exits stay.

        Raises:
            ConfigError: There is no such place, or the number is negative.
        """
        if place not in self._totals:
            known = ", ".join(sorted(self._totals)) or "none"
            raise ConfigError(f"there is no place {place!r} (places: {known})")
        if occupancy < 0:
            raise ConfigError(f"the occupancy of a place is 0 or more, not {occupancy}")
        old = self._totals[place]
        self._totals[place] = replace(old, occupancy=occupancy, peak=max(old.peak, occupancy))
        return self._totals[place]

    def reset(self) -> Dict[str, PlaceTotals]:
        """Set everything to zero, and return that."""
        self._totals = {name: PlaceTotals() for name in self._totals}
        return self.totals()


def _moved(totals: PlaceTotals, entered: bool) -> PlaceTotals:
    if not entered:
        return replace(totals, occupancy=max(0, totals.occupancy - 1), out=totals.out + 1)
    occupancy = totals.occupancy + 1
    return replace(
        totals, occupancy=occupancy, into=totals.into + 1, peak=max(totals.peak, occupancy)
    )
