"""The fake-quantised reference of a Q/DQ file, and how far a real run is away from it.

ONNX Runtime fuses Q/DQ and float operators into integer ones. With that switched off it runs
the file as it is written: values are rounded and clipped to the INT8 grid, and all between is
float32. An integer product of exact arithmetic gives the same but for the order of float sums.
An x86 CPU with AVX2 and without VNNI has none: it adds pairs of u8×s8 products in 16 bits,
which saturate.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, List, Sequence, Tuple, Union

import numpy as np
import onnx
import onnxruntime

from edgecount.errors import EngineError, ModelError
from edgecount.records import Float32Array
from edgecount.toolchain.quantize.table import LEVELS

_FATAL_ONLY = 4
_FUSE, _AS_WRITTEN = "0", "1"

Model = Union[Path, onnx.ModelProto]


def open_session(model: Model, *, fuse: bool, threads: int = 1) -> onnxruntime.InferenceSession:
    """Load a model into ONNX Runtime on the CPU; arguments and errors: :class:`SessionNetwork`."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _FATAL_ONLY
    options.add_session_config_entry("session.disable_quant_qdq", _FUSE if fuse else _AS_WRITTEN)
    source: Any = str(model) if isinstance(model, Path) else model.SerializeToString()
    try:
        return onnxruntime.InferenceSession(source, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # its exceptions share no base class but Exception
        raise ModelError(
            f"ONNX Runtime {onnxruntime.__version__} cannot load the model: {error}"
        ) from error


class SessionNetwork:
    """An ONNX model in ONNX Runtime; a :class:`~edgecount.infer.detector.Network`."""

    def __init__(self, model: Model, *, fuse: bool, threads: int = 1) -> None:
        """Load ``model``.

        Args:
            model: File, or the model itself.
            fuse: Whether Q/DQ becomes integer arithmetic; the reference where not.
            threads: CPU threads of one call.

        Raises:
            ModelError: ONNX Runtime cannot load it.
        """
        self._session = open_session(model, fuse=fuse, threads=threads)
        self._input = self._session.get_inputs()[0].name
        self._output = self._session.get_outputs()[0].name
        self.input_shape: Tuple[object, ...] = tuple(self._session.get_inputs()[0].shape)
        self.output_shape: Tuple[object, ...] = tuple(self._session.get_outputs()[0].shape)

    def run(self, batch: Float32Array) -> Float32Array:
        """(B, 3, H, W) float32 → the first output. Raises EngineError."""
        try:
            output: Float32Array = self._session.run([self._output], {self._input: batch})[0]
        except Exception as error:  # as above
            raise EngineError(f"ONNX Runtime failed: {error}") from error
        return output


@dataclass(frozen=True)
class Agreement:
    """How far integer arithmetic is away from the reference.

    A step is what one INT8 level of the output would be worth: each channel's greatest
    magnitude in the reference ÷ 127.

    Attributes:
        steps_max: Greatest difference, in steps.
        steps_p999: Difference that 99.9 % of the values stay below, in steps.
        within_one: Part of the values that differ by one step at most.
    """

    steps_max: float
    steps_p999: float
    within_one: float


def compare(model: Model, batches: Sequence[Float32Array], channel_axis: int = 1) -> Agreement:
    """Run a Q/DQ model as it is deployed and as it is written, and compare the outputs.

    Args:
        model: The Q/DQ model.
        batches: (B, 3, H, W) float32 inputs.
        channel_axis: The output's axis whose entries have units of their own.

    Raises:
        ModelError, EngineError: It cannot be run.
    """
    real, reference = SessionNetwork(model, fuse=True), SessionNetwork(model, fuse=False)
    wanted = np.concatenate([reference.run(batch) for batch in batches])
    got = np.concatenate([real.run(batch) for batch in batches])
    return differences(wanted, got, channel_axis)


def differences(wanted: Float32Array, got: Float32Array, channel_axis: int) -> Agreement:
    """Differences of two outputs, (B, …) float32, in INT8 steps of ``wanted``."""
    axis = channel_axis % wanted.ndim
    others = tuple(i for i in range(wanted.ndim) if i != axis)
    step = np.abs(wanted).max(axis=others, keepdims=True) / LEVELS
    away = np.abs(wanted - got) / np.maximum(step, np.finfo(np.float32).tiny)
    return Agreement(
        steps_max=float(away.max()),
        steps_p999=float(np.quantile(away, 0.999)),
        within_one=float((away <= 1.0).mean()),
    )


def signal_to_noise(wanted: Sequence[Float32Array], got: Sequence[Float32Array]) -> float:
    """Power of ``wanted`` over that of the difference, dB; infinite where there is none."""
    signal = sum(float(np.square(a, dtype=np.float64).sum()) for a in wanted)
    noise = sum(float(np.square(a - b, dtype=np.float64).sum()) for a, b in zip(wanted, got))
    return float("inf") if noise == 0.0 else 10.0 * float(np.log10(signal / noise))


def outputs(model: Model, batches: Sequence[Float32Array]) -> List[Float32Array]:
    """The reference's output for each batch."""
    network = SessionNetwork(model, fuse=False)
    return [network.run(batch) for batch in batches]
