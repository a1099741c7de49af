"""The CUDA backend: frames of several cameras in one batch, tracks out.

Detections stay on the device; where the tracker does too, only tracks cross the bus, unless
the spec asks for detections. A camera whose tracker has no CUDA kernel is tracked on the host,
from the same detections.
"""

import threading
from dataclasses import dataclass
from typing import Callable, Dict, FrozenSet, List, Optional, Sequence, Tuple

import structlog
from pydantic import BaseModel

from edgecount import discovery
from edgecount.errors import DeviceLostError
from edgecount.infer.base import BackendSpec, CameraSpec, frames_at_once, pictures_at_once
from edgecount.infer.cuda import compiler, pictures
from edgecount.infer.cuda.driver import Device, Stream
from edgecount.infer.cuda.memory import DEFAULT_SHARE, MemoryBudget
from edgecount.infer.cuda.network import DeviceNetwork
from edgecount.infer.cuda.ort_network import OrtCudaNetwork
from edgecount.infer.cuda.pictures import Found, Picture
from edgecount.infer.cuda.pipeline import PARTS, SLOTS, Finished, Pipeline, Streams
from edgecount.infer.cuda.postprocess import Load, Postprocess
from edgecount.infer.cuda.preprocess import Preprocess
from edgecount.infer.cuda.slot import DeviceSlot, Parts
from edgecount.infer.cuda.tracker import GpuTracker
from edgecount.infer.detector import thresholds
from edgecount.records import Detections, Frame, FrameInfo, Tracked, Tracks
from edgecount.track import two_stage
from edgecount.track.base import Tracker

_TRACKERS = "edgecount.track"
_MOST_BATCH = 8
_MIB = 1 << 20

_log = structlog.get_logger(__name__)

# Makes the network for a stream, within so many bytes.
MakeNetwork = Callable[[Device, Stream, int], DeviceNetwork]


@dataclass(frozen=True)
class CudaOptions:
    """How the backend uses the device.

    Attributes:
        device: Number of the device.
        memory_share: Part of the device's memory that may be used, in all.
        max_batch: Pictures of a batch at most; a frame in more tiles is one all the same.
        slots: Batches in flight.
        graphs: Parts that are recorded into CUDA graphs where that is possible.
        device_tracker: Whether the tracker runs on the device where it can.
        spin: Whether a core is kept busy to see results sooner.
        sizes: Batch sizes that the network is run with, rising; powers of two where empty.
    """

    device: int = 0
    memory_share: float = DEFAULT_SHARE
    max_batch: int = _MOST_BATCH
    slots: int = SLOTS
    graphs: FrozenSet[str] = PARTS
    device_tracker: bool = True
    spin: bool = False
    sizes: Tuple[int, ...] = ()


def create(spec: BackendSpec) -> "CudaBackend":
    """A backend with ONNX Runtime's CUDA provider.

    Raises:
        EngineError: There is no usable device, or not enough memory on it.
        ModelError: The device cannot run such a model.
        MissingExtraError: FP16 needs the package onnx.
    """
    precision = "fp16" if spec.settings.precision == "fp16" else "fp32"
    number = CudaOptions.device

    def network(_device: Device, stream: Stream, memory_bytes: int) -> DeviceNetwork:
        return OrtCudaNetwork(
            spec.path,
            stream=stream,
            size=spec.size,
            precision=precision,
            memory_bytes=memory_bytes,
            device=number,
            channels_last=precision == "fp16",  # what tensor cores read
        )

    return CudaBackend(spec, network)


class CudaBackend:
    """Network, NMS and trackers on a CUDA device; see :class:`~..base.Backend`."""

    def __init__(
        self,
        spec: BackendSpec,
        make_network: MakeNetwork,
        options: CudaOptions = CudaOptions(),
        *,
        open_device: Callable[[int], Device] = Device.open,
        load: Load = compiler.load,
        elsewhere: int = 0,
    ) -> None:
        """Take all memory, load everything, run every batch size once.

        Args:
            spec: What is to be run.
            make_network: Makes the network for a stream.
            options: How the device is used.
            open_device: Opens a device by its number.
            load: Makes kernels.
            elsewhere: Bytes of the budget that another backend of this process holds.

        Raises:
            EngineError: There is no usable device, or not enough memory on it.
            ModelError: The device cannot run such a model.
        """
        self._spec = spec
        self._timer = spec.timer
        self._cameras = {camera.name: i for i, camera in enumerate(spec.cameras)}
        self._clocks = _Clocks()
        self._lock = threading.Lock()
        self._nothing = Detections.empty()
        self._tracker: Optional[GpuTracker] = None
        self._trackers: Dict[str, Tracker] = {}
        self._lost = False
        self._closed = False
        self._network: Optional[DeviceNetwork] = None
        self._pipeline: Optional[Pipeline] = None
        self.watch: Callable[[Finished], None] = lambda _finished: None
        self._device = open_device(options.device)
        self._budget = MemoryBudget(
            self._device.properties.memory_bytes, options.memory_share, elsewhere
        )
        try:
            self._build(make_network, options, load)
        except BaseException:
            self.close()
            raise
        self.name = self.network.name
        self.precision = self.network.precision
        self.depth = self.pipeline.depth

    def submit(self, batch: Sequence[Frame]) -> None:
        """As :meth:`Backend.submit`."""
        self.submit_pictures([self._picture(frame) for frame in batch])

    def submit_pictures(self, batch: Sequence[Picture]) -> None:
        """As :meth:`submit`, for pictures whose place in memory is known."""
        try:
            self.pipeline.submit(batch)
        except DeviceLostError:
            self._lost = True
            raise

    def collect(self, timeout: float) -> Optional[List[Tracked]]:
        """As :meth:`Backend.collect`."""
        try:
            finished = self.pipeline.collect(timeout)
        except DeviceLostError:
            self._lost = True
            raise
        if finished is None:
            return None
        self._tell(finished)
        return [self._tracked(p, found) for p, found in zip(finished.job, finished.results)]

    def reset(self, camera: str) -> None:
        """As :meth:`Backend.reset`."""
        self._clocks.forget(camera)
        if self._tracker is not None:
            self._device.use()
            self._tracker.reset(self.streams.post, self._cameras[camera])
        else:
            with self._lock:
                self._trackers[camera].reset()

    def close(self) -> None:
        """Free the device; after a loss destroy its context, so that a new one is clean."""
        if self._closed:
            return
        self._closed = True
        self._device.use()
        if self._pipeline is not None:
            self._pipeline.close()
        if self._network is not None:
            self._network.close()
        if self._lost:
            self._device.destroy()
        else:
            self._device.close()

    @property
    def device(self) -> Device:
        """The device."""
        return self._device

    def memory(self) -> Dict[str, int]:
        """Bytes of device memory by what they are for; nothing once it is closed."""
        return {} if self._closed else self._budget.held()

    def picture(self, frame: Frame) -> Picture:
        """A frame as the pipeline takes it; advances its camera's clock."""
        return self._picture(frame)

    def _build(self, make_network: MakeNetwork, options: CudaOptions, load: Load) -> None:
        spec, device = self._spec, self._device
        budget = self._budget
        device.limit_memory(budget)
        free = device.free_bytes()
        self.streams = streams = Streams(device)
        with budget.labelled("network"):
            self._network = self.network = make_network(device, streams.infer, budget.left)
        most = pictures_at_once(spec.cameras, options.max_batch)
        most = min(most, getattr(self.network, "max_batch", None) or most)
        self.sizes = options.sizes or _sizes(most)
        self._most = self.sizes[-1]
        self.max_batch = frames_at_once(spec.cameras, self._most)
        parts = self._parts(options, load)
        batches = range(1, self._most + 1)
        self._pipeline = self.pipeline = Pipeline(
            device,
            streams,
            lambda _number: DeviceSlot(parts),
            batches=batches,
            slots=options.slots,
            spin=options.spin,
            graphs=_recordable(self.network, options.graphs, options.slots * len(self.sizes)),
        )
        _account(budget, free - device.free_bytes())
        budget.seal()
        self._say(device)

    def _parts(self, options: CudaOptions, load: Load) -> Parts:
        spec, device, network = self._spec, self._device, self.network
        tiles = [camera.tiles for camera in spec.cameras]
        cut = any(how is not None for how in tiles)
        with self._budget.labelled("kernels"):
            preprocess = Preprocess(
                device, spec.recipe.input, size=spec.size, dtype=network.input_dtype, load=load
            )
            postprocess = Postprocess(
                device,
                self.streams.post,
                spec.recipe,
                size=spec.size,
                output_shape=network.output_shape(1)[1:],
                output_dtype=network.output_dtype,
                thresholds=thresholds(spec.recipe, spec.settings),
                ignore=[camera.ignore for camera in spec.cameras],
                max_batch=self._most,
                tiles=cut,
                load=load,
            )
        if options.device_tracker:
            with self._budget.labelled("tracker"):
                self._tracker = self._device_tracker(load)
        if self._tracker is None:
            self._trackers = {camera.name: _host_tracker(camera) for camera in spec.cameras}
        return Parts(
            device,
            self._budget,
            network,
            self.sizes,
            preprocess,
            postprocess,
            self._tracker,
            spec.size,
            spec.detections,
            tiles if cut else (),
        )

    def _device_tracker(self, load: Load) -> Optional[GpuTracker]:
        """A tracker on the device, where every camera's is one that it knows."""
        options = [camera.tracker_options for camera in self._spec.cameras]
        known = [o for o in options if isinstance(o, two_stage.Options)]
        if len(known) < len(options):
            return None
        return GpuTracker(self._device, self.streams.post, known, max_batch=self._most, load=load)

    def _picture(self, frame: Frame) -> Picture:
        info = frame.info
        dt = self._clocks.step(info)
        return pictures.of_frame(
            frame, self._cameras[info.camera], dt, self._device.properties.number
        )

    def _tracked(self, picture: Picture, found: Found) -> Tracked:
        tracks = found.tracks
        detections = found.detections
        if tracks is None:
            assert detections is not None, "one of both is always there"
            tracks = self._track(picture, detections)
        return Tracked(picture.info, tracks, self._nothing if detections is None else detections)

    def _track(self, picture: Picture, detections: Detections) -> Tracks:
        with self._lock:
            return self._trackers[picture.info.camera].update(detections, picture.dt)

    def _tell(self, finished: Finished) -> None:
        self._timer("preprocess", finished.durations.prepare)
        self._timer("infer", finished.durations.infer)
        self._timer("post", finished.durations.post)
        self.watch(finished)

    def _say(self, device: Device) -> None:
        properties = device.properties
        _log.info(
            "cuda_ready",
            gpu=properties.name,
            arch=properties.arch,
            batch=self._most,
            graphs=sorted(self.pipeline.graphs),
            memory_mib={k: round(v / _MIB, 1) for k, v in self._budget.held().items()},
            limit_mib=round(self._budget.limit / _MIB, 1),
        )


class _Clocks:
    """The stream time of each camera's last frame."""

    def __init__(self) -> None:
        self._last: Dict[str, float] = {}

    def step(self, info: FrameInfo) -> float:
        """Seconds since the camera's last frame, never negative; 0 for the first."""
        last = self._last.get(info.camera, info.time)
        self._last[info.camera] = info.time
        return max(info.time - last, 0.0)

    def forget(self, camera: str) -> None:
        """The camera's next frame is its first."""
        self._last.pop(camera, None)


def _host_tracker(camera: CameraSpec) -> Tracker:
    module = discovery.load(_TRACKERS, camera.tracker_kind, "tracker")
    options: BaseModel = camera.tracker_options
    tracker: Tracker = module.create(options)
    return tracker


def _sizes(most: int) -> Tuple[int, ...]:
    """Batch sizes that the network is run with: powers of two, and the largest."""
    powers = [1 << n for n in range(most.bit_length()) if 1 << n < most]
    return (*powers, most)


def _recordable(
    network: DeviceNetwork, graphs: FrozenSet[str], combinations: int
) -> FrozenSet[str]:
    """The parts to record; a network may have fewer contexts than that takes."""
    recordable = getattr(network, "recordable", None)
    if recordable is not None and not recordable(combinations):
        return graphs - {"infer"}
    return graphs


def _account(budget: MemoryBudget, taken: int) -> None:
    """Count as the network's what the device lost and nobody reserved."""
    with budget.labelled("network"):
        budget.reserve(max(0, taken - budget.used))
