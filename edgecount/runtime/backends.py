"""Which backend counts: the one that is asked for, or the fastest that works here."""

import ctypes
import importlib
from dataclasses import dataclass, replace
from typing import Callable, List, Mapping, Optional, Sequence

import structlog
from typing_extensions import Protocol

from edgecount.count.masks import apply_masks
from edgecount.errors import DeviceLostError, EngineError, MissingExtraError
from edgecount.infer.base import Backend, BackendSpec
from edgecount.infer.cpu import CpuBackend
from edgecount.infer.runtimes import workers
from edgecount.records import Detections, FrameInfo, StageTimer
from edgecount.runtime.plan import Plan, tracker_of

# Fastest first.
_ACCELERATED: Mapping[str, str] = {
    "tensorrt": "edgecount.infer.tensorrt.backend",
    "cuda": "edgecount.infer.cuda.backend",
}

_log = structlog.get_logger(__name__)


class _BackendModule(Protocol):
    def create(self, spec: BackendSpec) -> Backend:
        """Build the backend. Raises EngineError where the device cannot be used."""
        ...


@dataclass(frozen=True)
class Chosen:
    """The backend that counts.

    Attributes:
        backend: It.
        unusable: Why those that should count instead cannot; None where it is the first.
    """

    backend: Backend
    unusable: Optional[str] = None

    @property
    def fallback(self) -> Optional[str]:
        """Why another than this one should count now; it may change while an engine is built."""
        return self.unusable or getattr(self.backend, "interim", None)


def choose(
    plan: Plan,
    timer: StageTimer,
    *,
    starting: Callable[[float], object] = lambda _seconds: None,
    load: Callable[[str], _BackendModule] = importlib.import_module,
    gpu: Callable[[], bool] = lambda: gpu_present(),
) -> Chosen:
    """Make the backend of a plan.

    ``auto`` takes the first that works, and counts on the CPU without a word where there is
    no GPU. A backend that was asked for, or a GPU that is there and cannot be used, is
    replaced by the CPU only if the configuration allows it, and the reason is kept.

    Args:
        plan: What runs.
        timer: Told how long the stages took.
        starting: Told, in seconds, how much longer the start may take.
        load: Imports a backend's module.
        gpu: Whether this machine has an NVIDIA GPU with a driver.

    Raises:
        EngineError: The backend cannot be used, and ``model.fallback`` is off.
        MissingExtraError: Likewise, because a package is missing.
        DeviceLostError: The device was lost in this process and cannot be opened again. A new
            process can open it, so the CPU is no substitute then.
    """
    reasons: List[str] = []
    spec = replace(_spec(plan, timer), starting=starting)
    for name in _candidates(spec.settings.backend, gpu):
        backend = _attempt(name, spec, load, reasons, plan.reopens)
        if backend is not None:
            return Chosen(backend, "; ".join(reasons) or None)
    return Chosen(_cpu(plan, spec), "; ".join(reasons) or None)


def gpu_present() -> bool:
    """Whether the driver's library can be loaded, as on every machine with an NVIDIA GPU."""
    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def _attempt(
    name: str,
    spec: BackendSpec,
    load: Callable[[str], _BackendModule],
    reasons: List[str],
    reopens: bool,
) -> Optional[Backend]:
    """The backend, or None and one reason more where another may count instead."""
    try:
        return load(_ACCELERATED[name]).create(spec)
    except (EngineError, MissingExtraError) as error:
        if not spec.settings.fallback or (reopens and isinstance(error, DeviceLostError)):
            raise
        reasons.append(f"{name}: {error}")
        _log.warning("backend_unusable", backend=name, reason=str(error))
        return None


def _candidates(asked: str, gpu: Callable[[], bool]) -> Sequence[str]:
    if asked == "auto":
        return tuple(_ACCELERATED) if gpu() else ()
    return () if asked == "cpu" else (asked,)


def _spec(plan: Plan, timer: StageTimer) -> BackendSpec:
    model = plan.model
    cameras = tuple(c.spec for c in plan.cameras)
    spec = BackendSpec(
        plan.settings.model, model.path, model.recipe, model.detector.size, cameras, timer
    )
    if not spec.settings.fallback:
        return spec
    return replace(spec, standby=lambda: _cpu(plan, spec))


def _cpu(plan: Plan, spec: BackendSpec) -> Backend:
    ignored = {c.name: c.ignore for c in spec.cameras}

    def unmasked(info: FrameInfo, detections: Detections) -> Detections:
        return apply_masks(
            detections, ignored[info.camera], info.width, info.height, spec.recipe.anchor
        )

    return CpuBackend(
        plan.model.detector,
        {c.name: tracker_of(c.tracker_kind, c.tracker_options) for c in spec.cameras},
        workers=workers(spec.settings),
        precision=plan.model.precision,
        runtime=plan.model.runtime,
        ignore=unmasked,
        tiles={c.name: c.tiles for c in spec.cameras if c.tiles is not None},
        timer=spec.timer,
    )
