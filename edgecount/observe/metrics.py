"""Every metric of edgecount, and the calls that feed them.

All names begin with ``edgecount_``; units are base units; labels take values from the
configuration and from closed sets only (never a track id or a URL), so the number of
series is bounded. Methods are named for what happened. Label children are resolved once,
when a camera is added: a call in a camera's loop is one locked addition.
"""

import contextlib
import math
from typing import Callable, Dict, Iterable, List, Literal, Optional, Tuple, TypeVar, get_args

import prometheus_client
from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram
from prometheus_client.metrics import MetricWrapperBase
from prometheus_client.process_collector import ProcessCollector

from edgecount.observe.telemetry.base import Reading
from edgecount.observe.telemetry.collector import DeviceCollector
from edgecount.records import Stage

Outcome = Literal["processed", "dropped", "skipped", "failed"]
Direction = Literal["in", "out"]

OUTCOMES: Tuple[Outcome, ...] = get_args(Outcome)
STAGES: Tuple[Stage, ...] = get_args(Stage)
DIRECTIONS: Tuple[Direction, ...] = get_args(Direction)
# Seconds. Dense from 1 to 200 ms, with an edge at 40 ms, the budget of a frame at 25 FPS.
BUCKETS = (
    *(0.0005, 0.001, 0.002, 0.003, 0.005, 0.0075, 0.010, 0.015, 0.020, 0.030),
    *(0.040, 0.060, 0.080, 0.120, 0.200, 0.500, 2.0),
)
_Family = TypeVar("_Family", bound=MetricWrapperBase)


class _CameraFamilies:
    """The metrics that carry a ``camera`` label."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(name, text, ("camera", *labels), namespace="edgecount", registry=registry)

        def counter(name: str, text: str, *labels: str) -> Counter:
            return Counter(
                name, text, ("camera", *labels), namespace="edgecount", registry=registry
            )

        self.frames = counter("frames_total", "Frames by what became of them.", "outcome")
        self.fps = gauge("fps", "Frames processed per second over the last seconds.")
        self.fluctuation = gauge(
            "fps_fluctuation_ratio",
            "Coefficient of variation of the per-second frame rate over the last ten seconds.",
        )
        self.target = gauge("fps_target", "Frames per second that the camera should hold.")
        self.up = gauge("camera_up", "1 while the camera delivers frames, else 0.")
        self.reconnects = counter("reconnects_total", "Times the camera was opened again.")
        self.visible = gauge("visible", "Confirmed heads in the newest frame.")
        self.crossings = counter(
            "crossings_total", "People who crossed a line.", "line", "direction"
        )
        self.zone_now = gauge("zone_now", "Heads in a zone now.", "zone")


class CameraMetrics:
    """The series of one camera. Made by :meth:`Metrics.camera`; safe from any thread.

    After :meth:`Metrics.forget_camera` its calls still work and are no longer exposed,
    so a thread that ends late does no harm.
    """

    def __init__(
        self,
        families: _CameraFamilies,
        name: str,
        fps_target: float,
        lines: Iterable[str],
        zones: Iterable[str],
    ) -> None:
        self._name = name
        self._children: List[Tuple[MetricWrapperBase, Tuple[str, ...]]] = []
        self._frames = {o: self._child(families.frames, o) for o in OUTCOMES}
        self._fps = self._child(families.fps)
        self._fluctuation = self._child(families.fluctuation)
        self._up = self._child(families.up)
        self._reconnects = self._child(families.reconnects)
        self._visible = self._child(families.visible)
        self._zones = {z: self._child(families.zone_now, z) for z in zones}
        self._crossings = {
            (line, direction): self._child(families.crossings, line, direction)
            for line in lines
            for direction in DIRECTIONS
        }
        self._child(families.target).set(fps_target)

    def frame(self, outcome: Outcome, count: int = 1) -> None:
        """Frames were processed, dropped for newer ones, skipped by max_fps, or failed."""
        self._frames[outcome].inc(count)

    def rate(self, fps: float, fluctuation: Optional[float] = None) -> None:
        """The current rate (frames per second) and its coefficient of variation, once known."""
        self._fps.set(fps)
        self._fluctuation.set(math.nan if fluctuation is None else fluctuation)

    def delivers(self, up: bool) -> None:
        """Whether the camera delivers frames now."""
        self._up.set(1.0 if up else 0.0)

    def reconnected(self, count: int = 1) -> None:
        """The camera was opened again after it was lost."""
        self._reconnects.inc(count)

    def sees(self, heads: int) -> None:
        """Confirmed heads in the newest frame."""
        self._visible.set(heads)

    def crossed(self, line: str, direction: Direction) -> None:
        """Somebody crossed a configured line."""
        self._crossings[line, direction].inc()

    def zone(self, zone: str, now: int) -> None:
        """Heads in a configured zone now."""
        self._zones[zone].set(now)

    def close(self) -> None:
        """End the series of this camera."""
        for family, values in self._children:
            family.remove(*values)

    def _child(self, family: _Family, *labels: str) -> _Family:
        values = (self._name, *labels)
        self._children.append((family, values))
        return family.labels(*values)


class Metrics:
    """All metrics of one service, in a registry of its own. Safe from any thread.

    Args:
        registry: Where they are registered; a new one where not given.
        device: The newest telemetry reading, or None; called at every scrape, so it must
            return at once (see :class:`~edgecount.observe.telemetry.sampler.Sampler`).
    """

    def __init__(
        self,
        registry: Optional[CollectorRegistry] = None,
        device: Optional[Callable[[], Optional[Reading]]] = None,
    ) -> None:
        # Half of all series otherwise, and nobody asks when a counter was created.
        prometheus_client.disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry() if registry is None else registry
        self._families = _CameraFamilies(self.registry)
        self._cameras: Dict[str, CameraMetrics] = {}
        stages = Histogram(
            "edgecount_stage_seconds",
            "Time a frame spent in a stage; end_to_end is capture to count.",
            ("stage",),
            buckets=BUCKETS,
            registry=self.registry,
        )
        self._stages = {s: stages.labels(s) for s in STAGES}
        self._occupancy = self._gauge("occupancy", "People in a place: net flow.", "place")
        self._ledger_degraded = self._gauge(
            "ledger_degraded", "1 while counts are kept in memory only, else 0."
        )
        self._engine_fallback = self._gauge(
            "engine_fallback", "1 while a slower engine than the wanted one runs, else 0."
        )
        self._build = self._gauge(
            "build_info", "What is running.", "version", "backend", "precision", "engine"
        )
        self._given_up = Counter(
            "outbox_given_up_total",
            "Events that will never be published, since the outbox was full or they too old.",
            namespace="edgecount",
            registry=self.registry,
        )
        self._ledger_bytes = Gauge(
            "ledger_written_bytes",
            "Bytes that the ledger wrote since the start, as the kernel accounts them.",
            namespace="edgecount",
            registry=self.registry,
        )
        # Registered when first used: without a broker an alert on 0 would be false.
        self._mqtt = self._gauge("mqtt_connected", "1 while the broker is connected.", late=True)
        self._outbox = self._gauge("outbox_messages", "Messages not yet delivered.", late=True)
        self._late = {self._mqtt, self._outbox}
        ProcessCollector(registry=self.registry)
        if device is not None:
            self.registry.register(DeviceCollector(device))

    def camera(
        self, name: str, fps_target: float, lines: Iterable[str] = (), zones: Iterable[str] = ()
    ) -> CameraMetrics:
        """Add a configured camera; every series of it exists from now on, at 0."""
        self.forget_camera(name)
        camera = CameraMetrics(self._families, name, fps_target, lines, zones)
        self._cameras[name] = camera
        return camera

    def forget_camera(self, name: str) -> None:
        """The camera is no longer configured: its series end."""
        camera = self._cameras.pop(name, None)
        if camera is not None:
            camera.close()

    def stage(self, stage: Stage, seconds: float) -> None:
        """A frame (or a batch) spent ``seconds`` in a stage."""
        self._stages[stage].observe(seconds)

    def occupancy(self, place: str, people: int) -> None:
        """People in a configured place now."""
        self._occupancy.labels(place).set(people)

    def forget_place(self, place: str) -> None:
        """The place is no longer configured."""
        with contextlib.suppress(KeyError):  # it was never shown
            self._occupancy.remove(place)

    def broker(self, connected: bool) -> None:
        """Whether the broker is connected; never called where none is configured."""
        self._set_late(self._mqtt, 1.0 if connected else 0.0)

    def outbox(self, messages: int) -> None:
        """Messages that wait for the broker."""
        self._set_late(self._outbox, messages)

    def given_up(self, events: int) -> None:
        """So many events will never be published."""
        self._given_up.inc(events)

    def ledger_wrote(self, total: int) -> None:
        """Bytes that the ledger wrote since the start."""
        self._ledger_bytes.set(total)

    def ledger_degraded(self, degraded: bool) -> None:
        """Whether counts are kept in memory only, since the ledger cannot be written."""
        self._ledger_degraded.set(1.0 if degraded else 0.0)

    def engine_fallback(self, fallback: bool) -> None:
        """Whether a slower engine runs because the wanted one could not."""
        self._engine_fallback.set(1.0 if fallback else 0.0)

    def build(self, version: str, backend: str, precision: str, engine: str) -> None:
        """What is running; replaces what was said before."""
        self._build.clear()
        self._build.labels(version, backend, precision, engine).set(1.0)

    def _gauge(self, name: str, text: str, *labels: str, late: bool = False) -> Gauge:
        registry = None if late else self.registry
        return Gauge(name, text, labels, namespace="edgecount", registry=registry)

    def _set_late(self, gauge: Gauge, value: float) -> None:
        gauge.set(value)
        if gauge in self._late:
            self._late.discard(gauge)
            self.registry.register(gauge)
