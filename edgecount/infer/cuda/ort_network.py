"""ONNX Runtime's CUDA provider as a network of the pipeline: a caller's stream, device pointers."""

import contextlib
import importlib
import io
import re
from pathlib import Path
from typing import Any, Dict, List, NoReturn, Optional, Tuple

import numpy as np
import onnxruntime
from numpy.typing import DTypeLike

from edgecount.errors import DeviceLostError, EngineError, MissingExtraError, ModelError
from edgecount.infer.cuda.driver import LOST, Event, Stream

_PROVIDER = "CUDAExecutionProvider"
_FATAL_ONLY = 4
_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}
_CUDA_FAILURE = re.compile(r"CUDA failure (\d+)")


class OrtCudaNetwork:
    """One ONNX file on a CUDA device; see :class:`~.network.DeviceNetwork`.

    ``max_batch`` is the only batch size that the file allows, or None.

    ONNX Runtime's own CUDA graph is not used: its replay waits for the stream on the host.
    The session is still told to expect one, which makes it refuse what cannot be captured,
    and the pipeline records its launches into a graph of ours.
    """

    name = "onnxruntime-cuda"

    def __init__(
        self,
        path: Path,
        *,
        stream: Stream,
        size: Tuple[int, int],
        precision: str,
        memory_bytes: int,
        device: int = 0,
        channels_last: bool = False,
        first_batch: int = 1,
    ) -> None:
        """Load ``path``.

        Args:
            path: The ONNX file, with float32 input and output.
            stream: What it will run on, always.
            size: Width and height of the input, pixels.
            precision: ``fp32`` or ``fp16``.
            memory_bytes: Most device memory that it may take.
            device: Number of the device.
            channels_last: Whether convolutions run in NHWC inside.
            first_batch: A batch size that will be used.

        Raises:
            EngineError: This ONNX Runtime has no CUDA provider, or it cannot be used.
            ModelError: The file is broken.
            MissingExtraError: FP16 was asked for and the package onnx is not installed.
        """
        self.precision = precision
        self._path = path
        self._device = device
        self._bindings: Dict[Tuple[int, int, int], Any] = {}
        self._content = _halved(path) if precision == "fp16" else str(path)
        self._settings = {
            "device_id": str(device),
            "user_compute_stream": str(stream.handle),
            "gpu_mem_limit": str(memory_bytes),
            "arena_extend_strategy": "kSameAsRequested",
            "use_tf32": "0",  # fp32 means fp32: counts must not differ from the CPU's
            # Trying all algorithms takes half a minute for each batch size.
            "cudnn_conv_algo_search": "HEURISTIC",
            "prefer_nhwc": str(int(channels_last)),
        }
        self._sessions: Dict[int, Any] = {}
        session = self._session(first_batch)
        given, made = session.get_inputs(), session.get_outputs()
        self._input, self._output = given[0].name, made[0].name
        self.input_dtype: DTypeLike = _TYPES[given[0].type]
        self.output_dtype: DTypeLike = _TYPES[made[0].type]
        fixed = given[0].shape[0]
        self.max_batch: Optional[int] = fixed if isinstance(fixed, int) and fixed > 0 else None
        self._shape = (3, size[1], size[0])
        self._options = onnxruntime.RunOptions()
        self._options.log_severity_level = _FATAL_ONLY
        self._options.add_run_config_entry("gpu_graph_id", "-1")
        self._per_picture = self._probe(first_batch)
        self._options.add_run_config_entry("disable_synchronize_execution_providers", "1")

    def output_shape(self, batch: int) -> Tuple[int, ...]:
        """Shape of the output for so many pictures."""
        return (batch, *self._per_picture)

    def enqueue(
        self,
        stream: Stream,  # noqa: ARG002 - the session knows it
        batch: int,
        input: int,  # noqa: A002
        output: int,
        consumed: Optional[Event],  # noqa: ARG002 - known only when all is done
    ) -> None:
        """Run on device memory; see :class:`~.network.DeviceNetwork`."""
        key = (batch, input, output)
        binding = self._bindings.get(key)
        if binding is None:
            binding = self._bindings[key] = self._bind(batch, input, output)
        try:
            self._session(batch).run_with_iobinding(binding, self._options)
        except Exception as error:  # its exceptions share no base class but Exception
            self._fail(error)

    def close(self) -> None:
        """Free the sessions and their memory."""
        self._bindings.clear()
        self._sessions.clear()

    def _session(self, batch: int) -> Any:
        """The session of a batch size; made when it is asked for first."""
        if batch not in self._sessions:
            self._sessions[batch] = self._open(self._settings)
        return self._sessions[batch]

    def _open(self, options: Dict[str, str]) -> Any:
        _check_provider()
        graph_ready = {**options, "enable_cuda_graph": "1"}
        try:
            return self._session_with(graph_ready)
        except EngineError:
            # Some part of the network runs on the CPU: slower, and never in a graph.
            return self._session_with(options)

    def _session_with(self, options: Dict[str, str]) -> Any:
        settings = onnxruntime.SessionOptions()
        settings.log_severity_level = _FATAL_ONLY
        try:
            session = onnxruntime.InferenceSession(
                self._content, settings, providers=[(_PROVIDER, options), "CPUExecutionProvider"]
            )
        except Exception as error:  # as above
            self._fail(error)
        if _PROVIDER not in session.get_providers():
            raise EngineError(
                f"ONNX Runtime {onnxruntime.__version__} cannot use CUDA here: its libraries "
                "(cuDNN, cuBLAS) are missing or of another CUDA version; run  python -c "
                "'import onnxruntime; onnxruntime.preload_dlls()'  to see which"
            )
        return session

    def _bind(self, batch: int, source: int, target: int) -> Any:
        binding = self._session(batch).io_binding()
        where = ("cuda", self._device)
        binding.bind_input(self._input, *where, self.input_dtype, [batch, *self._shape], source)
        shape = list(self.output_shape(batch))
        binding.bind_output(self._output, *where, self.output_dtype, shape, target)
        return binding

    def _probe(self, batch: int) -> Tuple[int, ...]:
        """Shape of the output for one picture, the batch left out."""
        pictures = np.zeros((batch, *self._shape), self.input_dtype)
        try:
            outputs: List[Any] = self._session(batch).run(
                [self._output], {self._input: pictures}, self._options
            )
        except Exception as error:  # as above
            self._fail(error)
        return tuple(int(n) for n in outputs[0].shape[1:])

    def _fail(self, error: Exception) -> NoReturn:
        text = (str(error).strip().splitlines() or [type(error).__name__])[0]
        failure = _CUDA_FAILURE.search(str(error))
        if failure and int(failure.group(1)) in LOST:
            raise DeviceLostError(f"the device was lost in {self._path}: {text}") from error
        raise EngineError(f"ONNX Runtime failed in {self._path}: {text}") from error


def _check_provider() -> None:
    # What convolutions try in vain goes to the default logger, a line each.
    onnxruntime.set_default_logger_severity(_FATAL_ONLY)
    preload = getattr(onnxruntime, "preload_dlls", None)
    if _PROVIDER not in onnxruntime.get_available_providers():
        raise EngineError(
            f"the installed ONNX Runtime {onnxruntime.__version__} has no CUDA: replace the "
            "package onnxruntime by onnxruntime-gpu"
        )
    if preload is not None:
        # From the packages nvidia-*, where they are installed; it prints what it misses, and
        # the session says it better.
        with contextlib.redirect_stdout(io.StringIO()):
            preload(directory="")


def _halved(path: Path) -> bytes:
    """The model in float16, as bytes; its output stays float32."""
    try:
        onnx: Any = importlib.import_module("onnx")
        float16: Any = importlib.import_module("onnxruntime.transformers.float16")
    except ImportError as error:
        raise MissingExtraError("onnx", "quantize") from error
    try:
        model = onnx.load(str(path))
        kept = [o.name for o in model.graph.output]
        halved = float16.convert_float_to_float16(model, keep_io_types=kept)
    except Exception as error:  # of onnx, protobuf and the converter
        raise ModelError(f"{path} cannot be converted to FP16: {error}") from error
    content: bytes = halved.SerializeToString()
    return content
