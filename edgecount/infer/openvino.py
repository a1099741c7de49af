"""OpenVINO: runs a network on the CPU, with integer kernels where the file is quantised.

Like ONNX Runtime one network call uses one thread, and several calls run side by side: each has a
stream of OpenVINO's, which holds the activations of its own. Streams wait on a condition, none
spins, and none is bound to a core.
"""

import sys
import threading
from contextlib import contextmanager
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Any, Dict, Iterator, Optional, Tuple

import numpy as np

from edgecount.errors import EngineError, MissingExtraError, ModelError
from edgecount.infer import cpu_features
from edgecount.infer.openvino_graph import fold_quantisation
from edgecount.records import Float32Array

NAME = "openvino"
_CONVERTER = "openvino.tools.ovc"
_FLOAT = "f32"  # "f16" or "bf16" would be faster and not the network that was measured
# OpenVINO says first where in its sources it noticed.
_PLACES = ("Exception from ", "Check '")


def load() -> Any:
    """The package ``openvino``, without its model converter.

    The converter reports each import of it to its maker over the network. It is of no use here, so
    it is hidden meanwhile; openvino then does without, as where it is not installed.

    Raises:
        MissingExtraError: The package is not installed.
    """
    with _hidden(_CONVERTER):
        try:
            import openvino
        except ImportError as error:
            raise MissingExtraError(NAME, NAME) from error
    return openvino


def installed_version() -> Optional[str]:
    """The version of OpenVINO that is installed, without loading it; None where it is not."""
    try:
        return metadata.version(NAME)
    except metadata.PackageNotFoundError:
        return None


@contextmanager
def _hidden(module: str) -> Iterator[None]:
    """Make importing ``module`` fail, unless somebody has imported it already."""
    if module in sys.modules:
        yield
        return
    modules: Dict[str, Any] = sys.modules
    modules[module] = None
    try:
        yield
    finally:
        modules.pop(module, None)


@dataclass(frozen=True)
class _Compiled:
    """A network that was made for inputs of one shape."""

    shape: Tuple[int, ...]
    model: Any


class OpenVinoNetwork:
    """One ONNX file in OpenVINO's CPU plugin; see :class:`~.detector.Network`."""

    def __init__(self, path: Path, calls: int = 1, threads: int = 1) -> None:
        """Load ``path``.

        Args:
            path: The ONNX file.
            calls: Calls of ``run`` that are computed at the same time; more wait.
            threads: CPU threads of one call.

        Raises:
            ModelError: The file is missing, broken, or uses what this runtime lacks.
            MissingExtraError: OpenVINO is not installed.
        """
        self._openvino = load()
        self._path = path
        self._core = self._openvino.Core()
        self._frontend = self._openvino.frontend.FrontEndManager().load_by_framework("onnx")
        self._options = {
            "NUM_STREAMS": str(calls),
            "INFERENCE_NUM_THREADS": str(calls * threads),
            "INFERENCE_PRECISION_HINT": _FLOAT,
            "ENABLE_CPU_PINNING": "NO",
        }
        # Where products saturate, Q/DQ runs as written, in float32.
        self._integer = not cpu_features.read().saturates
        if not self._integer:
            self._options["LP_TRANSFORMS_MODE"] = "NO"
        self._lock = threading.Lock()
        self._requests = threading.local()
        self._compiled: Optional[_Compiled] = None
        model = self._read()
        if len(model.inputs) != 1:
            raise ModelError(f"{path} has {len(model.inputs)} inputs; a detector has one")
        _check_float(path, "takes", model.inputs[0], "feeds")
        _check_float(path, "gives", model.outputs[0], "decodes")
        self.input_shape = _shape(model.inputs[0])
        self.output_shape = _shape(model.outputs[0])

    def run(self, batch: Float32Array) -> Float32Array:
        """(B, 3, H, W) float32 → the first output. Raises EngineError.

        The first batch of another shape than the last one's takes as long as loading does.
        """
        if not self._takes(batch.shape):
            raise EngineError(
                f"{self._path} takes {list(self.input_shape)}, not {list(batch.shape)}"
            )
        try:
            request = self._request(batch.shape)
            request.infer([np.ascontiguousarray(batch)], share_inputs=True, share_outputs=True)
            output: Float32Array = request.get_output_tensor(0).data.copy()
        except Exception as error:  # OpenVINO raises RuntimeError, TypeError, its own
            raise EngineError(f"OpenVINO failed in {self._path}: {_reason(error)}") from error
        return output

    def _takes(self, shape: Tuple[int, ...]) -> bool:
        declared = self.input_shape
        return len(shape) == len(declared) and all(
            have == want for have, want in zip(shape, declared) if isinstance(want, int)
        )

    def _request(self, shape: Tuple[int, ...]) -> Any:
        """The calling thread's own request for inputs of ``shape``."""
        compiled = self._compile(shape)
        kept: Optional[Tuple[_Compiled, Any]] = getattr(self._requests, "kept", None)
        if kept is None or kept[0] is not compiled:
            kept = compiled, compiled.model.create_infer_request()
            self._requests.kept = kept
        return kept[1]

    def _compile(self, shape: Tuple[int, ...]) -> _Compiled:
        # Kernels for a shape that is known are faster, and are made once and not in each call.
        with self._lock:
            if self._compiled is None or self._compiled.shape != shape:
                model = self._read()
                if self._integer:
                    fold_quantisation(self._openvino, model)
                model.reshape(list(shape))
                made = self._core.compile_model(model, "CPU", self._options)
                self._compiled = _Compiled(shape, made)
            return self._compiled

    def _read(self) -> Any:
        if not self._path.is_file():
            raise ModelError(f"there is no file {self._path}")
        try:
            # Core.read_model would ask the readers of all formats, who write to stderr.
            return self._frontend.convert(self._frontend.load(str(self._path)))
        except Exception as error:  # as above
            version = self._openvino.get_version().split("-")[0]
            raise ModelError(
                f"OpenVINO {version} cannot load {self._path}: {_reason(error)}"
            ) from error


def _check_float(path: Path, verb: str, port: Any, use: str) -> None:
    kind: str = port.get_element_type().get_type_name()
    if kind != "f32":
        raise ModelError(f"{path} {verb} {kind}; edgecount {use} float32")


def _shape(port: Any) -> Tuple[object, ...]:
    """As the file declares it: a dynamic axis is a string."""
    partial = port.get_partial_shape()
    return tuple(d.get_length() if d.is_static else str(d) for d in partial)


def _reason(error: Exception) -> str:
    """What is wrong, without where and in which node: OpenVINO's first two such lines as one."""
    lines = [line.strip(" -") for line in str(error).splitlines() if line.strip(" -")]
    telling = [ln for ln in lines if not ln.startswith(_PLACES) and not ln.endswith(":")]
    return " ".join((telling or lines or [type(error).__name__])[:2])
