"""What happens to a batch in one slot: copy in, letterbox, network, NMS, tracker, copy out."""

import ctypes
from dataclasses import dataclass
from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np
import structlog
from numpy.typing import NDArray

from edgecount.config import TileSettings
from edgecount.infer.cuda.driver import Device, DeviceBuffer, PinnedBuffer, Stream
from edgecount.infer.cuda.memory import MemoryBudget
from edgecount.infer.cuda.network import DeviceNetwork, bytes_of
from edgecount.infer.cuda.pictures import Found, Picture
from edgecount.infer.cuda.postprocess import (
    PART,
    PICTURE,
    DetectionBuffers,
    Postprocess,
    describe_part,
    no_picture,
)
from edgecount.infer.cuda.preprocess import SOURCE, Preprocess
from edgecount.infer.cuda.tracker import STEP, GpuTracker, TrackResults
from edgecount.infer.letterbox import Letterbox
from edgecount.infer.tiles import Tile, cut
from edgecount.records import Detections, Float32Array, FrameInfo, UInt8Array

# Pictures up to this size find room without asking again: 1080p in BGR.
_USUAL_PICTURE = 1920 * 1080 * 3
_ALIGNMENT = 256
_HD_ROWS = 720
_MOST_SHAPES = 256
_NO_CAMERA = -1
_NOISE = 160  # side of the picture of the rehearsal

_log = structlog.get_logger(__name__)


@dataclass(frozen=True)
class Parts:
    """What all slots share.

    Attributes:
        device: The device.
        budget: Its memory.
        network: The network.
        sizes: Batch sizes that it is run with, rising; the last is the largest.
        preprocess: Makes its input.
        postprocess: Reads its output.
        tracker: Follows the detections on the device; None where the host does.
        size: Width and height of the input, pixels.
        detections: Whether detections are brought to the host although the device tracks.
        tiles: How each camera's frames are cut; empty where no camera's are.
    """

    device: Device
    budget: MemoryBudget
    network: DeviceNetwork
    sizes: Sequence[int]
    preprocess: Preprocess
    postprocess: Postprocess
    tracker: Optional[GpuTracker]
    size: Tuple[int, int]
    detections: bool = False
    tiles: Sequence[Optional[TileSettings]] = ()


class DeviceSlot:
    """Buffers of one slot, and the work on them; see :class:`~.pipeline.SlotWork`."""

    def __init__(self, parts: Parts) -> None:
        """Take the memory. Raises EngineError where there is not enough."""
        device, network, most = parts.device, parts.network, parts.sizes[-1]
        width, height = parts.size
        self._parts = parts
        with parts.budget.labelled("slots"):
            self._notes = _Notes(device, most)
            self._input = device.allocate(bytes_of((most, 3, height, width), network.input_dtype))
            self._output = device.allocate(
                bytes_of(network.output_shape(most), network.output_dtype)
            )
            self._found = device.allocate(DetectionBuffers.bytes_for(most, self._most))
            self._results = _Results(parts, self._most)
            self._frames = _Frames(device, most * (_USUAL_PICTURE + _ALIGNMENT))
        self._shapes: Dict[Tuple[object, ...], _Shape] = {}

    @property
    def _most(self) -> int:
        return self._parts.postprocess.options.max_detections

    def upload(self, stream: Stream, job: Sequence[Picture]) -> None:
        """Copy the pictures that are on the host, and what the kernels must know of all."""
        shapes = [self._shape_of(picture) for picture in job]
        hosted = [s.room for s, p in zip(shapes, job) if p.place != "device"]
        if sum(hosted) > self._frames.size:
            self._grow(sum(hosted))
        self._frames.start()
        first = 0
        for index, (picture, shape) in enumerate(zip(job, shapes)):
            pointer = self._frames.place(stream, picture, shape)
            self._notes.write(index, first, shape, pointer, picture.chroma)
            self._step(index, picture.camera, picture.dt)
            first += len(shape.offsets)
        for index in range(len(job), first):
            self._notes.leave_out(index)
            self._step(index, _NO_CAMERA, 0.0)
        self._notes.upload(stream, first)

    def pictures(self, job: Sequence[Picture]) -> int:
        """Each tile of a frame is a picture for the network."""
        if not self._parts.tiles:
            return len(job)
        return sum([len(self._shape_of(picture).offsets) for picture in job])

    def prepare(self, stream: Stream, batch: int) -> None:
        """Letterbox and normalise."""
        self._parts.preprocess.launch(stream, batch, self._notes.sources, self._input.pointer)

    def padded(self, batch: int) -> int:
        """The next batch size that the network knows."""
        return next(n for n in self._parts.sizes if n >= batch)

    def infer(self, stream: Stream, batch: int) -> None:
        """Run the network."""
        size = self.padded(batch)
        self._parts.network.enqueue(stream, size, self._input.pointer, self._output.pointer, None)

    def post(self, stream: Stream, batch: int) -> None:
        """Decode, suppress, track; bring the results to the host."""
        parts, notes = self._parts, self._notes
        found = DetectionBuffers.at(self._found.pointer, batch, self._most)
        parts.postprocess.launch(
            stream, batch, self._output.pointer, notes.pictures, found, notes.parts
        )
        if parts.tracker is not None:
            tracks = self._results.tracks_pointer
            parts.tracker.launch(stream, found, notes.steps, batch, tracks)
        self._results.download(stream, batch, self._found.pointer)

    def results(self, job: Sequence[Picture]) -> List[Found]:
        """What was found in each picture."""
        return self._results.read(len(job), self.pictures(job))

    def output(self, stream: Stream, batch: int) -> Float32Array:
        """The network's output of the first ``batch`` pictures; waits for the copy."""
        network = self._parts.network
        values: NDArray[Any] = np.empty(network.output_shape(batch), network.output_dtype)
        stream.download(values.ctypes.data, self._output.pointer, values.nbytes)
        stream.synchronize()
        return values.astype(np.float32)

    def rehearse(self, batch: int) -> Sequence[Picture]:
        """Noise that no camera sent."""
        noise = np.random.default_rng(batch).integers(0, 256, (_NOISE, _NOISE, 3), np.uint8)
        info = FrameInfo("", 0, 0.0, 0.0, _NOISE, _NOISE)
        picture = Picture(
            info,
            _NO_CAMERA,
            0.0,
            "bgr",
            3 * _NOISE,
            "pageable",
            noise.ctypes.data,
            array=noise,
        )
        return [picture] * batch

    def _step(self, index: int, camera: int, dt: float) -> None:
        if self._parts.tracker is not None:
            self._parts.tracker.step(self._notes.step, index, camera, dt)

    def _shape_of(self, picture: Picture) -> "_Shape":
        """The records of such pictures of this camera, made once."""
        info = picture.info
        key = (picture.camera, info.width, info.height, picture.layout, picture.pitch)
        shape = self._shapes.get(key)
        if shape is None:
            if len(self._shapes) >= _MOST_SHAPES:
                self._shapes.clear()
            shape = self._shapes[key] = _Shape.of(picture, self._parts)
        return shape

    def _grow(self, room: int) -> None:
        """Larger buffers for the pictures; nothing of this slot is under way."""
        parts = self._parts
        _log.info("picture_buffers_grown", bytes=room, before=self._frames.size)
        self._frames.close()
        with parts.budget.growing("slots"):
            self._frames = _Frames(parts.device, room)


@dataclass(frozen=True)
class _Shape:
    """Pictures of one camera, size and layout.

    Attributes:
        sources: The records for preprocessing of the frame or its tiles, but for the addresses.
        offsets: Where each of them begins: bytes behind the start of luma or BGR, and of chroma.
        parts: What each of them is, but for where in the batch.
        picture: The frame's record for what follows the network.
        size: Bytes of one.
        room: The same, with what aligning may take.
        chroma: Bytes from its first row to its chroma, where that follows.
    """

    sources: Any
    offsets: Sequence[Tuple[int, int]]
    parts: Any
    picture: Any
    size: int
    room: int
    chroma: int

    @staticmethod
    def of(picture: Picture, parts: Parts) -> "_Shape":
        info, how = picture.info, _tiles_of(picture, parts)
        tiles = [None] if how is None else cut(info.width, info.height, how)
        sources, records = np.zeros(len(tiles), SOURCE), np.zeros(len(tiles), PART)
        for source, record, tile in zip(sources, records, tiles):
            width, height = (tile.width, tile.height) if tile else (info.width, info.height)
            box = Letterbox.fit(width, height, *parts.size)
            parts.preprocess.describe(
                source,
                box,
                pointer=0,
                pitch=picture.pitch,
                layout=picture.layout,
                standard="bt709" if info.height >= _HD_ROWS else "bt601",
            )
            describe_part(record, box, tile)
        records["count"] = len(tiles)
        described = np.zeros(1, PICTURE)
        if how is None:
            parts.postprocess.describe(described[0], box, picture.camera)
        else:
            parts.postprocess.describe_cut(described[0], info.width, info.height, picture.camera)
        offsets = [(0, 0) if tile is None else _offsets(picture, tile) for tile in tiles]
        size, chroma = picture.size, picture.pitch * info.height
        return _Shape(sources, offsets, records, described[0], size, size + _ALIGNMENT, chroma)


def _tiles_of(picture: Picture, parts: Parts) -> Optional[TileSettings]:
    return parts.tiles[picture.camera] if parts.tiles and picture.camera >= 0 else None


def _offsets(picture: Picture, tile: Tile) -> Tuple[int, int]:
    """Bytes from the start of luma or BGR, and from that of chroma, to a tile's first pixel."""
    if picture.layout == "bgr":
        return tile.y * picture.pitch + 3 * tile.x, 0
    return tile.y * picture.pitch + tile.x, tile.y // 2 * picture.pitch + tile.x


class _Notes:
    """What kernels must know of each picture of a batch; one copy brings it to the device."""

    def __init__(self, device: Device, most: int) -> None:
        mapped = device.properties.integrated
        dtypes = (SOURCE, PICTURE, STEP, PART)
        sizes = [_aligned(dtype.itemsize * most) for dtype in dtypes]
        starts = [int(n) for n in np.cumsum([0, *sizes[:-1]])]
        self._host = device.pinned(sum(sizes), mapped=mapped)
        self._device = None if mapped else device.allocate(sum(sizes))
        base = self._device.pointer if self._device else self._host.device_pointer
        self.sources, self.pictures, self.steps, self.parts = (base + s for s in starts)
        self.source, self.picture, self.step, self.part = (
            self._host.array[start : start + dtype.itemsize * most].view(dtype)
            for start, dtype in zip(starts, dtypes)
        )
        self._plane, self._chroma = self.source["plane"], self.source["chroma"]
        self._host.array[:] = 0
        # For each frame of the batch what was written last: its shape, and its first part.
        self._written: List[Optional[Tuple[_Shape, int]]] = [None] * most

    def write(
        self, index: int, first: int, shape: _Shape, pointer: int, chroma: Optional[int]
    ) -> None:
        """What kernels must know of a frame: often of the same kind as the last one there.

        Args:
            index: Number of the frame in the batch.
            first: Number of its first part.
            shape: Its kind.
            pointer: Device address of its first row.
            chroma: Device address of its chroma; behind its rows where None.
        """
        written = self._written[index]
        if written is None or written[0] is not shape or written[1] != first:
            self._describe(index, first, shape)
        if chroma is None:
            chroma = pointer + shape.chroma
        for at, (luma, colour) in enumerate(shape.offsets, first):
            self._plane[at] = pointer + luma
            self._chroma[at] = chroma + colour

    def leave_out(self, index: int) -> None:
        """There is no such frame in this batch, whose frames have more parts than there are."""
        no_picture(self.picture[index])
        self._written[index] = None

    def _describe(self, index: int, first: int, shape: _Shape) -> None:
        last = first + len(shape.offsets)
        self.source[first:last], self.part[first:last] = shape.sources, shape.parts
        self.part["picture"][first:last], self.part["first"][first:last] = index, first
        self.picture[index] = shape.picture
        self._written[index] = shape, first
        if last - first > 1:
            # Parts of later frames may have been where this one's are now.
            later = len(self._written) - index - 1
            self._written[index + 1 :] = [None] * later

    def upload(self, stream: Stream, batch: int) -> None:  # noqa: ARG002 - all is little
        if self._device is not None:
            stream.upload(self._device.pointer, self._host.pointer, self._host.size)


class _Frames:
    """Room for the bytes of a batch's pictures.

    On an integrated device kernels read pinned memory where it is; on others it is copied.
    """

    def __init__(self, device: Device, size: int) -> None:
        mapped = device.properties.integrated
        self.size = size
        self._staging: PinnedBuffer = device.pinned(size, mapped=mapped)
        self._device: Optional[DeviceBuffer] = None if mapped else device.allocate(size)
        self._used = 0

    def start(self) -> None:
        """The room is free again."""
        self._used = 0

    def place(self, stream: Stream, picture: Picture, shape: _Shape) -> int:
        """Bring a picture to where kernels can read it; its device address."""
        if picture.place == "device":
            return picture.pointer
        start, size = self._used, shape.size
        self._used += _aligned(size)
        source = picture.pointer
        if picture.place == "pageable":
            source = self._staging.pointer + start
            ctypes.memmove(source, picture.pointer, size)  # without the interpreter's lock
        if self._device is not None:
            target = self._device.pointer + start
            stream.upload(target, source, size)
            return target
        if picture.place == "pageable":
            return self._staging.device_pointer + start
        return picture.pointer  # pinned and mapped: one address for both sides

    def close(self) -> None:
        self._staging.close()
        if self._device is not None:
            self._device.close()


class _Results:
    """Results on the device and on the host."""

    def __init__(self, parts: Parts, most: int) -> None:
        batch = parts.sizes[-1]
        self._tracker = parts.tracker
        self._most = most
        self._wanted = parts.detections or parts.tracker is None
        self._found = parts.device.pinned(DetectionBuffers.bytes_for(batch, most))
        size = parts.tracker.result_bytes(batch) if parts.tracker else 1
        self._tracks = parts.device.allocate(size)
        self._tracked = parts.device.pinned(size)
        self._read_tracks = TrackResults(self._tracked.array).read if parts.tracker else None

    @property
    def tracks_pointer(self) -> int:
        """Device address of the tracker's results."""
        return self._tracks.pointer

    def download(self, stream: Stream, batch: int, found: int) -> None:
        """Bring to the host what is wanted there."""
        if self._tracker is not None:
            size = self._tracker.result_bytes(batch)
            stream.download(self._tracked.pointer, self._tracks.pointer, size)
        if self._wanted:
            size = DetectionBuffers.bytes_for(batch, self._most)
            stream.download(self._found.pointer, found, size)

    def read(self, frames: int, batch: int) -> List[Found]:
        """Copies of what was downloaded of the frames of a batch."""
        detections: Sequence[Optional[Detections]] = [None] * frames
        if self._wanted:
            detections = _detections(self._found.array, batch, self._most)[:frames]
        if self._read_tracks is None:
            return [Found(None, d) for d in detections]
        return [Found(t, d) for t, d in zip(self._read_tracks(frames), detections)]


def _detections(memory: UInt8Array, batch: int, most: int) -> List[Detections]:
    """Copies of the detections in memory laid out as ``DetectionBuffers.at`` does it."""
    at = DetectionBuffers.at(0, batch, most)
    boxes = memory[: at.scores].view(np.float32).reshape(batch, most, 4)
    scores = memory[at.scores : at.classes].view(np.float32).reshape(batch, most)
    classes = memory[at.classes : at.count].view(np.int32).reshape(batch, most)
    counts = memory[at.count : at.count + 4 * batch].view(np.int32).tolist()
    return [
        Detections(boxes[i, :n].copy(), scores[i, :n].copy(), classes[i, :n].copy())
        for i, n in enumerate(counts)
    ]


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
