"""The CUDA backend with a TensorRT engine as its network.

The engine comes from the cache, or is built in the background while something else counts
(see :mod:`.keeper`), or is a file of the user's own.
"""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Callable, List, Optional, Sequence, Tuple

import onnxruntime

from edgecount.errors import EngineError, ModelError
from edgecount.infer.base import Backend, BackendSpec, frames_at_once, pictures_at_once
from edgecount.infer.cuda.backend import CudaBackend
from edgecount.infer.cuda.driver import Device, Stream
from edgecount.infer.cuda.network import DeviceNetwork
from edgecount.infer.tensorrt import device as devices
from edgecount.infer.tensorrt import loader, plan_file, profile, versions
from edgecount.infer.tensorrt.cache import EngineCache, Entry, Lookup, cache_folder
from edgecount.infer.tensorrt.child import ChildBuild, build_command
from edgecount.infer.tensorrt.choice import wanted_key
from edgecount.infer.tensorrt.device import DeviceFacts
from edgecount.infer.tensorrt.executor import TensorRTNetwork
from edgecount.infer.tensorrt.host import expected_output
from edgecount.infer.tensorrt.keeper import Build, EngineKeeper, Parts, attend
from edgecount.infer.tensorrt.manifest import BuildKey
from edgecount.infer.tensorrt.versions import TensorRt

# Pictures that share a run at most; more wait a turn.
_MOST_BATCH = 8

MakeBackend = Callable[..., Backend]


@dataclass(frozen=True)
class Surroundings:
    """What the backend finds on this machine; tests bring their own.

    Attributes:
        trt: Finds TensorRT. Raises EngineError where there is none.
        facts: Looks at the GPU.
        cache: Where engines lie.
        build: Starts a build by its command.
        backend: Makes the pipeline from a spec and a maker of its network.
    """

    trt: Callable[[], TensorRt] = versions.find
    facts: Callable[[], DeviceFacts] = devices.look
    cache: Callable[[], EngineCache] = lambda: EngineCache(cache_folder(os.environ))
    build: Callable[[Sequence[str]], Build] = ChildBuild
    backend: MakeBackend = CudaBackend


def create(spec: BackendSpec, around: Surroundings = Surroundings()) -> Backend:
    """The backend; where its engine is not built yet, a stand-by that becomes it.

    Raises:
        EngineError: There is no TensorRT or no GPU for it, or no engine can be had.
        ModelError: The engine is none for this model.
    """
    trt, facts = around.trt(), around.facts()
    if facts.capability is None:
        raise EngineError(f"{trt.version.label} is here, but no GPU with a driver")
    refused = versions.refusal(trt.version, facts.capability, facts.jetson)
    if refused:
        raise EngineError(refused)
    if spec.path.suffix in plan_file.SUFFIXES:
        return _open(spec, around, trt, spec.path)
    return _kept(spec, around, trt, facts)


def key_of(
    spec: BackendSpec, trt: TensorRt, facts: DeviceFacts, cache: Optional[EngineCache] = None
) -> BuildKey:
    """The key of the engine that the service wants.

    Batches of as many pictures as all cameras' frames are, where the file leaves that open. With
    precision ``auto``, INT8 unless the cache knows that FP16 was measured to be faster.

    Raises:
        EngineError: The ONNX file cannot be read, or its batches are too small for a frame
            in tiles.
        ConfigError: It does not run at this size.
    """
    width, height = spec.size
    declared = _declared(spec.path)
    open_batch = not isinstance(declared[0], int)
    most = pictures_at_once(spec.cameras, _MOST_BATCH) if open_batch else 1
    frames_at_once(spec.cameras, most)  # refused before four minutes are spent on an engine
    least: profile.Shape = (1, 3, height, width)
    usual: profile.Shape = (most, 3, height, width)
    shapes = profile.choose(declared, spec.recipe, (least, usual, usual))
    return wanted_key(
        spec.path,
        spec.recipe,
        trt.version,
        facts,
        asked=spec.settings.precision,
        profile=shapes,
        cache=cache,
    )


def _kept(spec: BackendSpec, around: Surroundings, trt: TensorRt, facts: DeviceFacts) -> Backend:
    cache = around.cache()

    def wanted() -> BuildKey:
        return key_of(spec, trt, facts, cache)  # a build may find that another is faster

    def lookup() -> Lookup:
        return cache.lookup(wanted())

    def build() -> Build:
        command = build_command(str(spec.path), wanted(), spec.settings.precision)
        return around.build(command)

    opened: List[Backend] = []

    def open_entry(entry: Entry) -> Backend:
        # While one takes over from another both hold memory, and one budget is for both.
        elsewhere = sum(_held_by(backend) for backend in opened)
        precision = entry.manifest.key.precision
        backend = _open(spec, around, trt, entry.engine, entry.read(), precision, elsewhere)
        opened[:] = [*(b for b in opened if _held_by(b)), backend]
        return backend

    keeper = EngineKeeper(Parts(lookup, build, open_entry, spec.standby, spec.starting))
    backend = keeper.start()
    if keeper.state == "building":
        attend(keeper)
    return backend


def _open(
    spec: BackendSpec,
    around: Surroundings,
    trt: TensorRt,
    path: Path,
    data: Optional[bytes] = None,
    precision: Optional[str] = None,
    elsewhere: int = 0,
) -> Backend:
    expected = expected_output(spec.recipe, spec.size)

    def make_network(device: Device, _stream: Stream, _memory_bytes: int) -> DeviceNetwork:
        # The pipeline records the network's work into graphs of its own.
        loaded = loader.load(path, trt, data=data)
        return TensorRTNetwork(
            device, loaded, spec.size, expected=expected, precision=precision, graphs=False
        )

    return around.backend(spec, make_network, elsewhere=elsewhere)


def _held_by(backend: Backend) -> int:
    """Bytes of device memory that a backend holds; none when it is closed."""
    return sum(backend.memory().values()) if isinstance(backend, CudaBackend) else 0


def _declared(path: Path) -> Tuple[object, ...]:
    """The input's shape as the ONNX file has it; an open axis is no int."""
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    options.log_severity_level = 4
    try:
        session: Any = onnxruntime.InferenceSession(
            str(path), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # its exceptions share no base class but Exception
        raise ModelError(f"cannot read {path}: {error}") from error
    shape: List[object] = session.get_inputs()[0].shape
    return tuple(shape)
