"""The composition root: the whole service, started, turned and stopped."""

import time
from dataclasses import dataclass
from typing import Any, Callable, Dict, List, Mapping, Optional, Sequence, Set, Tuple

import structlog

from edgecount import __version__
from edgecount.capture._reader import State
from edgecount.count.ledger import Ledger
from edgecount.count.schedule import Due
from edgecount.errors import EdgecountError, EngineError
from edgecount.infer.base import Backend
from edgecount.observe.health import CameraState, Health
from edgecount.observe.http import HttpServer, routes
from edgecount.observe.metrics import Metrics
from edgecount.publish import mqtt
from edgecount.publish.base import Sink
from edgecount.records import Snapshot
from edgecount.redact import Redactor
from edgecount.runtime.books import Books
from edgecount.runtime.core import CameraUnit, Core, Watcher
from edgecount.runtime.heat import HeatWatcher
from edgecount.runtime.plan import Plan
from edgecount.runtime.systemd import Notifier, Watchdog, watchdog_period_s

TURN_S = 0.25
_MAIN_LIMIT_S = 10.0
_PUBLISH_EVERY_S = 1.0
# Below this part of its target for a while, a live camera's counts deserve less trust.
_SLOW = 0.8
_SETTLED_S = 15.0

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class CameraView:
    """One camera as it is shown: its state, why, and its counts."""

    state: CameraState
    reason: str
    snapshot: Snapshot
    dropped: int
    latency_ms: Optional[float]
    live: bool
    fps_target: float


class Service:
    """Runs a plan until it is stopped, or until its files have ended.

    The owner calls ``start``, then ``turn`` about four times a second, then ``stop``, all
    from one thread; the pipeline runs in threads of its own.
    """

    def __init__(
        self,
        plan: Plan,
        metrics: Metrics,
        *,
        ledger: Optional[Ledger] = None,
        on_reload: Callable[[], None] = lambda: None,
        notifier: Optional[Notifier] = None,
        watchers: Sequence[Watcher] = (),
    ) -> None:
        """Prepare to run ``plan``.

        Args:
            plan: What runs; its model's timer is ``metrics.stage``.
            metrics: Where everything is measured.
            ledger: An open ledger of the same settings to go on with, after a reload.
            on_reload: Somebody asks over MQTT to read the configuration again; any thread.
            notifier: Told of READY, the watchdog's beats and STOPPING.
            watchers: See every frame.
        """
        self.settings = plan.settings
        self.plan = plan
        self.health = Health()
        self._metrics = metrics
        self._notifier = notifier or Notifier(None)
        self._redact = Redactor(plan.settings.secrets())
        self._beat = self.health.stage("main", _MAIN_LIMIT_S)
        self._watchdog: Optional[Watchdog] = None
        self._http: Optional[HttpServer] = None
        self._on_reload = on_reload
        self._books = Books(plan.settings, metrics, ledger)
        heat = HeatWatcher(self._books.ledger, plan.model.recipe.anchor)
        self._core = Core(
            plan,
            metrics,
            self.health,
            time.monotonic,
            self._books.record,
            [*watchers, heat],
            starting=self._notifier.extend_timeout,
        )
        self._keepers = {n: _Keeper(u, self._books) for n, u in self._core.units.items()}
        self._engine: Optional[Tuple[str, str, Optional[str]]] = None
        self._ready = False
        self._next_second = 0.0
        self._finished: Set[str] = set()

    @property
    def backend(self) -> Backend:
        """What turns frames into tracks."""
        return self._core.backend

    @property
    def http_port(self) -> Optional[int]:
        """Port of the HTTP server; None where it is off."""
        return self._http.port if self._http else None

    def start(self) -> None:
        """Start everything.

        Raises:
            ConfigError: A certificate for the broker is missing or wrong.
            EdgecountError: The HTTP address cannot be listened on.
        """
        sink = self._sink()
        http = self.settings.http
        if http.enabled:
            table = routes(self._metrics.registry, self.health, self.state, self._redact)
            self._http = HttpServer(http.bind, http.port, table)
        period = watchdog_period_s()
        if period is not None:
            self._watchdog = Watchdog(self._notifier, self.health, period)
            self._watchdog.start()
        self._say_what_runs()
        for name, unit in self._core.units.items():
            unit.lane.restore(self._books.totals(name))
        self._books.start(sink)
        self._core.start()
        if sink is None:
            _log.info("no_broker", hint="set 'mqtt' in the configuration to publish counts")

    def turn(self) -> bool:
        """Do what is due now. False when all files have ended.

        Raises:
            EdgecountError: The service cannot go on.
        """
        self._beat()
        if self._core.error is not None:
            raise self._fatal(self._core.error)
        now = time.monotonic()
        snapshots = [keeper.turn(now, self.health) for keeper in self._keepers.values()]
        self._finish_files()
        if now >= self._next_second:
            self._next_second = now + 1.0
            self._each_second(snapshots)
        degraded = ("ledger",) if self._books.degraded else ()
        self._books.publish_places(degraded)
        self._tell_broker()
        self._tell_ready()
        return not self._core.finished()

    def stop(self, *, keep_ledger: bool = False, because: Optional[str] = None) -> Optional[Ledger]:
        """Stop everything: last states published, ``offline``, files closed. At most 2 s.

        Args:
            keep_ledger: Leave the ledger open, and return it for the next service.
            because: What went wrong, where the next service follows at once: the cameras
                are said to be degraded, not offline.
        """
        self._core.stop()
        for name, keeper in self._keepers.items():
            keeper.leave(self.health, because)
            # Or a camera that a reload takes out would be down in the metrics for ever.
            self._metrics.forget_camera(name)
        self._books.stop(keep_ledger=keep_ledger)
        if self._http is not None:
            self._http.close()
        if self._watchdog is not None:
            self._watchdog.close()
        failed = [u.reader.error for u in self._core.units.values() if u.reader.error]
        _log.info("stopped", totals=self._totals(), errors=failed)
        return self._books.ledger if keep_ledger else None

    def failures(self) -> List[str]:
        """What ended a camera for good, in sentences."""
        units = self._core.units.values()
        return [u.reader.error for u in units if u.reader.state is State.FAILED]

    def reset(self, due: Optional[Due] = None) -> None:
        """Start all totals at zero, now or as was due. Any thread."""
        wanted = due or Due(time.time(), keep_session=False)
        with self._core.paused():
            self._books.reset(wanted.at, keep_session=wanted.keep_session)
            for name, unit in self._core.units.items():
                unit.lane.reset()
                unit.lane.restore(self._books.totals(name))
        _log.info("totals_reset", since=wanted.at)

    def views(self) -> List[CameraView]:
        """Every camera as it is now."""
        return [keeper.view() for keeper in self._keepers.values()]

    def occupancy(self) -> Dict[str, int]:
        """People by place."""
        return self._books.occupancy()

    def warnings(self) -> Tuple[str, ...]:
        """What deserves attention about the whole service."""
        found = []
        if self._books.degraded:
            found.append(f"counts are kept in memory only: {self._books.degraded}")
        if self._core.fallback:
            found.append(f"counting on {self.backend.name}: {self._core.fallback}")
        return tuple(found)

    def broker(self) -> Optional[Tuple[bool, str]]:
        """Whether the broker is connected and why not; None without one."""
        sink = self._books.sink
        return None if sink is None else (sink.connected, sink.last_error)

    def backlog(self) -> int:
        """Events that wait for the broker."""
        return self._books.ledger.backlog

    def state(self) -> Mapping[str, Any]:
        """The state as JSON values, for ``/api/state``."""
        cameras = {
            view.snapshot.camera: {"status": view.state, **view.snapshot.payload()}
            for view in self.views()
        }
        return {
            "device": self.settings.device,
            "version": __version__,
            "cameras": cameras,
            "places": self.occupancy(),
            "warnings": list(self.warnings()),
        }

    def _sink(self) -> Optional[Sink]:
        if self.settings.mqtt is None:
            return None
        handlers = {
            "reset": lambda _command: self.reset(),
            "set_occupancy": lambda c: self._books.set_occupancy(c.place, c.occupancy),
            "reload": lambda _command: self._on_reload(),
        }
        return mqtt.create(self.settings, self._books.ledger, handlers)

    def _each_second(self, snapshots: Sequence[Snapshot]) -> None:
        self._say_engine()
        due = self._books.due()
        if due is not None:
            self.reset(due)
        self._books.sample(
            {(s.camera, z): zone.now for s in snapshots for z, zone in s.zones.items()}
        )

    def _finish_files(self) -> None:
        """Count what is only certain because a file has ended."""
        for name, unit in self._core.units.items():
            over = unit.reader.finished and self._core.drained()
            if over and name not in self._finished:
                self._finished.add(name)
                with self._core.paused():
                    self._books.record(unit.lane.finish())

    def _say_what_runs(self) -> None:
        backend, recipe = self._core.backend, self.plan.model.recipe
        self._say_engine()
        _log.info(
            "started",
            version=__version__,
            device=self.settings.device,
            model=recipe.name,
            backend=backend.name,
            precision=backend.precision,
            http=self.http_port,
            cameras={n: u.reader.source.label for n, u in self._core.units.items()},
        )
        for warning in self.plan.warnings:
            _log.warning("configuration_doubtful", reason=warning)

    def _say_engine(self) -> None:
        """Which engine counts; it may change while an engine is built in the background."""
        backend, recipe, fallback = self._core.backend, self.plan.model.recipe, self._core.fallback
        engine = (backend.name, backend.precision, fallback)
        if engine == self._engine:
            return
        self._engine = engine
        self._metrics.build(__version__, backend.name, backend.precision, recipe.name)
        self._metrics.engine_fallback(fallback is not None)
        instead = f" instead of {fallback}" if fallback else ""
        self.health.engine(True, f"{recipe.name} {backend.precision} on {backend.name}{instead}")

    def _tell_broker(self) -> None:
        broker = self.broker()
        if broker is not None:
            self.health.broker(*broker)
            self._metrics.broker(broker[0])
            self._metrics.outbox(self.backlog())

    def _tell_ready(self) -> None:
        # Cameras that are away do not hold the start up: systemd would kill a service that
        # waits for a camera, and its other cameras would not count.
        if not self._ready:
            self._ready = True
            self._notifier.ready(f"counting on {len(self._keepers)} camera(s)")

    def _totals(self) -> Dict[str, Dict[str, Tuple[int, int]]]:
        return {
            n: {name: (t.into, t.out) for name, t in u.lane.totals()[0].items()}
            for n, u in self._core.units.items()
        }

    @staticmethod
    def _fatal(error: BaseException) -> EdgecountError:
        if isinstance(error, EdgecountError):
            return error
        return EngineError(f"a stage of the pipeline failed with {type(error).__name__}: {error}")


class _Keeper:
    """Keeps metrics, health and published state of one camera up to date."""

    def __init__(self, unit: CameraUnit, books: Books) -> None:
        self._unit = unit
        self._books = books
        self._dropped = 0
        self._skipped = 0
        self._reconnects = 0
        self._published = 0.0
        self._last: Optional[Tuple[object, ...]] = None
        self._began = time.monotonic()

    def turn(self, now: float, health: Health) -> Snapshot:
        """Bring everything up to date; returns the camera's state."""
        view = self.view()
        snapshot = view.snapshot
        self._count_losses()
        mine = self._unit.metrics
        mine.rate(snapshot.fps, self._unit.lane.rate.fluctuation(now) or 0.0)
        delivers = self._unit.reader.state is State.ONLINE
        mine.delivers(delivers)
        mine.sees(snapshot.visible)
        for name, zone in snapshot.zones.items():
            mine.zone(name, zone.now)
        # A covered or slow camera is degraded, but it delivers: restarting would not help.
        health.camera(snapshot.camera, "online" if delivers else view.state, view.reason)
        self._publish(now, view)
        return snapshot

    def leave(self, health: Health, because: Optional[str]) -> None:
        """The service stops: say the last counts, and that no more come."""
        snapshot = self.view().snapshot
        state: CameraState = "degraded" if because else "offline"
        health.camera(snapshot.camera, state, because or "the service stops")
        self._books.publish(snapshot, state)

    def view(self) -> CameraView:
        """The camera as it is now."""
        unit = self._unit
        state, reason, flags = self._judge()
        snapshot = unit.lane.snapshot(
            seq=self._books.ledger.seq, since=self._books.ledger.since, degraded=flags
        )
        live = unit.reader.source.live
        return CameraView(
            state,
            reason,
            snapshot,
            unit.reader.dropped,
            unit.lane.latency_ms(),
            live,
            unit.fps_target,
        )

    def _judge(self) -> Tuple[CameraState, str, Tuple[str, ...]]:
        reader = self._unit.reader
        flags = list(self._unit.flags)
        if self._books.degraded:
            flags.append("ledger")
        state = reader.state
        if state in (State.FAILED, State.ENDED):
            return "offline", reader.error or "the source has ended", (*flags, "stale")
        if state is not State.ONLINE:
            why = reader.error or f"no frame for more than {self._unit.settings.stale_s:g} s"
            return "degraded", why, (*flags, "stale")
        if self._slow():
            flags.append("slow")
        reason = f"its counts deserve less trust: {', '.join(flags)}" if flags else ""
        return ("degraded" if flags else "online"), reason, tuple(flags)

    def _slow(self) -> bool:
        now = time.monotonic()
        live, target = self._unit.reader.source.live, self._unit.fps_target
        if not live or now - self._began < _SETTLED_S:
            return False
        return self._unit.lane.rate.fps(now) < _SLOW * target

    def _count_losses(self) -> None:
        reader, metrics = self._unit.reader, self._unit.metrics
        metrics.frame("dropped", reader.dropped - self._dropped)
        metrics.frame("skipped", reader.skipped - self._skipped)
        metrics.reconnected(reader.reconnects - self._reconnects)
        self._dropped, self._skipped = reader.dropped, reader.skipped
        self._reconnects = reader.reconnects

    def _publish(self, now: float, view: CameraView) -> None:
        snapshot = view.snapshot
        essence = (view.state, snapshot.visible, snapshot.lines, snapshot.zones, snapshot.degraded)
        if essence != self._last or now - self._published >= _PUBLISH_EVERY_S:
            self._last, self._published = essence, now
            self._books.publish(snapshot, view.state)
