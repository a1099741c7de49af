"""Load an engine file into a TensorRT module, or say in one sentence why that does not go."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Mapping, Optional, Tuple

from edgecount.errors import EngineError
from edgecount.infer.tensorrt import flavours, journal, plan_file
from edgecount.infer.tensorrt.versions import TensorRt

# What CUDA's runtime says where there is no GPU, no driver, or too old a one.
_NO_DRIVER = ("CUDA driver version is insufficient", "no CUDA-capable device")


@dataclass(frozen=True)
class LoadedEngine:
    """An engine in memory; it is freed with its last reference.

    Attributes:
        path: The file it came from.
        label: Runtime and version, e.g. ``tensorrt 10.3``.
        api: Its inputs and outputs, and the way to its contexts.
        messages: What TensorRT said about it.
        metadata: What a foreign exporter wrote before the plan.
        precision: What the file says about itself; None where it says nothing.
        needed: What must live as long as the engine; not every version of the bindings sees
            to that.
    """

    path: Path
    label: str
    api: flavours.EngineApi
    messages: journal.Journal
    metadata: Mapping[str, str]
    precision: Optional[str]
    needed: Tuple[Any, ...]


def load(
    path: Path, trt: TensorRt, *, data: Optional[bytes] = None, share_memory: bool = True
) -> LoadedEngine:
    """Read an engine file and deserialise it.

    Args:
        path: The file, with or without Ultralytics' header.
        trt: This machine's TensorRT.
        data: The file's bytes, where they are read already.
        share_memory: Whether contexts work in memory that the executor takes, where this
            TensorRT can do so; else each has its own.

    Raises:
        ConfigError: The file cannot be read.
        ModelError: It is no engine, or one that edgecount cannot run.
        EngineError: This TensorRT or this device cannot run it; it must be built here.
    """
    file = plan_file.read(path) if data is None else plan_file.split(path, data)
    messages = journal.Journal()
    logger = journal.logger(trt.module, messages)
    if trt.features.plugins:
        trt.module.init_libnvinfer_plugins(logger, "")
    engine, needed = _deserialise(trt, logger, messages, file)
    return LoadedEngine(
        path,
        short_label(trt),
        flavours.open_api(trt.module, engine, share_memory),
        messages,
        file.metadata,
        file.declared_precision,
        needed,
    )


def short_label(trt: TensorRt) -> str:
    """Product and version as far as it is worth showing, e.g. ``tensorrt 10.3``."""
    product = trt.version.product.replace("_", "-")
    return f"{product} {'.'.join(str(n) for n in trt.version.numbers[:2])}"


def _deserialise(
    trt: TensorRt, logger: Any, messages: journal.Journal, file: plan_file.PlanFile
) -> Tuple[Any, Tuple[Any, ...]]:
    runtime = trt.module.Runtime(logger)
    recorder = journal.recorder(trt.module, messages)
    runtime.error_recorder = recorder
    try:
        engine = runtime.deserialize_cuda_engine(file.plan)
    except RuntimeError as error:  # some versions raise where others return None
        messages.add(0, str(error))
        engine = None
    if engine is None:
        raise EngineError(_refusal(trt, file.path, messages))
    engine.error_recorder = recorder
    return engine, (runtime, recorder, logger)


def _refusal(trt: TensorRt, path: Path, messages: journal.Journal) -> str:
    label = trt.version.label
    start = f"{label} cannot load the engine {path}: "
    # Of several errors the first is the cause.
    first = next((text for _, text in messages.entries()), "")
    told = messages.take()
    if any(sign in first for sign in _NO_DRIVER):
        return f"{start}there is no NVIDIA GPU here, or its driver is too old for {label}"
    return (
        f"{start}{told}. An engine runs on the TensorRT version and kind of GPU that it was built "
        "with only: build it here with 'edgecount build'"
    )
