"""One detector for each precision, on the backend at hand."""

import importlib
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, List, Optional, Sequence, Tuple

import onnxruntime

from edgecount.config import ModelSettings
from edgecount.errors import ConfigError, EngineError
from edgecount.infer.base import Backend, BackendSpec, CameraSpec, Detector
from edgecount.infer.detector import OnnxDetector, Thresholds
from edgecount.infer.onnxruntime import OrtNetwork
from edgecount.infer.recipe import Recipe
from edgecount.infer.tensorrt import device as devices
from edgecount.infer.tensorrt import versions
from edgecount.infer.tensorrt.manifest import Precision
from edgecount.records import Detections, Frame, FrameInfo, UInt8Array
from edgecount.track import two_stage

BACKENDS = ("cpu", "cuda", "tensorrt")
_CAMERA = "report"
_PATIENCE_S = 60.0


@dataclass(frozen=True)
class Place:
    """Where the variants run.

    Attributes:
        backend: One of ``BACKENDS``.
        threads: CPU threads of the network.
        size: Width and height of the network's input; the recipe's where None.
    """

    backend: str = "cpu"
    threads: int = 1
    size: Optional[Tuple[int, int]] = None

    def input_size(self, recipe: Recipe) -> Tuple[int, int]:
        """Width and height of the network's input."""
        return self.size or (recipe.input.width, recipe.input.height)

    def describe(self) -> str:
        """For the report: what runs the networks, and where.

        Raises:
            EngineError: There is no TensorRT.
        """
        runtime = f"ONNX Runtime {onnxruntime.__version__}"
        if self.backend == "cpu":
            threads = "1 thread" if self.threads == 1 else f"{self.threads} threads"
            return f"{runtime}, CPU, {threads}"
        facts = devices.look()
        gpu = f"on {facts.name}, driver {facts.driver}"
        if self.backend == "tensorrt":
            return f"{versions.find().version.label} {gpu}"
        return f"{runtime}, CUDA {gpu}"


@dataclass(frozen=True)
class Opened:
    """A detector, and how to let go of it."""

    detector: Detector
    close: Callable[[], None]


def open_detector(
    place: Place, path: Path, recipe: Recipe, lowest: float, precision: Precision = "fp32"
) -> Opened:
    """Open one variant.

    Args:
        place: Where it runs.
        path: The ONNX file.
        recipe: The recipe that all variants of the model share.
        lowest: Least score that is handed out.
        precision: Of the file; what its TensorRT engine is built in.

    Raises:
        ConfigError: There is no such backend.
        ModelError: The file cannot be loaded.
        EngineError: The device cannot be used, or the file's engine is not built yet.
    """
    if place.backend == "cpu":
        network = OrtNetwork(path, place.threads)
        thresholds = Thresholds(lowest, recipe.nms_iou)
        size = place.input_size(recipe)
        return Opened(OnnxDetector(network, recipe, size=size, thresholds=thresholds), _nothing)
    if place.backend not in BACKENDS:
        raise ConfigError(f"no backend {place.backend!r}: choose one of {', '.join(BACKENDS)}")
    backend = _backend(place, path, recipe, lowest, precision)
    return Opened(BackendDetector(backend), backend.close)


def _backend(
    place: Place, path: Path, recipe: Recipe, lowest: float, precision: Precision
) -> Backend:
    settings = ModelSettings(
        path=path,
        backend=place.backend,
        fallback=False,
        # ONNX Runtime runs a file as it is; of TensorRT's engines there is one per precision.
        precision=precision if place.backend == "tensorrt" else "auto",
        score_threshold=lowest,
        input_size=place.size,
    )
    spec = BackendSpec(
        settings=settings,
        path=path,
        recipe=recipe.model_copy(update={"file": path.name}),
        size=place.input_size(recipe),
        cameras=[CameraSpec(_CAMERA, "two_stage", two_stage.Options(), ())],
        timer=lambda _stage, _seconds: None,
        detections=True,
    )
    module = importlib.import_module(f"edgecount.infer.{place.backend}.backend")
    made: Backend = module.create(spec)
    _must_be_itself(made, path, precision)
    return made


def _must_be_itself(backend: Backend, path: Path, precision: Precision) -> None:
    """A stand-by that runs until an engine is built is not what is to be measured."""
    interim = getattr(backend, "interim", None)
    if interim is None:
        return
    backend.close()
    raise EngineError(
        f"{path.name} has no engine yet ({interim}): build it first with  "
        f"edgecount build {path} --precision {precision}"
    )


class BackendDetector:
    """A whole backend, of which only the detections are looked at.

    Its spec must ask for them (``BackendSpec.detections``).
    """

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._next = 0

    def detect(self, images: Sequence[UInt8Array]) -> List[Detections]:
        """Detect in each picture, one after the other. Raises EngineError."""
        return [self._detect_one(image) for image in images]

    def _detect_one(self, image: UInt8Array) -> Detections:
        index, self._next = self._next, self._next + 1
        height, width = image.shape[:2]
        info = FrameInfo(_CAMERA, index, float(index), float(index), width, height)
        self._backend.submit([Frame(info, image)])
        results = self._backend.collect(_PATIENCE_S)
        if not results:
            raise EngineError(f"the backend gave nothing back within {_PATIENCE_S:.0f} s")
        return results[0].detections


def _nothing() -> None:
    """ONNX Runtime frees a session with its last reference."""
