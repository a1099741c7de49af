"""ONNX Runtime: runs a network on the CPU.

One network call uses one thread; several calls run side by side. On a machine whose
cores are all busy that gives more pictures per second than one call on all cores, and
no thread ever spins while it waits for work.
"""

from pathlib import Path
from typing import Any, Dict, Tuple

import onnxruntime

from edgecount.errors import EngineError, ModelError
from edgecount.infer import cpu_features
from edgecount.records import Float32Array

NAME = "onnxruntime"
VERSION: str = onnxruntime.__version__
# Shape errors and the like are ours to explain; ONNX Runtime's own lines would only double them.
_FATAL_ONLY = 4


class OrtNetwork:
    """One ONNX file in ONNX Runtime's CPU provider; see :class:`~.detector.Network`."""

    def __init__(self, path: Path, threads: int = 1) -> None:
        """Load ``path``.

        Raises:
            ModelError: The file is missing, broken, or uses what this runtime lacks.
        """
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
        options.log_severity_level = _FATAL_ONLY
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if cpu_features.read().saturates:
            # Q/DQ then runs as written, in float32: exact, and as fast as what saturates.
            options.add_session_config_entry("session.disable_quant_qdq", "1")
        self._path = path
        try:
            self._session = onnxruntime.InferenceSession(
                str(path), options, providers=["CPUExecutionProvider"]
            )
        except Exception as error:  # its exceptions share no base class but Exception
            raise ModelError(
                f"ONNX Runtime {onnxruntime.__version__} cannot load {path}: {_first_line(error)}"
            ) from error
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if len(inputs) != 1:
            raise ModelError(f"{path} has {len(inputs)} inputs; a detector has one")
        if inputs[0].type != "tensor(float)":
            raise ModelError(f"{path} takes {inputs[0].type}; edgecount feeds float32")
        if outputs[0].type != "tensor(float)":
            raise ModelError(f"{path} gives {outputs[0].type}; edgecount decodes float32")
        self._input, self._output = inputs[0].name, outputs[0].name
        self.input_shape: Tuple[object, ...] = tuple(inputs[0].shape)
        self.output_shape: Tuple[object, ...] = tuple(outputs[0].shape)

    def metadata(self) -> Dict[str, str]:
        """What the exporter wrote into the file."""
        written: Dict[str, str] = self._session.get_modelmeta().custom_metadata_map
        return written

    def run(self, batch: Float32Array) -> Float32Array:
        """(B, 3, H, W) float32 → the first output. Raises EngineError."""
        try:
            output: Any = self._session.run([self._output], {self._input: batch})[0]
        except Exception as error:  # as above
            raise EngineError(
                f"ONNX Runtime failed in {self._path}: {_first_line(error)}"
            ) from error
        result: Float32Array = output
        return result


def read_metadata(path: Path) -> Dict[str, str]:
    """What the exporter wrote into an ONNX file, without making it ready to run.

    Raises:
        ModelError: The file is missing or broken.
    """
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = _FATAL_ONLY
    try:
        session = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # as above
        raise ModelError(f"ONNX Runtime cannot read {path}: {_first_line(error)}") from error
    written: Dict[str, str] = session.get_modelmeta().custom_metadata_map
    return written


def open_network(path: Path, threads: int = 1) -> Tuple[OrtNetwork, Dict[str, str]]:
    """Load an ONNX file for :func:`edgecount.infer.detector.create`."""
    network = OrtNetwork(path, threads)
    return network, network.metadata()


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
