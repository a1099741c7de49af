"""A backend whose engine can be changed between two frames, and changed back.

Results come out in the order of submission: those of the old engine first. People keep
their ids (see :mod:`.identities`). The old engine stays open until the new one has proven
itself; when the new one fails before that, its frames in flight go to the old one, so that
none is lost.
"""

import threading
from collections import deque
from dataclasses import dataclass, field
from time import monotonic
from typing import Callable, Deque, Dict, List, Optional, Sequence

import structlog

from edgecount.errors import DeviceLostError, EngineError
from edgecount.infer.base import Backend
from edgecount.infer.identities import Alive, Identities
from edgecount.records import Frame, Tracked

# About a second of one camera: longer than a queue of work that was enqueued before a failure.
PROBATION = 50

_log = structlog.get_logger(__name__)


@dataclass(eq=False)
class _Engine:
    """A backend, how it does, and whose ids its tracks go by."""

    backend: Backend
    delivered: int = 0
    identities: Dict[str, Identities] = field(default_factory=dict)


@dataclass(eq=False)
class _Flight:
    """A batch under way; ``pending`` until its engine has it."""

    engine: _Engine
    batch: Sequence[Frame]
    pending: bool


class SwitchingBackend:
    """Hands frames to the backend of the moment; see :class:`~.base.Backend`.

    Its attributes are those of the backend that frames go to.

    Attributes:
        interim: Why this one counts and not the one that is wanted; None once that does.
    """

    name: str
    precision: str
    depth: int
    max_batch: int

    def __init__(
        self,
        first: Backend,
        probation: int = PROBATION,
        on_close: Callable[[], None] = lambda: None,
        interim: Optional[str] = None,
    ) -> None:
        """Begin with ``first``; it is owned from now on, as is every one that is offered.

        Args:
            first: What counts until another is offered.
            probation: Batches that a new backend must deliver before the old one is closed.
            on_close: Called when this is closed.
            interim: Why ``first`` is not the one that is wanted.
        """
        self.interim = interim
        self._on_close = on_close
        self._use(_Engine(first))
        self._previous: Optional[_Engine] = None
        self._offered: Optional[_Engine] = None
        self._probation = probation
        self._flights: Deque[_Flight] = deque()
        self._changed = threading.Condition()
        self._closed = False
        # Of the collecting thread only:
        self._delivering = self._engine
        self._alive: Dict[str, Alive] = {}

    @property
    def settled(self) -> bool:
        """Whether neither a new backend waits nor one is on probation."""
        return self._offered is None and self._previous is None

    def offer(self, backend: Backend) -> None:
        """Take this one from the next frame on. Any thread.

        Raises:
            EngineError: This is closed; ``backend`` is, too.
        """
        with self._changed:
            closed, unwanted = self._closed, self._offered
            self._offered = None if closed else _Engine(backend)
        if unwanted is not None:
            unwanted.backend.close()
        if closed:
            backend.close()
            raise EngineError("the backend is closed")

    def submit(self, batch: Sequence[Frame]) -> None:
        flight = self._begin(batch)
        engine = flight.engine
        if flight.pending:
            self._wait_for_room(engine)
            return
        try:
            engine.backend.submit(batch)
        except EngineError as error:
            if not self._went_back(flight, engine, error):
                self._land(flight)
                raise

    def collect(self, timeout: float) -> Optional[List[Tracked]]:
        deadline = monotonic() + timeout
        flight = self._oldest(timeout)
        while flight is not None:
            engine = flight.engine
            try:
                self._feed(engine)
                results = engine.backend.collect(max(0.0, deadline - monotonic()))
            except EngineError as error:
                if self._went_back(flight, engine, error):
                    continue
                self._land(flight)
                raise
            if results is None:
                return None
            self._land(flight)
            return self._delivered(engine, results)
        return None

    def reset(self, camera: str) -> None:
        with self._changed:
            engines = [e for e in (self._engine, self._previous) if e is not None]
        for engine in engines:
            engine.backend.reset(camera)

    def close(self) -> None:
        with self._changed:
            self._closed = True
            engines = [self._engine, self._previous, self._offered]
            self._previous = self._offered = None
            self._changed.notify_all()
        self._on_close()
        for engine in engines:
            if engine is not None:
                engine.backend.close()

    def _use(self, engine: _Engine) -> None:
        backend = engine.backend
        self._engine = engine
        self.name, self.precision = backend.name, backend.precision
        self.depth, self.max_batch = backend.depth, backend.max_batch

    def _begin(self, batch: Sequence[Frame]) -> _Flight:
        """The batch's place in the order; this is where a new backend takes over."""
        with self._changed:
            offered, waiting = self._offered, any(f.pending for f in self._flights)
            # A batch that was gathered for the old one may be too large for the new one.
            fits = offered is not None and len(batch) <= offered.backend.max_batch
            if offered is not None and fits and self._previous is None and not waiting:
                self._previous, self._offered, self.interim = self._engine, None, None
                self._use(offered)
                _log.info("engine_switched", engine=self.name, precision=self.precision)
            flight = _Flight(self._engine, batch, pending=waiting)
            self._flights.append(flight)
            self._changed.notify_all()
        return flight

    def _wait_for_room(self, engine: _Engine) -> None:
        with self._changed:
            while not self._closed and self._pending() > engine.backend.depth:
                self._changed.wait()

    def _pending(self) -> int:
        return sum(f.pending for f in self._flights)

    def _oldest(self, timeout: float) -> Optional[_Flight]:
        with self._changed:
            if not self._flights:
                self._changed.wait(timeout)
            return self._flights[0] if self._flights else None

    def _feed(self, engine: _Engine) -> None:
        """Hand over what waits for ``engine``, as far as it takes it without waiting."""
        with self._changed:
            mine = [f for f in self._flights if f.engine is engine]
            waiting = [f for f in mine if f.pending]
        room = engine.backend.depth - (len(mine) - len(waiting))
        for flight in waiting[: max(0, room)]:
            engine.backend.submit(flight.batch)
            with self._changed:
                # Only now: the next frame must not overtake it.
                flight.pending = False
                self._changed.notify_all()

    def _land(self, flight: _Flight) -> None:
        with self._changed:
            self._flights.remove(flight)
            self._changed.notify_all()

    def _went_back(self, flight: _Flight, engine: _Engine, error: EngineError) -> bool:
        """Whether the batch that ``engine`` failed on is, with all others, the old one's now."""
        with self._changed:
            if flight.engine is not engine:
                return True  # the other thread met the failure first
            previous = self._previous
            if previous is None or isinstance(error, DeviceLostError) or self._closed:
                return False
            self._previous, self.interim = None, str(error)
            self._use(previous)
            for stranded in self._flights:
                if stranded.engine is engine:
                    stranded.engine, stranded.pending = previous, True
        _log.error("engine_rolled_back", engine=engine.backend.name, reason=str(error))
        engine.backend.close()
        return True

    def _delivered(self, engine: _Engine, results: List[Tracked]) -> List[Tracked]:
        if self._delivering is not engine:
            # Results come in order, so these are the first after the change.
            engine.identities = {c: Identities(alive) for c, alive in self._alive.items()}
            self._delivering = engine
        engine.delivered += 1
        translated = [self._translate(engine, result) for result in results]
        self._retire(engine)
        return translated

    def _retire(self, engine: _Engine) -> None:
        """Close the backend before ``engine`` when the probation is over."""
        with self._changed:
            old = self._previous
            if old is None or engine is not self._engine or engine.delivered < self._probation:
                return
            self._previous = None
        old.backend.close()

    def _translate(self, engine: _Engine, result: Tracked) -> Tracked:
        camera, tracks = result.info.camera, result.tracks
        identities = engine.identities.get(camera)
        if identities is not None:
            tracks = identities.translate(tracks, result.info.time)
        self._alive.setdefault(camera, Alive()).update(tracks, result.info.time)
        return Tracked(result.info, tracks, result.detections)
