"""The model: does it load, and how many cameras can this machine carry with it."""

import time
from typing import Iterator

import numpy as np

from edgecount.config import Settings
from edgecount.errors import EdgecountError
from edgecount.infer import detector as detectors
from edgecount.infer.onnxruntime import open_network
from edgecount.toolchain.doctor.finding import Finding

_RUNS = 8


def examine(settings: Settings) -> Iterator[Finding]:
    """Load the model, run it a few times on an empty picture, and compare with what is wanted."""
    try:
        detector, recipe = detectors.create(settings.model, open_network, lambda _s, _t: None)
        picture = np.zeros((720, 1280, 3), np.uint8)
        detector.detect([picture])
        begun = time.perf_counter()
        for _ in range(_RUNS):
            detector.detect([picture])
        seconds = (time.perf_counter() - begun) / _RUNS
    except EdgecountError as error:
        yield Finding("model", "fail", str(error))
        return
    wanted = sum(min(c.fps, c.max_fps or c.fps) for c in settings.cameras)
    detail = (
        f"{recipe.name}: {1000 * seconds:.0f} ms a frame on this CPU, so about "
        f"{1 / seconds:.0f} FPS; the cameras want {wanted:g}"
    )
    if wanted * seconds > 1.0:
        remedy = "use a smaller model or input_size, a lower fps or max_fps, or a faster device"
        yield Finding("model", "warn", detail, remedy)
    else:
        yield Finding("model", "ok", detail)
