"""The counting core: readers, backend, lanes. Everything that a reload builds anew."""

import gc
import threading
from typing import Callable, ContextManager, Dict, List, Optional, Sequence

import structlog
from typing_extensions import Protocol

from edgecount.capture._health import PictureHealth
from edgecount.capture._reader import Reader
from edgecount.capture._slot import SlotGroup
from edgecount.count.counter import CameraCounter
from edgecount.errors import EngineError
from edgecount.observe.health import Health
from edgecount.observe.metrics import CameraMetrics, Metrics
from edgecount.records import CountEvent, Frame, StageTimer, Tracked
from edgecount.runtime.backends import choose
from edgecount.runtime.batcher import Batcher
from edgecount.runtime.pipeline import Lane
from edgecount.runtime.plan import CameraPlan, Plan

_FILE_QUEUE = 3
_STAGE_LIMIT_S = 10.0
# A capture thread may sit in a driver's time-out; it hangs when it exceeds all of those.
_CAPTURE_LIMIT_S = 60.0
_PICTURE_EVERY_S = 1.0

_log = structlog.get_logger(__name__)


class Watcher(Protocol):
    """Sees every frame with what was made of it: the annotator, a bench."""

    def submitted(self, frame: Frame) -> None:
        """A frame goes to the backend."""
        ...

    def counted(self, tracked: Tracked, latency_s: float, lane: Lane) -> None:
        """The frame was counted."""
        ...


class CameraUnit:
    """All that belongs to one camera while it runs."""

    def __init__(
        self, plan: CameraPlan, reader: Reader, lane: Lane, metrics: CameraMetrics
    ) -> None:
        self.settings = plan.settings
        self.fps_target = plan.fps_target
        self.reader = reader
        self.lane = lane
        self.metrics = metrics
        self.picture = PictureHealth()
        self.flags: Sequence[str] = ()
        self._next_look = 0.0

    def look(self, frame: Frame) -> None:
        """Judge the picture itself, now and then."""
        if not self.settings.watch_picture or frame.info.time < self._next_look:
            return
        self._next_look = frame.info.time + _PICTURE_EVERY_S
        self.flags = self.picture.update(frame.image, frame.info.time)


class Core:
    """Runs a plan: frames in, events out. Implements the batcher's hooks."""

    def __init__(
        self,
        plan: Plan,
        metrics: Metrics,
        health: Health,
        clock: Callable[[], float],
        on_events: Callable[[List[CountEvent]], None],
        watchers: Sequence[Watcher] = (),
        timer: Optional[StageTimer] = None,
        starting: Callable[[float], object] = lambda _seconds: None,
    ) -> None:
        """Build the threads; ``start`` starts them.

        Args:
            plan: What runs.
            metrics: Told what happens.
            health: Told that the stages turn.
            clock: Monotonic seconds.
            on_events: Takes the events of each frame, on the collecting thread.
            watchers: See every frame.
            timer: Told how long each stage took; the metrics where not given.
            starting: Told, in seconds, how much longer the start may take.
        """
        self._timer = timer or metrics.stage
        self.plan = plan
        self.error: Optional[BaseException] = None
        self._metrics = metrics
        self._health = health
        self._clock = clock
        self._on_events = on_events
        self._watchers = watchers
        self._counting = threading.Lock()
        self._slots = SlotGroup()
        self.units: Dict[str, CameraUnit] = {c.settings.name: self._unit(c) for c in plan.cameras}
        self._chosen = choose(plan, self._timer, starting=starting)
        self.backend = self._chosen.backend
        self._batcher = Batcher(
            self._slots,
            self.backend,
            self,
            dispatch_beat=health.stage("dispatch", _STAGE_LIMIT_S),
            collect_beat=health.stage("collect", _STAGE_LIMIT_S),
            max_wait_s=plan.settings.model.max_wait_ms / 1e3,
        )

    @property
    def fallback(self) -> Optional[str]:
        """Why another backend than this should count; None where it is the wanted one."""
        return self._chosen.fallback

    def start(self) -> None:
        """Start counting."""
        # What is alive now lives on: the garbage collector need not look at it every time.
        # Thawed first: what a reload left behind would be frozen, and so kept, for ever.
        gc.unfreeze()
        gc.collect()
        gc.freeze()
        self._batcher.start()
        for unit in self.units.values():
            unit.reader.start()

    def stop(self) -> None:
        """Stop counting; returns within about a second."""
        for unit in self.units.values():
            unit.reader.ask_to_stop()
        self._batcher.stop(1.0)
        for name, unit in self.units.items():
            unit.reader.stop(0.5)
            self._health.retire(f"capture-{name}")
        self.backend.close()
        self._health.retire("dispatch")
        self._health.retire("collect")

    def finished(self) -> bool:
        """Whether every source has ended and all its frames are counted."""
        return all(u.reader.finished for u in self.units.values()) and self.drained()

    def drained(self) -> bool:
        """Whether every frame that was taken is counted."""
        return not self._batcher.in_flight()

    def submitted(self, frame: Frame) -> None:
        unit = self.units[frame.info.camera]
        if unit.reader.source.live:
            self._timer("queue", max(0.0, self._clock() - frame.info.time))
        unit.look(frame)
        for watcher in self._watchers:
            watcher.submitted(frame)

    def tracked(self, result: Tracked, latency_s: float) -> None:
        started = self._clock()
        unit = self.units[result.info.camera]
        with self._counting:
            events = unit.lane.count(result)
            counted = self._clock()
            if events:
                self._take(unit, events)
                self._timer("publish", self._clock() - counted)
        unit.metrics.frame("processed")
        self._timer("count", counted - started)
        age = counted - result.info.time if unit.reader.source.live else latency_s
        self._timer("end_to_end", age)
        unit.lane.took(age)
        for watcher in self._watchers:
            watcher.counted(result, latency_s, unit.lane)

    def paused(self) -> ContextManager[object]:
        """While this is held no frame is counted, so that totals can be reset as one."""
        return self._counting

    def lost(self, frames: int, error: EngineError) -> None:
        _log.error("inference_failed", frames=frames, error=str(error))

    def died(self, error: BaseException) -> None:
        self.error = error

    def _take(self, unit: CameraUnit, events: List[CountEvent]) -> None:
        for event in events:
            if event.kind == "line":
                unit.metrics.crossed(event.name, "in" if event.direction == "in" else "out")
        self._on_events(events)

    def _unit(self, camera: CameraPlan) -> CameraUnit:
        settings = camera.settings
        slot = self._slots.add(None if camera.source.live else _FILE_QUEUE)
        reader = Reader(
            settings.name,
            camera.source,
            slot,
            stale_s=settings.stale_s,
            beat=self._health.stage(f"capture-{settings.name}", _CAPTURE_LIMIT_S),
            timer=lambda seconds: self._timer("capture", seconds),
        )
        counter = CameraCounter(
            settings.name, settings.lines, settings.zones, self.plan.model.recipe.anchor
        )
        metrics = self._metrics.camera(
            settings.name,
            camera.fps_target,
            [line.name for line in settings.lines],
            [zone.name for zone in settings.zones],
        )
        return CameraUnit(camera, reader, Lane(settings.name, counter, self._clock), metrics)
