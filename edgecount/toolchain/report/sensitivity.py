"""How much the output suffers when one layer alone is quantised."""

from pathlib import Path
from typing import Any, List, Sequence

import numpy as np
import onnxruntime

from edgecount.infer.detector import OnnxDetector, Thresholds
from edgecount.infer.onnxruntime import OrtNetwork
from edgecount.infer.recipe import Recipe
from edgecount.records import Float32Array, UInt8Array
from edgecount.toolchain.quantize.table import CalibrationTable
from edgecount.toolchain.report.plots import Damage

_MOST_DB = 120.0  # of an output that does not change at all
_FATAL_ONLY = 4


def damages(
    model: Path, recipe: Recipe, table: CalibrationTable, images: Sequence[UInt8Array]
) -> List[Damage]:
    """Signal to quantisation noise of the output, for each layer that can be quantised.

    Args:
        model: The FP32 file.
        recipe: Its recipe.
        table: Its calibration table.
        images: Pictures to look at; few are enough.

    Raises:
        MissingExtraError: onnx is not installed.
        ModelError: The model cannot be quantised.
    """
    import onnx

    from edgecount.toolchain.quantize.precision import PrecisionRules, layers
    from edgecount.toolchain.quantize.qdq import write_qdq

    plain = onnx.load(str(model))
    batches = _inputs(model, recipe, images)
    wanted = _outputs(plain, batches)
    names = [node.name for node in layers(plain)]
    found = []
    for name in names:
        rules = PrecisionRules().keeping([other for other in names if other != name])
        got = _outputs(write_qdq(plain, table, rules), batches)
        found.append(Damage(name, signal_to_noise(wanted, got)))
    return found


def signal_to_noise(wanted: Sequence[Float32Array], got: Sequence[Float32Array]) -> float:
    """Power of ``wanted`` over that of the difference, dB; at most 120."""
    signal = sum(float(np.square(a, dtype=np.float64).sum()) for a in wanted)
    noise = sum(float(np.square(a - b, dtype=np.float64).sum()) for a, b in zip(wanted, got))
    if noise <= signal * 10 ** (-_MOST_DB / 10):
        return _MOST_DB
    return 10 * float(np.log10(signal / noise))


def _inputs(model: Path, recipe: Recipe, images: Sequence[UInt8Array]) -> List[Float32Array]:
    size = (recipe.input.width, recipe.input.height)
    thresholds = Thresholds(recipe.score_threshold, recipe.nms_iou)
    detector = OnnxDetector(OrtNetwork(model), recipe, size=size, thresholds=thresholds)
    return [detector.network_input(image) for image in images]


def _outputs(model: Any, batches: Sequence[Float32Array]) -> List[Float32Array]:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _FATAL_ONLY
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    name = session.get_inputs()[0].name
    return [session.run(None, {name: batch})[0] for batch in batches]
