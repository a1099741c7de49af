"""Drive TensorRT's builder, of any version, from a prepared file to engine bytes.

Runs in a process of its own (:mod:`.worker`): TensorRT may exhaust the memory or crash.
"""

import warnings
from pathlib import Path
from typing import Any, List, NamedTuple, Optional, Sequence

from edgecount.errors import ConfigError, EdgecountError, EngineError, ModelError
from edgecount.infer.tensorrt.cache import keep_file
from edgecount.infer.tensorrt.versions import TensorRt
from edgecount.toolchain.build.calibrators import feed_for, make_calibrator
from edgecount.toolchain.build.callbacks import Log, make_logger, make_monitor
from edgecount.toolchain.build.job import Emit, Job
from edgecount.toolchain.build.layers import engine_layers, network_layers

_OUT_OF_MEMORY = ("out of memory", "outofmemory", "insufficient memory", "failed_allocation")


class OutOfMemoryError(EdgecountError):
    """The build needs more memory than there is; less workspace may do."""


class BuiltEngine(NamedTuple):
    """What came of a build.

    Attributes:
        data: The engine.
        layers: Its layers, as :class:`~edgecount.infer.tensorrt.manifest.Layer` in JSON form.
        layers_of: ``engine`` or ``network``; see the manifest.
    """

    data: bytes
    layers: List[Any]
    layers_of: str


def build_engine(trt: TensorRt, job: Job, emit: Emit) -> BuiltEngine:
    """Build.

    Raises:
        ModelError: TensorRT cannot read the file, or cannot build this network.
        ConfigError: The device lacks what was asked for.
        OutOfMemoryError: Less workspace may do.
        EngineError: TensorRT failed.
    """
    log = Log(emit, quiet=trt.features.progress_monitor)
    logger = make_logger(trt.module, log)
    builder = trt.module.Builder(logger)
    network = builder.create_network(_network_flags(trt, job))
    parser = trt.module.OnnxParser(network, logger)
    _parse(trt, parser, job, log)
    config = builder.create_builder_config()
    # Kept alive here: TensorRT does not own what Python hands it.
    helpers = _configure(trt, builder, network, config, job, emit)
    if job.precision != "fp32" and not job.strongly_typed:
        _pin_layers(trt.module, network, job)
    log.forget()
    serialized = builder.build_serialized_network(network, config)
    if serialized is None:
        raise _failure(job, log)
    data = bytes(serialized)
    del helpers
    _keep_timings(config, job)
    layers = engine_layers(trt.module, logger, data)
    if layers is not None:
        return BuiltEngine(data, layers, "engine")
    return BuiltEngine(data, network_layers(network), "network")


def _network_flags(trt: TensorRt, job: Job) -> int:
    flags = trt.module.NetworkDefinitionCreationFlag
    if job.strongly_typed:
        return 1 << int(flags.STRONGLY_TYPED)
    return 1 << int(flags.EXPLICIT_BATCH) if trt.features.explicit_batch else 0


def _parse(trt: TensorRt, parser: Any, job: Job, log: Log) -> None:
    # As bytes: parse_from_file came late, and looks for external data, which detectors lack.
    if parser.parse(job.onnx.read_bytes()):
        return
    if parser.num_errors == 0:
        raise ModelError(f"{trt.version.label} cannot read {job.source}: {log.last_error()}")
    error = parser.get_error(0)
    raise ModelError(_explain(trt, job, error))


def _explain(trt: TensorRt, job: Job, error: Any) -> str:
    """A parser's error as a sentence. Its wording is NVIDIA's; only two forms are known."""
    told = str(error.desc()).replace("Assertion failed: ", "").strip()
    operator = str(error.node_operator()) if hasattr(error, "node_operator") else ""
    name = str(error.node_name()) if hasattr(error, "node_name") else ""
    where = f"node {name}" if name else f"node number {error.node()}"
    start = f"{trt.version.label} cannot build {job.source}: "
    if "zero point" in told.lower():
        return f"{start}{where} is quantised asymmetrically, with a zero point that is not 0"
    unknown = "plugin not found" in told.lower() or "UNSUPPORTED" in str(error.code())
    if unknown:
        shown = f"the operator {operator}" if operator else "an operator"
        return f"{start}it does not know {shown} ({where}){job.opset_note}"
    shown = f" ({operator})" if operator else ""
    return f"{start}{where}{shown}: {told}{job.opset_note}"


def _configure(
    trt: TensorRt, builder: Any, network: Any, config: Any, job: Job, emit: Emit
) -> Sequence[Any]:
    """Set everything but the layers' own precisions. Returns what must live until the end."""
    module = trt.module
    helpers: List[Any] = []
    if trt.features.memory_pools:
        config.set_memory_pool_limit(module.MemoryPoolType.WORKSPACE, job.workspace)
    else:
        config.max_workspace_size = job.workspace
    config.profiling_verbosity = module.ProfilingVerbosity.DETAILED
    if trt.features.progress_monitor:
        helpers.append(make_monitor(module, emit))
        config.progress_monitor = helpers[-1]
    if job.dynamic:
        _add_profile(builder, network, config, job)
    if not job.strongly_typed:
        helpers.extend(_set_flags(module, config, job, emit))
    if job.dla:
        _use_dla(module, builder, config)
    helpers.extend(_use_timings(config, job.timing_cache))
    return helpers


def _add_profile(builder: Any, network: Any, config: Any, job: Job) -> None:
    profile = builder.create_optimization_profile()
    name = network.get_input(0).name
    profile.set_shape(name, job.profile.min, job.profile.opt, job.profile.max)
    config.add_optimization_profile(profile)
    if job.calibration is not None:
        config.set_calibration_profile(profile)


def _set_flags(module: Any, config: Any, job: Job, emit: Emit) -> Sequence[Any]:
    """Allow the lower precisions; with INT8 the layers that are not quantised run in FP16."""
    if job.precision == "fp32":
        return ()
    config.set_flag(module.BuilderFlag.FP16)
    if job.precision == "fp16":
        return ()
    config.set_flag(module.BuilderFlag.INT8)
    if job.calibration is None:
        return ()
    feed = feed_for(job.calibration, job.profile.opt, emit)
    calibrator = make_calibrator(module, job.calibration.algorithm, feed)
    config.int8_calibrator = calibrator
    return (calibrator,)


def _use_dla(module: Any, builder: Any, config: Any) -> None:
    if builder.num_DLA_cores == 0:
        raise ConfigError("this device has no DLA: build without --dla")
    config.default_device_type = module.DeviceType.DLA
    config.DLA_core = 0
    config.set_flag(module.BuilderFlag.GPU_FALLBACK)


def _use_timings(config: Any, path: Optional[Path]) -> Sequence[Any]:
    if path is None:
        return ()
    known = path.read_bytes() if path.is_file() else b""
    cache = config.create_timing_cache(known)
    config.set_timing_cache(cache, False)
    return (cache,)


def _keep_timings(config: Any, job: Job) -> None:
    if job.timing_cache is not None:
        keep_file(job.timing_cache, bytes(config.get_timing_cache().serialize()))


def _pin_layers(module: Any, network: Any, job: Job) -> None:
    """Keep layers in FP16 or FP32, as the recipe says; TensorRT names them as the file does."""
    kinds = {**dict.fromkeys(job.fp16, module.float16), **dict.fromkeys(job.fp32, module.float32)}
    for layer in (network.get_layer(i) for i in range(network.num_layers)):
        if layer.name in kinds:
            _pin(module, layer, kinds[layer.name])


def _pin(module: Any, layer: Any, kind: Any) -> None:
    """Set a layer's precision, where it computes with floats at all."""
    floats = (module.float32, module.float16)
    outputs = [layer.get_output(i) for i in range(layer.num_outputs)]
    if not all(tensor.dtype in floats for tensor in outputs):
        return
    layer.precision = kind
    for i in range(layer.num_outputs):
        layer.set_output_type(i, kind)


def _failure(job: Job, log: Log) -> EdgecountError:
    told = log.last_error()
    if any(sign in text.lower() for text in log.errors for sign in _OUT_OF_MEMORY):
        return OutOfMemoryError(told)
    return EngineError(f"TensorRT cannot build {job.source}: {told}")


def silence_deprecations() -> None:
    """What one version deprecates is another's only way; :mod:`versions` knows which."""
    warnings.filterwarnings("ignore", category=DeprecationWarning)
