"""Is the service alive, and is it ready? Pure state, asked by HTTP and by the watchdog.

Alive: the loop of every stage has turned within its limit. A camera that is away does
not make the service dead, since its thread goes on trying; a hung stage does.
Ready: the engine is loaded and every camera delivers. A broker that is away is told in
the answer but does not make the service unready: counting goes on without it.
"""

import time
from dataclasses import dataclass, field
from typing import Callable, Dict, List, Mapping, Optional, Tuple

from typing_extensions import Literal

CameraState = Literal["online", "degraded", "offline"]


@dataclass(frozen=True)
class Report:
    """An answer: ``ok``, the sentences that say why not, and details for a JSON body."""

    ok: bool
    reasons: Tuple[str, ...] = ()
    details: Mapping[str, object] = field(default_factory=dict)


class Heartbeat:
    """Called by a stage on every turn of its loop; costs two attribute writes.

    A stage that waits must wake up and beat within its limit even when there is nothing
    to do. No lock: storing a float is atomic, and only one thread beats.
    """

    __slots__ = ("_clock", "_last", "limit_s", "name")

    def __init__(self, name: str, limit_s: float, clock: Callable[[], float]) -> None:
        self.name = name
        self.limit_s = limit_s
        self._clock = clock
        self._last = clock()

    def __call__(self) -> None:
        self._last = self._clock()

    def allow(self, seconds: float) -> None:
        """Announce a step that takes up to ``seconds`` (building an engine, say)."""
        self._last = self._clock() + seconds

    def age_s(self) -> float:
        """Seconds since the last beat; 0 while an announced step lasts."""
        return max(0.0, self._clock() - self._last)


class Health:
    """What every part of the service last said about itself. Safe from any thread.

    Args:
        clock: Monotonic seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._stages: Dict[str, Heartbeat] = {}
        self._cameras: Dict[str, Tuple[CameraState, str]] = {}
        self._engine: Tuple[bool, str] = (False, "the engine is being loaded")
        self._broker: Optional[Tuple[bool, str]] = None

    def stage(self, name: str, limit_s: float) -> Heartbeat:
        """Register a stage whose loop turns at least every ``limit_s`` seconds."""
        beat = Heartbeat(name, limit_s, self._clock)
        self._stages[name] = beat
        return beat

    def retire(self, name: str) -> None:
        """The stage has ended as it should (a file is over, a camera was removed)."""
        self._stages.pop(name, None)

    def camera(self, name: str, state: CameraState, reason: str = "") -> None:
        """The state of a camera; ``reason`` says why it is not online."""
        self._cameras[name] = (state, reason)

    def forget_camera(self, name: str) -> None:
        """The camera is no longer configured."""
        self._cameras.pop(name, None)

    def engine(self, loaded: bool, detail: str = "") -> None:
        """Whether the network can run; ``detail`` names it, or says why it cannot."""
        self._engine = (loaded, detail)

    def broker(self, connected: bool, error: str = "") -> None:
        """Whether the broker is connected; never called where none is configured."""
        self._broker = (connected, error)

    def alive(self) -> Report:
        """Whether every stage's loop has turned within its limit."""
        stages = dict(self._stages)
        ages = {name: beat.age_s() for name, beat in stages.items()}
        reasons = [
            f"stage {name} has not turned for {ages[name]:.1f} s (limit {beat.limit_s:g} s)"
            for name, beat in stages.items()
            if ages[name] > beat.limit_s
        ]
        details = {
            name: {"age_s": round(ages[name], 2), "limit_s": beat.limit_s}
            for name, beat in stages.items()
        }
        return Report(not reasons, tuple(reasons), {"stages": details})

    def ready(self) -> Report:
        """Whether the engine is loaded and every camera delivers."""
        loaded, engine = self._engine
        cameras = dict(self._cameras)
        reasons: List[str] = []
        if not loaded:
            reasons.append(f"the engine is not loaded: {engine}" if engine else "no engine")
        if not cameras:
            reasons.append("no camera has reported yet")
        reasons += [
            f"camera {name} is {state}{f': {why}' if why else ''}"
            for name, (state, why) in cameras.items()
            if state != "online"
        ]
        return Report(not reasons, tuple(reasons), self._ready_details(loaded, engine, cameras))

    def _ready_details(
        self, loaded: bool, engine: str, cameras: Mapping[str, Tuple[CameraState, str]]
    ) -> Dict[str, object]:
        details: Dict[str, object] = {
            "engine": {"loaded": loaded, "detail": engine},
            "cameras": {n: {"state": s, "reason": why} for n, (s, why) in cameras.items()},
        }
        if self._broker is not None:
            connected, error = self._broker
            details["broker"] = {"connected": connected, "error": error}
        return details
