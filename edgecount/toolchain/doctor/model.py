"""The model: does it load, and how many cameras can this machine carry with it."""

import time
from typing import Iterator, Optional

import numpy as np

from edgecount.config import CameraSettings, Settings
from edgecount.errors import EdgecountError
from edgecount.infer import cpu_features, openvino, precision
from edgecount.infer import detector as detectors
from edgecount.infer.onnxruntime import open_network
from edgecount.runtime.plan import Model, load_model
from edgecount.runtime.sight import Sight
from edgecount.toolchain.doctor.finding import Finding

_RUNS = 8


def sight_of(settings: Settings) -> Optional[Sight]:
    """How small a head the model sees; None where it cannot be loaded or does not tell."""
    try:
        return Sight.of(*detectors.create(settings.model, open_network))
    except EdgecountError:
        return None  # a finding of its own


def examine(settings: Settings) -> Iterator[Finding]:
    """Load the model, run it a few times on an empty picture, and compare with what is wanted."""
    try:
        model = load_model(settings.model, lambda _s, _t: None)
        detector = model.detector
        picture = np.zeros((720, 1280, 3), np.uint8)
        detector.detect([picture])
        begun = time.perf_counter()
        for _ in range(_RUNS):
            detector.detect([picture])
        seconds = (time.perf_counter() - begun) / _RUNS
    except EdgecountError as error:
        yield Finding("model", "fail", str(error))
        return
    wanted = sum(pictures_per_second(camera) for camera in settings.cameras)
    detail = (
        f"{model.recipe.name}: {1000 * seconds:.0f} ms a picture on this CPU "
        f"({model.precision} in {model.runtime}), so about "
        f"{1 / seconds:.0f} a second; the cameras want {wanted:g}"
    )
    if wanted * seconds > 1.0:
        remedy = "use a smaller model or input_size, a lower fps or max_fps, or a faster device"
        yield Finding("model", "warn", detail, remedy)
    else:
        yield Finding("model", "ok", detail)
    yield _runtime(model)


def pictures_per_second(camera: CameraSettings) -> float:
    """What a camera wants of the network; each tile of a frame is a picture."""
    rate = min(camera.fps, camera.max_fps or camera.fps)
    return rate * (camera.tiles.pictures if camera.tiles else 1)


def _runtime(model: Model) -> Finding:
    """What runs the network on the CPU, and whether OpenVINO might do more with its INT8 file."""
    features, version = cpu_features.read(), openvino.installed_version()
    detail = f"{model.precision} in {model.runtime}; {features.describe()}"
    if version is not None:
        return Finding("cpu runtime", "ok", f"{detail}; OpenVINO {version} is installed")
    quantised = precision.int8_beside(model.path)
    if quantised is None or not features.fast_int8 or precision.over_budget(quantised):
        return Finding("cpu runtime", "ok", detail)
    remedy = "pip install 'edgecount[openvino]': INT8 may count faster in it; the start measures"
    return Finding("cpu runtime", "warn", f"{detail}; OpenVINO is not installed", remedy)
