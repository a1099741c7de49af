"""The two-stage tracker on the GPU, for many cameras in one launch: ``plugins/tracker.cu``.

``docs/tracker.md`` specifies it and :mod:`edgecount.track.two_stage` is its reference: ids,
boxes, scores and ended ids are the same, bit for bit. Whatever needs a transcendental function
or an option rounded is computed here, on the host, so that a device only adds, multiplies,
divides and takes roots, each rounded as IEEE says.
"""

import ctypes
import math
from dataclasses import dataclass
from typing import Any, List, NamedTuple, Optional, Sequence

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Protocol

from edgecount.errors import EngineError
from edgecount.infer.cuda import compiler
from edgecount.records import Tracks, UInt8Array
from edgecount.track._association import COST_ONE
from edgecount.track._score_levels import ScoreLevels
from edgecount.track.two_stage import Options

KERNEL = "track_frames"
THREADS = 512
LARGEST = 2048  # rows and columns that the assignment's tie rule tells apart
_UNIT = 32  # capacities are multiples of this, which keeps every column aligned
_LONGEST_STEP = 1e6  # seconds
_BINS = 256
_PRIOR = 64  # scores that the histogram holds at the start
_REALS = 23
_EDGES = 32
_STATIC_SHARED = 8 * 1024  # bytes, at least what the kernel declares

# As in plugins/tracker_state.cuh.
_OPTIONS = np.dtype(
    [
        ("shares", "<f8", 3),
        *((name, "<i8") for name in ("max_age", "tentative_age", "low_age", "coast")),
        ("limits", "<i4", 3),
        ("floor", "<i4"),
        *(
            (name, "<f4")
            for name in (
                *("low", "weak_evidence", "confirm_evidence", "coast_rate"),
                *("noise", "size_noise", "outlier"),
                *("acceleration", "size_acceleration", "speed", "size_speed", "head_unit"),
                *("gate", "gate_margin", "min_height_ratio"),
                *("grow", "overlap_weight", "distance_weight", "height_weight", "worst"),
                *("novice_cost", "unused"),
            )
        ),
    ]
)
_CAMERA = np.dtype(
    [
        ("next_id", "<i8"),
        ("tracks", "<i4"),
        ("news", "<i4"),
        ("levels", "<f4", 3),
        ("unused", "<i4"),
        ("counts", "<i4", _BINS),
    ]
)
_COMPUTED = frozenset({"shares", "limits", "floor", "grow", "worst", "unused"})
_TIMES = frozenset({"max_age", "tentative_age", "low_age", "coast"})
STEP = np.dtype([("us", "<i8"), *((n, "<f4") for n in ("dt", "cubic", "square", "decay"))])


class _Buffer(Protocol):
    pointer: int

    def close(self) -> None: ...


class _Device(Protocol):
    """What is asked of :class:`~.driver.Device`."""

    @property
    def properties(self) -> Any: ...

    def allocate(self, size: int) -> Any: ...

    def pinned(self, size: int) -> Any: ...


class _Stream(Protocol):
    """What is asked of :class:`~.driver.Stream`."""

    def launch(
        self, function: Any, grid: Any, block: Any, args: Sequence[Any], shared: int = 0
    ) -> None: ...

    def upload(self, target: int, source: int, size: int) -> None: ...

    def fill(self, target: int, value: int, size: int) -> None: ...

    def synchronize(self) -> None: ...


class Capacity(NamedTuple):
    """How much there is room for; both are multiples of 32, at most 2,048.

    Attributes:
        tracks: Per camera, those unseen for a while included.
        detections: Per picture; the stride of the records that are read.
    """

    tracks: int = 1024
    detections: int = 1024

    @property
    def shared_bytes(self) -> int:
        """Dynamic shared memory of a block."""
        return 35 * self.tracks + 27 * self.detections

    @property
    def state_bytes(self) -> int:
        """Device memory of a camera."""
        return _CAMERA.itemsize + self.tracks * (2 * 8 + 4 * _REALS + 2 * 4)

    @property
    def scratch_bytes(self) -> int:
        """Device memory of a picture in flight."""
        return 24 * self.detections + self.tracks * (2 * 16 + 4 * (1 + _EDGES))

    @property
    def output_bytes(self) -> int:
        """Size of a picture's result."""
        return 16 + self.tracks * (2 * 8 + 16 + 2 * 4 + 1)


@dataclass(frozen=True)
class TrackerResult:
    """What a picture's result says.

    Attributes:
        tracks: As :meth:`edgecount.track.base.Tracker.update` gives them.
        dropped: New tracks for which there was no room. From the first one on, ids differ
            from those of a tracker without limits.
    """

    tracks: Tracks
    dropped: int


class GpuTracker:
    """Trackers of many cameras; their state is in device memory.

    All work on a camera must be enqueued on one stream, or be ordered by events.
    """

    def __init__(
        self,
        device: _Device,
        stream: _Stream,
        cameras: Sequence[Options],
        *,
        batch: int,
        capacity: Optional[Capacity] = None,
        module: Optional[Any] = None,
        threads: int = THREADS,
    ) -> None:
        """Take the memory, compile the kernel, and start without tracks.

        Args:
            device: The device.
            stream: The initial state is uploaded on it, and waited for.
            cameras: The options of each camera's tracker.
            batch: Pictures of a launch at most.
            capacity: How much there is room for; 1,024 tracks and detections where None.
            module: The compiled kernel; compiled here where None.
            threads: Of a block; ``module`` must be compiled for as many.

        Raises:
            EngineError: The device has not enough (shared) memory, or no compiler is there.
        """
        self.capacity = capacity or Capacity()
        self.batch = batch
        self._cameras = len(cameras)
        self._threads = threads
        _check(self.capacity, device.properties.shared_bytes)
        if module is None:
            module = compiler.load(device, "tracker", {"THREADS": threads})  # type: ignore[arg-type]
        self._function = module.function(KERNEL)
        self._function.allow_shared(self.capacity.shared_bytes)
        self._options: _Buffer = device.allocate(len(cameras) * _OPTIONS.itemsize)
        self._states: _Buffer = device.allocate(len(cameras) * self.capacity.state_bytes)
        self._scratches: _Buffer = device.allocate(batch * self.capacity.scratch_bytes)
        self._start(device, stream, cameras)

    def steps(self, dts: Sequence[float], options: Sequence[Options]) -> NDArray[np.void]:
        """The time steps of a batch as the kernel reads them, (B,) of :data:`STEP`.

        Args:
            dts: Seconds since each camera's last picture.
            options: Of each picture's camera.
        """
        return np.array([_step(dt, o) for dt, o in zip(dts, options)], STEP)

    def launch(
        self,
        stream: _Stream,
        boxes: int,
        scores: int,
        classes: int,
        count: int,
        camera: int,
        steps: int,
        batch: int,
        out: int,
    ) -> None:
        """Enqueue a frame of ``batch`` different cameras. All addresses are of the device.

        Args:
            stream: The stream.
            boxes: (B, M, 4) float32, M = ``capacity.detections``, aligned to 16 bytes.
            scores: (B, M) float32.
            classes: (B, M) int32.
            count: (B,) int32, detections of each picture.
            camera: (B,) int32, index of its camera; negative: it is not tracked.
            steps: (B,) of :data:`STEP`, see :meth:`steps`.
            batch: B, at most the tracker's ``batch``.
            out: B results of ``capacity.output_bytes`` each, aligned to 16 bytes; may be
                mapped host memory. :meth:`read` reads one.
        """
        pointers = (boxes, scores, classes, count, camera, steps)
        own = (self._options.pointer, self._states.pointer, self._scratches.pointer)
        args: List[Any] = [ctypes.c_void_p(p) for p in (*pointers, *own, out)]
        args += [ctypes.c_int(self.capacity.tracks), ctypes.c_int(self.capacity.detections)]
        stream.launch(
            self._function, (batch, 1, 1), (self._threads, 1, 1), args, self.capacity.shared_bytes
        )

    def read(self, result: UInt8Array) -> TrackerResult:
        """Copy a picture's result out of its bytes: (``capacity.output_bytes``,) uint8."""
        tracks, ended, dropped = (int(n) for n in result[:12].view(np.int32))
        columns = _Columns(result, self.capacity.tracks)
        ids, ended_ids = columns.take(np.int64, tracks), columns.take(np.int64, ended)
        boxes, scores = columns.take(np.float32, tracks, 4), columns.take(np.float32, tracks)
        classes, confirmed = columns.take(np.int32, tracks), columns.take(np.uint8, tracks)
        return TrackerResult(
            Tracks(ids, boxes, scores, classes, confirmed.astype(np.bool_), ended_ids), dropped
        )

    def reset(self, stream: _Stream, camera: int) -> None:
        """Enqueue: camera number ``camera`` forgets its tracks. Ids are not used again."""
        if not 0 <= camera < self._cameras:
            raise IndexError(f"there are {self._cameras} cameras: no number {camera}")
        at = camera * self.capacity.state_bytes + _offset("tracks")
        stream.fill(self._states.pointer + at, 0, 4)

    def close(self) -> None:
        """Free the memory."""
        for buffer in (self._options, self._states, self._scratches):
            buffer.close()

    def _start(self, device: _Device, stream: _Stream, cameras: Sequence[Options]) -> None:
        options = np.concatenate([pack_options(o) for o in cameras])
        states = np.concatenate([_first_state(o) for o in cameras])
        staging = device.pinned(options.nbytes + states.nbytes)
        staging.array[:] = np.concatenate((options.view(np.uint8), states.view(np.uint8)))
        stream.upload(self._options.pointer, staging.pointer, options.nbytes)
        for number in range(len(cameras)):
            stream.upload(
                self._states.pointer + number * self.capacity.state_bytes,
                staging.pointer + options.nbytes + number * _CAMERA.itemsize,
                _CAMERA.itemsize,
            )
        stream.synchronize()
        staging.close()


def pack_options(options: Options) -> NDArray[np.void]:
    """Options as the kernel reads them, (1,): times in µs, reals rounded to float32 once."""
    packed = np.zeros(1, _OPTIONS)
    for name in packed.dtype.names or ():
        if name in _TIMES:
            packed[name] = round(getattr(options, name) * 1e6)
        elif name not in _COMPUTED:
            packed[name] = getattr(options, name)
    packed["shares"] = _shares(options)
    packed["limits"] = [
        round(cost * COST_ONE)
        for cost in (options.max_cost, options.max_cost_low, options.max_cost_tentative)
    ]
    packed["floor"] = _floor(options)
    packed["grow"] = 0.5 + options.buffer
    packed["worst"] = options.overlap_weight + options.height_weight
    return packed


class _Columns:
    """Columns of a result, one after the other."""

    def __init__(self, result: UInt8Array, capacity: int) -> None:
        self._rest = result[16:]
        self._capacity = capacity

    def take(self, kind: Any, count: int, width: int = 1) -> Any:
        """A copy of the next column's first ``count`` items."""
        size = np.dtype(kind).itemsize * width
        column = self._rest[: count * size].view(kind).copy()
        self._rest = self._rest[self._capacity * size :]
        return column.reshape(count, width) if width > 1 else column


def _check(capacity: Capacity, shared_bytes: int) -> None:
    for name, value in capacity._asdict().items():
        if value % _UNIT or not 0 < value <= LARGEST:
            raise EngineError(
                f"the GPU tracker has room for {value} {name}: give a multiple of {_UNIT} up to "
                f"{LARGEST}"
            )
    needed = capacity.shared_bytes + _STATIC_SHARED
    if needed > shared_bytes:
        raise EngineError(
            f"the GPU tracker needs {needed:,} bytes of shared memory for {capacity.tracks} tracks "
            f"and {capacity.detections} detections, but a block of this device has {shared_bytes:,}"
            ": use a smaller capacity"
        )


def _step(dt: float, options: Options) -> Any:
    dt = min(max(0.0, dt), _LONGEST_STEP)
    decay = math.exp(-dt / options.size_decay)
    return round(dt * 1e6), dt, dt**3 / 3, dt**2 / 2, decay


def _first_state(options: Options) -> NDArray[np.void]:
    state = np.zeros(1, _CAMERA)
    state["next_id"] = 1
    state["levels"] = ScoreLevels(options.high, _shares(options)).levels()
    state["counts"][0, _floor(options)] = _PRIOR
    return state


def _shares(options: Options) -> Any:
    return options.high_share, options.birth_share, options.strong_share


def _floor(options: Options) -> int:
    return min(int(options.high * _BINS), _BINS - 1)


def _offset(field: str) -> int:
    fields = _CAMERA.fields
    assert fields is not None
    return int(fields[field][1])
