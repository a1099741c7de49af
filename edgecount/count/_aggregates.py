"""Figures per minute, hour and day: what is sampled, and which periods are over. Pure."""

from datetime import date, datetime, timedelta, timezone, tzinfo
from typing import Dict, Iterable, List, NamedTuple

from edgecount.count.totals import CounterKey
from edgecount.records import Aggregate, Figures

MINUTE, HOUR, DAY = 60, 3600, 86_400
# Minutes are made into hours and days, and looked at closely for a week.
KEEP_S = {MINUTE: 7 * DAY, HOUR: 400 * DAY}
NAMES = {MINUTE: "minute", HOUR: "hour", DAY: "day"}


class Period(NamedTuple):
    """A stretch of time; ``seconds`` is its nominal length, times are UTC seconds since 1970."""

    seconds: int
    start: int
    end: int


class FigureRow(NamedTuple):
    """Figures of one line, zone or place in the period that starts at ``start``."""

    start: int
    key: CounterKey
    figures: Figures


class Sampled(NamedTuple):
    """What was seen at the moments at which somebody looked."""

    peak: int
    total: int
    samples: int

    def plus(self, value: int) -> "Sampled":
        """One more look added."""
        return Sampled(max(self.peak, value), self.total + value, self.samples + 1)


class Sampler:
    """Collects the number of heads or people in zones and places over one minute."""

    def __init__(self) -> None:
        self._seen: Dict[CounterKey, Sampled] = {}

    def add(self, key: CounterKey, value: int) -> None:
        """Somebody looked; call it at regular times, or the mean leans to busy ones."""
        self._seen[key] = self._seen.get(key, Sampled(0, 0, 0)).plus(value)

    def drain(self) -> Dict[CounterKey, Sampled]:
        """What was seen since the last call."""
        seen, self._seen = self._seen, {}
        return seen


def minute_of(ts: float) -> int:
    """The start of the minute in which ``ts`` lies."""
    return int(ts // MINUTE) * MINUTE


def aggregate(period: Period, rows: Iterable[FigureRow], known: Iterable[CounterKey]) -> Aggregate:
    """A period as published; what is ``known`` and has no figures did nothing."""
    found = {row.key: row.figures for row in rows}
    by_kind: Dict[str, Dict[CounterKey, Figures]] = {"line": {}, "zone": {}, "place": {}}
    for key in sorted({*known, *found}):
        by_kind[key.kind][key] = found.get(key, Figures())
    return Aggregate(
        period=NAMES[period.seconds],
        start=float(period.start),
        end=float(period.end),
        lines={(k.camera, k.name): f for k, f in by_kind["line"].items()},
        zones={(k.camera, k.name): f for k, f in by_kind["zone"].items()},
        places={k.name: f for k, f in by_kind["place"].items()},
    )


def start_of(period: str, ts: float, zone: tzinfo) -> int:
    """The start of the ``minute``, ``hour`` or ``day`` in which ``ts`` lies."""
    if period == "day":
        return _midnight(datetime.fromtimestamp(ts, zone).date(), zone)
    seconds = MINUTE if period == "minute" else HOUR
    return int(ts // seconds) * seconds


def closed(after: float, until: float, zone: tzinfo) -> List[Period]:
    """Hours (of UTC) and days (of ``zone``) that ended after ``after`` and not after ``until``."""
    hours = range(int(after // HOUR) * HOUR + HOUR, int(until) + 1, HOUR)
    periods = [Period(HOUR, end - HOUR, end) for end in hours]
    day = datetime.fromtimestamp(after, zone).date()
    while True:
        start, day = _midnight(day, zone), day + timedelta(days=1)
        end = _midnight(day, zone)
        if end > until:
            return periods
        if end > after:
            periods.append(Period(DAY, start, end))


def _midnight(day: date, zone: tzinfo) -> int:
    moment = datetime(day.year, day.month, day.day, tzinfo=zone)
    return int(moment.astimezone(timezone.utc).timestamp())
