"""Over-crowding, and live heads as a witness of occupancy. Pure logic over seconds.

Both watch numbers that are looked at about once a second.
"""

from typing import Dict, List, Mapping, Optional, Sequence, Tuple

from edgecount.config import CameraSettings, PlaceSettings

# A limit that was passed is kept again below this fraction of it.
_CLEAR_FRACTION = 0.9
_WITNESS_S = 5.0

ZoneKey = Tuple[str, str]


class CrowdAlarm:
    """Too many people: on when it lasts, off when it has passed for as long.

    Args:
        limit: More than this is too many.
        hold_s: Seconds of it before the state changes.
    """

    def __init__(self, limit: int, hold_s: float) -> None:
        self._limit = limit
        self._hold_s = hold_s
        self._since: Optional[float] = None
        self.crowded = False

    def update(self, people: int, now: float) -> bool:
        """Take a look at monotonic second ``now``; returns whether it is crowded."""
        clear = people <= self._limit * _CLEAR_FRACTION
        differs = clear if self.crowded else people > self._limit
        if not differs:
            self._since = None
        elif self._since is None:
            self._since = now
        if self._since is not None and now - self._since >= self._hold_s:
            self.crowded, self._since = not self.crowded, None
        return self.crowded


class Crowding:
    """The alarms of all places and zones that have a limit."""

    def __init__(
        self, places: Mapping[str, PlaceSettings], cameras: Sequence[CameraSettings]
    ) -> None:
        self._places = {
            name: CrowdAlarm(place.max_occupancy, place.crowded_s)
            for name, place in places.items()
            if place.max_occupancy is not None
        }
        self._zones = {
            (camera.name, zone.name): CrowdAlarm(zone.max_occupancy, zone.crowded_s)
            for camera in cameras
            for zone in camera.zones
            if zone.max_occupancy is not None
        }

    def update(
        self, zones: Mapping[ZoneKey, int], places: Mapping[str, int], now: float
    ) -> List[str]:
        """Look at heads by ``(camera, zone)`` and occupancy by place, at monotonic ``now``.

        Returns:
            The places whose state changed.
        """
        for key, heads in zones.items():
            if key in self._zones:
                self._zones[key].update(heads, now)
        watched = [name for name in places if name in self._places]
        before = {name: self._places[name].crowded for name in watched}
        return [
            name for name in watched if self._places[name].update(places[name], now) != before[name]
        ]

    def place(self, name: str) -> Optional[bool]:
        """Whether the place is crowded; None where it has no limit."""
        alarm = self._places.get(name)
        return alarm.crowded if alarm else None

    def zones(self, camera: str) -> Dict[str, bool]:
        """Which zones of a camera are crowded, of those that have a limit."""
        return {zone: a.crowded for (c, zone), a in self._zones.items() if c == camera}


class Witnesses:
    """Heads that are seen at the same time prove that as many people are in a place.

    Net flow drifts when somebody slips in unseen. The least number of heads over the last
    five seconds, summed over zones that do not overlap, is a lower bound of the truth;
    it says nothing about those who are out of sight, so it never lowers an occupancy.

    Args:
        places: ``witness`` names zones as ``camera.zone``.
    """

    def __init__(self, places: Mapping[str, PlaceSettings]) -> None:
        self._zones = {
            name: [(z.partition(".")[0], z.partition(".")[2]) for z in place.witness]
            for name, place in places.items()
            if place.witness
        }
        self._seen: Dict[str, Tuple[int, float]] = {}

    def update(
        self, zones: Mapping[ZoneKey, int], places: Mapping[str, int], now: float
    ) -> Dict[str, int]:
        """The occupancy of those places that must be raised.

        Args:
            zones: Heads by ``(camera, zone)``.
            places: Occupancy by place.
            now: Monotonic seconds.
        """
        raised: Dict[str, int] = {}
        for name, keys in self._zones.items():
            heads = sum(zones.get(key, 0) for key in keys)
            if heads <= places.get(name, 0):
                self._seen.pop(name, None)
                continue
            before, since = self._seen.get(name, (heads, now))
            least = min(before, heads)
            self._seen[name] = least, since
            if now - since >= _WITNESS_S:
                raised[name] = least
                self._seen.pop(name)
        return raised
