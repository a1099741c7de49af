"""Sees to it that the wanted engine counts: now, or as soon as it is built.

An engine that is there is opened and counts at once. Otherwise it is built in a process of
its own, while the last good engine or a stand-by backend counts; it takes over between two
frames. A build that fails, or an engine that does not open, changes nothing: what counts
goes on. All parts are injected, and nothing here starts a thread: the owner calls ``turn``.
"""

import threading
import time
from dataclasses import dataclass
from typing import Callable, Optional, Tuple

import structlog
from typing_extensions import Literal, Protocol

from edgecount.errors import DeviceLostError, EngineError
from edgecount.infer.base import Backend
from edgecount.infer.switching import SwitchingBackend
from edgecount.infer.tensorrt.cache import Entry, Lookup

State = Literal["ready", "building", "failed"]
# The start-up is asked to wait this much longer at each look at a build that it waits for.
EXTENSION_S = 30.0
_LOOK_S = 1.0

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Outcome:
    """How a build ended: ``error`` is None where it succeeded."""

    error: Optional[str] = None


class Build(Protocol):
    """A build under way in another process."""

    def poll(self) -> Optional[Outcome]:
        """How it ended; None while it goes on."""
        ...

    def stop(self) -> None:
        """End it, if it still goes on. What it has built so far is lost."""
        ...


@dataclass(frozen=True)
class Parts:
    """What the keeper works with.

    Attributes:
        lookup: What the cache holds now; see :meth:`~.cache.EngineCache.lookup`.
        build: Starts a build of the wanted engine.
        open: Opens an engine as a backend. Raises EngineError where it cannot run here.
        standby: Makes the backend that counts while no engine can; None where the start
            shall wait for the build instead.
        starting: Told, in seconds, how much longer the start-up may take; what it raises ends
            the wait and the build.
        sleep: Waits, in seconds.
    """

    lookup: Callable[[], Lookup]
    build: Callable[[], Build]
    open: Callable[[Entry], Backend]
    standby: Optional[Callable[[], Backend]]
    starting: Callable[[float], object]
    sleep: Callable[[float], None] = time.sleep


class EngineKeeper:
    """Opens the wanted engine, or has it built and switches over."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._build: Optional[Build] = None
        self._switch: Optional[SwitchingBackend] = None
        self.state: State = "ready"

    def start(self) -> Backend:
        """What counts from now on.

        Returns:
            The engine's own backend where it is as wanted; else a
            :class:`~edgecount.infer.switching.SwitchingBackend`, and a build goes on.

        Raises:
            DeviceLostError: The device is gone.
            EngineError: No engine can be opened or built, and there is no stand-by.
        """
        found = self._parts.lookup()
        backend, reason = self._open_first(found)
        if backend is not None and reason is None:
            return backend
        _log.warning("engine_building", reason=reason)
        self._build, self.state = self._parts.build(), "building"
        try:
            if backend is None and self._parts.standby is None:
                return self._wait()
            backend = backend or self._stand_in()
        except BaseException:
            self.close()
            raise
        self._switch = SwitchingBackend(backend, on_close=self.close, interim=reason)
        return self._switch

    def turn(self) -> bool:
        """Look at the build, and switch over when it is done. False when nothing is left to do."""
        if self._build is None or self._switch is None:
            return False
        outcome = self._build.poll()
        if outcome is None:
            return True
        self._build = None
        try:
            self._switch.offer(self._built(outcome))
        except EngineError as error:
            self.state, self._switch.interim = "failed", str(error)
            _log.error("engine_build_failed", reason=str(error), counting_on=self._switch.name)
        else:
            self.state = "ready"
        return False

    def close(self) -> None:
        """Stop a build that goes on. Any thread; may be called twice."""
        build = self._build
        if build is not None:
            build.stop()

    def _open_first(self, found: Lookup) -> Tuple[Optional[Backend], Optional[str]]:
        """The engine that is there, opened, and why another is wanted."""
        if found.entry is None:
            return None, found.reason
        try:
            return self._parts.open(found.entry), found.reason
        except DeviceLostError:
            raise
        except EngineError as error:
            return None, str(error)

    def _stand_in(self) -> Backend:
        assert self._parts.standby is not None
        return self._parts.standby()

    def _wait(self) -> Backend:
        """The built engine; the start-up waits for it."""
        assert self._build is not None
        while True:
            self._parts.starting(EXTENSION_S)
            outcome = self._build.poll()
            if outcome is not None:
                break
            self._parts.sleep(_LOOK_S)
        self._build, self.state = None, "ready"
        return self._built(outcome)

    def _built(self, outcome: Outcome) -> Backend:
        if outcome.error is not None:
            raise EngineError(f"the engine could not be built: {outcome.error}")
        entry = self._parts.lookup().entry
        if entry is None:
            raise EngineError("the engine was built, but it is not in the cache: see the log")
        return self._parts.open(entry)


def attend(keeper: EngineKeeper, every_s: float = _LOOK_S) -> threading.Thread:
    """Call ``turn`` in a thread of its own until nothing is left to do."""

    def work() -> None:
        while keeper.turn():
            time.sleep(every_s)

    thread = threading.Thread(target=work, name="engine-keeper", daemon=True)
    thread.start()
    return thread
