"""An engine as the network of a detector that prepares and decodes on the CPU.

For evaluation, comparison and measurement of engines, and for engines that came without
their ONNX file.
"""

import threading
from pathlib import Path
from typing import Callable, Dict, List, Optional, Tuple

import numpy as np

from edgecount import discovery
from edgecount.config import ModelSettings
from edgecount.infer import detector as detectors
from edgecount.infer import recipe as recipes
from edgecount.infer.cuda.driver import Device
from edgecount.infer.cuda.network import DeviceNetwork, bytes_of
from edgecount.infer.detector import Network, OnnxDetector
from edgecount.infer.heads.base import HeadSpec
from edgecount.infer.recipe import Recipe
from edgecount.infer.tensorrt import loader, versions
from edgecount.infer.tensorrt.efficient_nms import Converter, RowsKernel
from edgecount.infer.tensorrt.executor import TensorRTNetwork, only_input
from edgecount.infer.tensorrt.loader import LoadedEngine
from edgecount.infer.tensorrt.versions import TensorRt
from edgecount.records import Float32Array, StageTimer


class HostNetwork:
    """Runs a network on the device with pictures and outputs of the host.

    See :class:`~edgecount.infer.detector.Network`. Several threads take turns.

    Attributes:
        precision: ``fp32``, ``fp16`` or ``int8``.
    """

    def __init__(
        self,
        device: Device,
        network: DeviceNetwork,
        size: Tuple[int, int],
        declared: Optional[Tuple[object, ...]] = None,
    ) -> None:
        """Take the buffers for one picture.

        Args:
            device: The device.
            network: What runs on it; owned from now on.
            size: Width and height of the input, pixels.
            declared: The engine's own input shape, where it leaves axes open.
        """
        self.precision = network.precision
        self._device = device
        self._network = network
        self._lock = threading.Lock()
        self._stream = device.stream()
        shape, made = (1, 3, size[1], size[0]), network.output_shape(1)
        self.input_shape: Tuple[object, ...] = declared or shape
        self.output_shape: Tuple[object, ...] = made
        self._given = device.pinned(bytes_of(shape, network.input_dtype))
        self._made = device.pinned(bytes_of(made, network.output_dtype))
        self._input = device.allocate(self._given.size)
        self._output = device.allocate(self._made.size)
        self._picture = self._given.array.view(network.input_dtype).reshape(shape)
        self._answer = self._made.array.view(network.output_dtype).reshape(made)

    def run(self, batch: Float32Array) -> Float32Array:
        """(B, 3, H, W) float32 → the output, one picture after the other. Raises EngineError."""
        with self._lock:
            self._device.use()
            return np.concatenate([self._run(picture) for picture in batch])

    def close(self) -> None:
        """Free network and buffers. May be called twice."""
        with self._lock:
            self._network.close()
            for buffer in (self._given, self._made, self._input, self._output):
                buffer.close()

    def _run(self, picture: Float32Array) -> Float32Array:
        self._picture[0] = picture
        stream = self._stream
        stream.upload(self._input.pointer, self._given.pointer, self._given.size)
        self._network.enqueue(stream, 1, self._input.pointer, self._output.pointer, None)
        stream.download(self._made.pointer, self._output.pointer, self._made.size)
        stream.synchronize()
        return self._answer.astype(np.float32)


class OnDemandNetwork:
    """An engine that was looked at and closed again; it is opened anew when it has to run.

    The TensorRT backend opens the same file for itself, and a device has no memory for both.
    See :class:`~edgecount.infer.detector.Network`.
    """

    def __init__(self, looked_at: HostNetwork, reopen: Callable[[], HostNetwork]) -> None:
        """Take what is to be known of ``looked_at``, and close it."""
        self.precision = looked_at.precision
        self.input_shape = looked_at.input_shape
        self.output_shape = looked_at.output_shape
        self._reopen = reopen
        self._network: Optional[HostNetwork] = None
        self._lock = threading.Lock()
        looked_at.close()

    def run(self, batch: Float32Array) -> Float32Array:
        """As :meth:`HostNetwork.run`."""
        with self._lock:
            network = self._network = self._network or self._reopen()
        return network.run(batch)


def open_network(
    path: Path,
    *,
    asked: Optional[Tuple[int, int]] = None,
    device: Optional[Device] = None,
    trt: Optional[TensorRt] = None,
    convert: Callable[[Device, int], Converter] = RowsKernel,
) -> Tuple[HostNetwork, Dict[str, str]]:
    """Open an engine file for :func:`edgecount.infer.detector.create`.

    Args:
        path: The engine; a recipe beside it counts, else what its header says.
        asked: Width and height to run at, where the engine leaves a choice.
        device: Where it runs; the first one where None.
        trt: What runs it; this machine's where None.
        convert: See :class:`~.executor.TensorRTNetwork`.

    Returns:
        The network, and the metadata of the engine's header.

    Raises:
        ConfigError: The file cannot be read.
        ModelError: It is no engine that edgecount can run.
        EngineError: It cannot run here.
    """
    loaded = loader.load(path, trt or versions.find())
    recipe = recipes.find(None, path)[1] or recipes.embedded(path, loaded.metadata)
    spec = only_input(loaded)
    size = asked or usual_size(loaded, recipe)
    expected = expected_output(recipe, size) if recipe is not None else None
    device = device or Device.open()
    network = TensorRTNetwork(device, loaded, size, expected=expected, convert=convert)
    declared = tuple(axis if axis > 0 else None for axis in spec.shape)
    return HostNetwork(device, network, size, declared), dict(loaded.metadata)


def create_detector(
    settings: ModelSettings,
    timer: Optional[StageTimer] = None,
    open_engine: Callable[..., Tuple[HostNetwork, Dict[str, str]]] = open_network,
) -> Tuple[OnnxDetector, Recipe, str]:
    """The detector of an engine file, its recipe, and its precision.

    The engine is closed again; the detector opens it when it runs.

    Raises:
        As :func:`open_network` and :func:`edgecount.infer.detector.create`.
    """
    precisions: List[str] = []

    def opening(path: Path) -> Tuple[Network, Dict[str, str]]:
        network, metadata = open_engine(path, asked=settings.input_size)
        precisions.append(network.precision)

        def reopen() -> HostNetwork:
            return open_engine(path, asked=settings.input_size)[0]

        return OnDemandNetwork(network, reopen), metadata

    detector, recipe = detectors.create(settings, opening, timer)
    return detector, recipe, precisions[0]


def usual_size(loaded: LoadedEngine, recipe: Optional[Recipe] = None) -> Tuple[int, int]:
    """Width and height: fixed ones, else the recipe's, else what the engine was tuned for."""
    spec = only_input(loaded)
    allowed = loaded.api.range_of(spec.name)
    height, width = (spec.shape if allowed is None else allowed.best)[2:]
    if recipe is None or -1 not in spec.shape[2:]:
        return width, height
    return recipe.input.width, recipe.input.height


def expected_output(recipe: Recipe, size: Tuple[int, int]) -> Tuple[int, ...]:
    """Shape of one picture's output as the recipe's head decodes it; -1 fits any."""
    module = discovery.load(recipes.HEADS_PACKAGE, recipe.head, f"head of model {recipe.name}")
    spec = HeadSpec(len(recipe.classes), recipe.wanted(), tuple(recipe.strides))
    shape: Tuple[int, ...] = module.create(spec).expected_shape(*size)
    return shape
