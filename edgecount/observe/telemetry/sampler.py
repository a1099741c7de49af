"""Asks the telemetry sources now and then, so that a scrape never waits for a driver."""

import threading
import time
from pathlib import Path
from typing import Callable, List, Optional, Sequence

import structlog

from edgecount.observe.telemetry.base import Reading, TelemetrySource
from edgecount.observe.telemetry.host import Host
from edgecount.observe.telemetry.jetson import Jetson, is_jetson
from edgecount.observe.telemetry.nvml import open_nvml

_log = structlog.get_logger(__name__)
_TOO_OLD = 6  # intervals


def sources(root: Path = Path("/")) -> List[TelemetrySource]:
    """The sources that fit this machine, the most telling one first."""
    if is_jetson(root):
        return [Jetson(root), Host(temperatures=False)]
    nvml = open_nvml()
    return [Host()] if nvml is None else [nvml, Host()]


class Sampler:
    """Keeps the newest reading of all sources.

    Args:
        asked: The sources; closed with the sampler. Where two tell the same value, the
            first one's counts.
        interval_s: Seconds between two looks.
        clock: Monotonic seconds.
    """

    def __init__(
        self,
        asked: Sequence[TelemetrySource],
        interval_s: float = 5.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._sources = asked
        self._interval_s = interval_s
        self._clock = clock
        self._reading: Optional[Reading] = None
        self._read_at = clock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="telemetry", daemon=True)

    def start(self) -> None:
        """Begin to sample."""
        self._thread.start()

    def latest(self) -> Optional[Reading]:
        """The newest reading at once; None before the first, and when a driver hangs."""
        fresh = self._clock() - self._read_at <= _TOO_OLD * self._interval_s
        return self._reading if fresh else None

    def close(self) -> None:
        """Stop sampling. Returns within a second even when a driver hangs. May be called twice."""
        self._stop.set()
        if self._thread.is_alive():
            self._thread.join(1.0)

    def sample(self) -> Reading:
        """Ask every source now."""
        reading = Reading()
        for source in self._sources:
            reading = reading.merge(self._ask(source))
        self._reading, self._read_at = reading, self._clock()
        return reading

    def _ask(self, source: TelemetrySource) -> Reading:
        try:
            return source.read()
        except Exception:  # whatever a driver throws, counting and the other sources go on
            _log.exception("telemetry_failed", source=source.name)
            return Reading()

    def _run(self) -> None:
        self.sample()
        while not self._stop.wait(self._interval_s):
            self.sample()
        for source in self._sources:
            source.close()
