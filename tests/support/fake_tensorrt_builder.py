"""The builder half of TensorRT's Python API, in the flavours 8.2, 8.5, 10.3 and 11.0.

``module("8.2")`` has what edgecount calls of that version's module and nothing else, so that
a call that the version lacks raises AttributeError. It builds nothing: the "engine" is JSON
of what was asked for, which tests read. Names are compared with real modules by
``tests/unit/toolchain/build/test_builder_signatures.py``.
"""

import enum
import json
from types import SimpleNamespace
from typing import Any, Dict, List, Optional

import onnx

VERSIONS = {"8.2": "8.2.1.8", "8.5": "8.5.2.2", "10.3": "10.3.0.30", "11.0": "11.0.0.114"}


class Severity(enum.IntEnum):
    INTERNAL_ERROR = 0
    ERROR = 1
    WARNING = 2
    INFO = 3
    VERBOSE = 4


class DataType(enum.Enum):
    FLOAT = 0
    HALF = 1
    INT8 = 2
    INT64 = 8


class _Callback:
    """A base whose constructor must be called, as pybind11 demands."""

    def __init__(self) -> None:
        self.ready = True


def module(
    flavour: str,
    *,
    fail: Optional[str] = None,
    dla_cores: int = 0,
    opens: bool = True,
    layers: str = '{"Layers": []}',
) -> Any:
    """The module.

    Args:
        flavour: A key of :data:`VERSIONS`.
        fail: What the builder logs before it gives up.
        dla_cores: How many the device has.
        opens: Whether engines can be opened, as on a machine with a GPU.
        layers: What the inspector says.
    """
    numbers = tuple(int(n) for n in VERSIONS[flavour].split("."))
    weak, strong = numbers < (11,), numbers >= (10,)
    state = SimpleNamespace(
        numbers=numbers, fail=fail, dla_cores=dla_cores, opens=opens, layers=layers, trt=None
    )
    flags = ["GPU_FALLBACK", "TF32"] + (["FP16", "INT8"] if weak else [])
    network_flags = (["EXPLICIT_BATCH"] if numbers < (11,) else []) + (
        ["STRONGLY_TYPED"] if strong else []
    )
    made = SimpleNamespace(
        __version__=VERSIONS[flavour],
        ILogger=_Callback,
        float32=DataType.FLOAT,
        float16=DataType.HALF,
        BuilderFlag=enum.Enum("BuilderFlag", flags),
        NetworkDefinitionCreationFlag=enum.IntEnum(
            "NetworkDefinitionCreationFlag", network_flags, start=0
        ),
        ProfilingVerbosity=enum.Enum("ProfilingVerbosity", ["DETAILED", "NONE"]),
        DeviceType=enum.Enum("DeviceType", ["GPU", "DLA"]),
        LayerInformationFormat=enum.Enum("LayerInformationFormat", ["ONELINE", "JSON"]),
        Builder=lambda logger: _Builder(state, logger),
        OnnxParser=lambda network, logger: _Parser(state, network, logger),
        Runtime=lambda logger: _Runtime(state),
    )
    if numbers >= (8, 4):
        made.MemoryPoolType = enum.Enum("MemoryPoolType", ["WORKSPACE"])
    if weak:
        made.IInt8EntropyCalibrator2 = type("IInt8EntropyCalibrator2", (_Callback,), {})
        made.IInt8MinMaxCalibrator = type("IInt8MinMaxCalibrator", (_Callback,), {})
    if strong:
        made.IProgressMonitor = _Callback
    state.trt = made
    return made


class _Builder:
    def __init__(self, state: Any, logger: Any) -> None:
        assert logger.ready
        self._state = state
        self._logger = logger
        self.num_DLA_cores = state.dla_cores

    def create_network(self, flags: int = 0) -> "_Network":
        numbers = self._state.numbers
        if numbers < (10,):
            assert flags == 1 << int(self._state.trt.NetworkDefinitionCreationFlag.EXPLICIT_BATCH)
        return _Network(flags)

    def create_builder_config(self) -> Any:
        return _config(self._state.numbers)

    def create_optimization_profile(self) -> "_Profile":
        return _Profile()

    def build_serialized_network(self, network: "_Network", config: Any) -> Optional[bytes]:
        monitor = getattr(config, "progress_monitor", None)
        if monitor is not None:
            assert monitor.ready
            monitor.phase_start("Building engine", None, 2)
            monitor.step_complete("Building engine", 0)
            monitor.phase_finish("Building engine")
        self._logger.log(Severity.INFO, "timing tactics")
        if self._state.fail is not None:
            self._logger.log(Severity.ERROR, self._state.fail)
            return None
        if any(-1 in shape for shape in network.input_shapes()):
            assert config.profiles
        _calibrate(getattr(config, "int8_calibrator", None))
        return json.dumps(config.asked(network)).encode()


def _calibrate(calibrator: Any) -> None:
    """As TensorRT does it: only where the cache is not there are batches asked for."""
    if calibrator is None:
        return
    assert calibrator.ready
    assert calibrator.get_batch_size() >= 1
    calibrator.addresses = []
    calibrator.scales = calibrator.read_calibration_cache()
    if calibrator.scales is not None:
        return
    while True:
        addresses = calibrator.get_batch(["images"])
        if addresses is None:
            break
        calibrator.addresses.extend(addresses)
    calibrator.scales = b"TRT-8502-found"
    calibrator.write_calibration_cache(memoryview(calibrator.scales))


class _Profile:
    def __init__(self) -> None:
        self.shapes: Dict[str, Any] = {}

    def set_shape(self, name: str, least: Any, best: Any, most: Any) -> None:
        self.shapes[name] = (least, best, most)


class _Config:
    """What every version has."""

    def __init__(self) -> None:
        self.flags: List[str] = []
        self.profiles: List[_Profile] = []
        self.profiling_verbosity: Any = None
        self.default_device_type: Any = None
        self.DLA_core = -1

    def set_flag(self, flag: Any) -> None:
        self.flags.append(flag.name)

    def add_optimization_profile(self, profile: _Profile) -> None:
        self.profiles.append(profile)

    def create_timing_cache(self, data: bytes) -> Any:
        return SimpleNamespace(serialize=lambda: data + b"+timings")

    def set_timing_cache(self, cache: Any, ignore_mismatch: bool) -> None:
        assert ignore_mismatch is False
        self.timings = cache

    def get_timing_cache(self) -> Any:
        return self.timings

    def asked(self, network: "_Network") -> Dict[str, Any]:
        calibrator = getattr(self, "int8_calibrator", None)
        return {
            "network_flags": network.flags,
            "flags": sorted(self.flags),
            "workspace": self.workspace(),
            "profiles": [p.shapes for p in self.profiles],
            "verbosity": self.profiling_verbosity.name,
            "device": getattr(self.default_device_type, "name", None),
            "pinned": {n.name: n.asked() for n in network.layers if n.asked()},
            "calibration": calibrator and calibrator.scales.decode(),
            "calibrated_on": calibrator and calibrator.addresses,
            "algorithm": calibrator and type(calibrator).__mro__[1].__name__,
        }


def _config(numbers: Any) -> Any:
    """A configuration that takes just the attributes of its version."""

    class Config(_Config):
        if numbers < (8, 4):
            max_workspace_size = 16 * 2**20

            def workspace(self) -> int:
                return self.max_workspace_size

        else:

            def set_memory_pool_limit(self, pool: Any, size: int) -> None:
                assert pool.name == "WORKSPACE"
                self._pool = size

            def workspace(self) -> int:
                return self._pool

        if numbers >= (10,):
            progress_monitor: Any = None
        if numbers < (11,):
            int8_calibrator: Any = None

            def set_calibration_profile(self, profile: _Profile) -> bool:
                self.calibration_profile = profile
                return True

        def __setattr__(self, name: str, value: Any) -> None:
            ours = name in ("flags", "profiles", "timings", "_pool", "calibration_profile")
            shared = name in ("profiling_verbosity", "default_device_type", "DLA_core")
            if not (ours or shared or hasattr(type(self), name)):
                raise AttributeError(name)
            object.__setattr__(self, name, value)

    return Config()


class _Tensor:
    def __init__(self, name: str, dtype: DataType, shape: Any = ()) -> None:
        self.name, self.dtype, self.shape = name, dtype, shape


class _Layer:
    def __init__(self, node: onnx.NodeProto) -> None:
        self.name = node.name
        self.type = f"LayerType.{node.op_type.upper()}"
        integer = node.op_type in ("Shape", "Gather")
        dtype = DataType.INT64 if integer else DataType.FLOAT
        self._inputs = [_Tensor(n, dtype) for n in node.input]
        self._outputs = [_Tensor(n, dtype) for n in node.output]
        self.num_inputs, self.num_outputs = len(self._inputs), len(self._outputs)
        self.precision: Any = None
        self._types: Dict[int, Any] = {}

    def get_input(self, index: int) -> _Tensor:
        return self._inputs[index]

    def get_output(self, index: int) -> _Tensor:
        return self._outputs[index]

    def set_output_type(self, index: int, kind: Any) -> None:
        self._types[index] = kind

    def asked(self) -> Optional[List[str]]:
        if self.precision is None:
            return None
        return [self.precision.name, *(t.name for t in self._types.values())]


class _Network:
    def __init__(self, flags: int) -> None:
        self.flags = flags
        self.layers: List[_Layer] = []
        self.inputs: List[_Tensor] = []

    @property
    def num_layers(self) -> int:
        return len(self.layers)

    def get_layer(self, index: int) -> _Layer:
        return self.layers[index]

    def get_input(self, index: int) -> _Tensor:
        return self.inputs[index]

    def input_shapes(self) -> List[Any]:
        return [tensor.shape for tensor in self.inputs]


class _Parser:
    def __init__(self, state: Any, network: _Network, logger: Any) -> None:
        self._state, self._network = state, network
        self._errors: List[Any] = []

    @property
    def num_errors(self) -> int:
        return len(self._errors)

    def get_error(self, index: int) -> Any:
        return self._errors[index]

    def parse(self, data: bytes) -> bool:
        model = onnx.load_from_string(data)
        for index, node in enumerate(model.graph.node):
            if node.op_type == "Unheard":
                self._errors.append(self._unknown(index, node))
                return False
            self._network.layers.append(_Layer(node))
        for info in model.graph.input:
            dims = [d.dim_value or -1 for d in info.type.tensor_type.shape.dim]
            self._network.inputs.append(_Tensor(info.name, DataType.FLOAT, dims))
        return True

    def _unknown(self, index: int, node: onnx.NodeProto) -> Any:
        error = SimpleNamespace(
            code=lambda: "ErrorCode.UNSUPPORTED_NODE",
            desc=lambda: "No importer registered for op: Unheard",
            node=lambda: index,
        )
        if self._state.numbers >= (10,):
            error.node_name = lambda: node.name
            error.node_operator = lambda: node.op_type
        return error


class _Runtime:
    def __init__(self, state: Any) -> None:
        self._state = state

    def deserialize_cuda_engine(self, data: bytes) -> Any:
        if not self._state.opens:
            return None
        inspector = SimpleNamespace(get_engine_information=lambda _format: self._state.layers)
        return SimpleNamespace(create_engine_inspector=lambda: inspector)
