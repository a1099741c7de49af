"""Read counts back from a ledger, also while the service writes to it."""

import re
import sqlite3
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timedelta, tzinfo
from pathlib import Path
from typing import Iterator, List, Sequence

from edgecount.count._aggregates import DAY, HOUR, MINUTE, NAMES, start_of
from edgecount.count._file import explain
from edgecount.count._store import Reader
from edgecount.count.heatmap import Grid
from edgecount.discovery import nearest
from edgecount.errors import ConfigError, LedgerError
from edgecount.records import CountEvent

_SECONDS = {name: seconds for seconds, name in NAMES.items()}
_AGO = re.compile(r"(\d+)\s*(m|min|h|d|w)")
_UNITS = {"m": MINUTE, "min": MINUTE, "h": HOUR, "d": DAY, "w": 7 * DAY}


@dataclass(frozen=True)
class Row:
    """What one line, zone or place did in one period.

    ``into`` and ``out`` are entries and exits for zones and places; ``peak`` and ``mean``
    are of heads in a zone or of people in a place, 0 for lines.
    """

    start: float
    kind: str
    camera: str
    name: str
    into: int
    out: int
    peak: int
    mean: float


@dataclass(frozen=True)
class Dwell:
    """How long people stayed in a zone, seconds."""

    camera: str
    zone: str
    visits: int
    median_s: float
    p90_s: float
    longest_s: float


def figures(path: Path, period: str, since: float, until: float, zone: tzinfo) -> List[Row]:
    """Figures of all periods (``minute``, ``hour``, ``day``) that start in ``[since, until)``.

    The hour or day that is not over is in it up to its last full minute. ``zone`` says when
    a day begins. Raises LedgerError.
    """
    running = start_of(period, until, zone)
    with _reading(path) as reader:
        rows = reader.figures(_SECONDS[period], since, until)
        if running >= since and all(row.start != running for row in rows):
            rows += reader.figures_of(running, until)
    return [
        Row(
            row.start, row.key.kind, row.key.camera, row.key.name,
            row.figures.into, row.figures.out, row.figures.peak, round(row.figures.mean, 2),
        )
        for row in rows
    ]  # fmt: skip


def events(path: Path, since: float, until: float) -> List[CountEvent]:
    """All events that happened in ``[since, until)``, in order. Raises LedgerError."""
    with _reading(path) as reader:
        return list(reader.events_between(since, until))


def dwell(path: Path, since: float, until: float) -> List[Dwell]:
    """The distribution of stays per zone. Raises LedgerError."""
    with _reading(path) as reader:
        times = reader.dwell_times(since, until)
    return [
        Dwell(k.camera, k.name, len(t), _quantile(t, 0.5), _quantile(t, 0.9), t[-1])
        for k, t in times.items()
    ]


def heat(path: Path, camera: str, since: float, until: float) -> Grid:
    """Person-seconds per cell (ROWS, COLUMNS) over the hours that start in ``[since, until)``.

    Raises:
        LedgerError: The ledger cannot be read.
        ConfigError: No such camera has ever been in it; the message names those that have.
    """
    with _reading(path) as reader:
        cameras = reader.heat_cameras()
        grid = reader.heat(camera, since, until)
    if camera not in cameras:
        raise ConfigError(
            f"the ledger has no heat map of a camera {camera!r}{nearest(camera, cameras)}"
        )
    return grid


def parse_time(text: str, now: float, zone: tzinfo) -> float:
    """A point in time as people write it, as UTC seconds since 1970.

    ``2026-11-24``, ``2026-11-24 08:30``, ``today``, ``yesterday``, or a stretch before
    now: ``30min``, ``12h``, ``7d``, ``2w``. Without an offset it is meant in ``zone``.

    Raises:
        ConfigError: It is none of these.
    """
    ago = _AGO.fullmatch(text.strip())
    if ago:
        return now - int(ago.group(1)) * _UNITS[ago.group(2)]
    midnight = datetime.fromtimestamp(now, zone).replace(hour=0, minute=0, second=0, microsecond=0)
    if text in ("today", "yesterday"):
        days = 1 if text == "yesterday" else 0
        return (midnight - timedelta(days=days)).timestamp()
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise ConfigError(
            f"{text!r} is no time: write 2026-11-24, '2026-11-24 08:30', today, yesterday, "
            "or 30min, 12h, 7d before now"
        ) from error
    return (moment if moment.tzinfo else moment.replace(tzinfo=zone)).timestamp()


def _quantile(rising: Sequence[float], q: float) -> float:
    """The nearest-rank quantile of a sequence that is not empty."""
    return rising[min(len(rising) - 1, int(q * len(rising)))]


@contextmanager
def _reading(path: Path) -> Iterator[Reader]:
    if not path.is_file():
        raise LedgerError(f"there is no ledger {path}: has the service run here?")
    try:
        reader = Reader(path)
        try:
            yield reader
        finally:
            reader.close()
    except sqlite3.Error as error:
        raise LedgerError(explain(path, error)) from error
