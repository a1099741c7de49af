"""The two-stage tracker on the device: every camera of a batch in one launch.

Launches ``plugins/tracker.cu``; ``docs/tracker.md`` specifies it and
:mod:`edgecount.track.two_stage` is the reference. Ids, boxes and scores are the same bit for bit.
"""

import ctypes
import math
from typing import Any, Callable, List, Mapping, Sequence, Tuple

import numpy as np
import structlog
from numpy.typing import NDArray

from edgecount.infer.cuda import compiler
from edgecount.infer.cuda.driver import Device, Module, Stream
from edgecount.infer.cuda.postprocess import DetectionBuffers
from edgecount.records import Tracks, UInt8Array
from edgecount.track.two_stage import (
    LONGEST_STEP,
    Options,
    cost_limit,
    limit_high,
    microseconds,
)

_log = structlog.get_logger(__name__)

KERNELS = ("track",)
MOST_TRACKS = 1024
MOST_DETECTIONS = 1024
# Detections in the gate of one track: of boxes that NMS left over, few lie within one's reach.
MOST_NEIGHBOURS = 128
THREADS = 512
_BINS = 256
_PRIOR = 64
_REALS = 23

# Mirrors of plugins/tracker_state.cuh, aligned as C does it.
STEP = np.dtype(
    [
        ("camera", np.int32),
        ("t", np.float32),
        ("cube", np.float32),
        ("square", np.float32),
        ("fade", np.float32),
        ("reach", np.float32),
        ("limit_high", np.int32),
        ("dt_us", np.int64),
    ],
    align=True,
)
_STATE = np.dtype(
    [
        ("next_id", np.int64),
        ("count", np.int32),
        ("news", np.int32),
        ("levels", np.float32, 3),
        ("unused", np.int32),
        ("histogram", np.int32, _BINS),
        ("tracks", np.uint8, MOST_TRACKS * (8 + 8 + 4 + 4 + 4 * _REALS)),
    ],
    align=True,
)
_SCRATCH_BYTES = MOST_TRACKS * (8 + 8 + 4 + 4 + 4 + 8 * MOST_NEIGHBOURS) + MOST_DETECTIONS * (
    8 + 8 + 32 + 4
)
_OUTPUT = np.dtype(
    [
        ("count", np.int32),
        ("ended", np.int32),
        ("overflow", np.int32),
        ("unused", np.int32),
        ("id", np.int64, MOST_TRACKS),
        ("ended_id", np.int64, MOST_TRACKS),
        ("box", np.float32, (MOST_TRACKS, 4)),
        ("score", np.float32, MOST_TRACKS),
        ("class", np.int32, MOST_TRACKS),
        ("confirmed", np.uint8, MOST_TRACKS),
    ],
    align=True,
)
_OVERFLOWS = {
    1: f"newcomers are not followed: {MOST_TRACKS} people are already",
    2: f"of the heads in one person's reach only the best {MOST_NEIGHBOURS} are looked at",
}

_NOBODY = np.zeros(0, np.int64)
_NOBODY.flags.writeable = False


class _Options(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_double) for name in ("high_share", "birth_share", "strong_share")),
        *((f"{n}_us", ctypes.c_int64) for n in ("max_age", "tentative_age", "low_age", "coast")),
        *(
            (name, ctypes.c_float)
            for name in (
                "low",
                "confirm_evidence",
                "weak_evidence",
                "coast_rate",
                "noise",
                "size_noise",
                "outlier",
                "acceleration",
                "size_acceleration",
                "speed",
                "size_speed",
                "head_unit",
                "gate",
                "gate_margin",
                "min_height_ratio",
                "grow",
                "base_cost",
                "overlap_weight",
                "distance_weight",
                "height_weight",
                "novice_cost",
            )
        ),
        *((name, ctypes.c_int) for name in ("limit_low", "limit_tentative", "floor")),
    )


class _Seen(ctypes.Structure):
    _fields_ = (
        *((name, ctypes.c_void_p) for name in ("boxes", "scores", "classes", "count")),
        ("most", ctypes.c_int),
    )


Load = Callable[[Device, str, Mapping[str, object]], Module]


class TrackResults:
    """The results of batches, from their bytes on the host.

    Args:
        memory: Of :meth:`GpuTracker.result_bytes`, read anew every time.
    """

    def __init__(self, memory: UInt8Array) -> None:
        outputs = memory.view(_OUTPUT)
        # Column by column: asking each picture's record for its fields takes twice the time.
        self._counts, self._endings = outputs["count"], outputs["ended"]
        self._overflows = outputs["overflow"]
        self._ids, self._boxes, self._scores = outputs["id"], outputs["box"], outputs["score"]
        self._classes, self._ended = outputs["class"], outputs["ended_id"]
        self._confirmed = outputs["confirmed"].view(np.bool_)

    def read(self, batch: int) -> List[Tracks]:
        """Copies of the first ``batch`` pictures' tracks.

        A camera that sees more than there is room for loses what is too much, and the log
        says so; its other people and the other cameras go on.
        """
        overflows = self._overflows[:batch].tolist()
        if any(overflows):
            _warn(overflows)
        counts, endings = self._counts[:batch].tolist(), self._endings[:batch].tolist()
        return [
            Tracks(
                ids=self._ids[i, :n].copy(),
                boxes=self._boxes[i, :n].copy(),
                scores=self._scores[i, :n].copy(),
                classes=self._classes[i, :n].copy(),
                confirmed=self._confirmed[i, :n].copy(),
                ended=self._ended[i, : endings[i]].copy() if endings[i] else _NOBODY,
            )
            for i, n in enumerate(counts)
        ]


class GpuTracker:
    """One tracker a camera, their states in device memory.

    Args:
        device: The device.
        stream: Where it is set up and launched; the same one always.
        cameras: The options of each camera's tracker.
        max_batch: Most pictures of a launch, each of another camera.
        load: Makes the kernel.

    Raises:
        EngineError: The device failed.
    """

    def __init__(
        self,
        device: Device,
        stream: Stream,
        cameras: Sequence[Options],
        *,
        max_batch: int,
        load: Load = compiler.load,
    ) -> None:
        self._cameras = list(cameras)
        self._stream = stream
        self._module = load(device, "tracker", DEFINES)
        self._track = self._module.function("track")
        count = len(self._cameras)
        self._states = device.allocate(count * _STATE.itemsize)
        self._scratch = device.allocate(max_batch * _SCRATCH_BYTES)
        self._options = device.allocate(count * ctypes.sizeof(_Options))
        self._nothing = device.pinned(4)
        self._nothing.array[:] = 0
        self._start(device)

    def step(self, records: NDArray[Any], index: int, camera: int, dt: float) -> None:
        """Fill the record of one picture.

        Args:
            records: A :data:`STEP` array.
            index: Which of them is written.
            camera: Index into ``cameras``; of a negative one nothing is tracked.
            dt: Seconds since the camera's last picture.
        """
        dt = min(max(0.0, dt), LONGEST_STEP)
        options = self._cameras[max(camera, 0)]
        # As a whole: field by field takes ten times as long.
        records[index] = (
            *(camera, dt, dt**3 / 3, dt**2 / 2, math.exp(-dt / options.size_decay)),
            *(options.top_speed * dt, limit_high(options, dt), microseconds(dt)),
        )

    @staticmethod
    def result_bytes(batch: int) -> int:
        """Bytes of the results of a batch."""
        return batch * _OUTPUT.itemsize

    def launch(
        self, stream: Stream, found: DetectionBuffers, steps: int, batch: int, out: int
    ) -> None:
        """Enqueue one step of every camera of a batch.

        Args:
            stream: Always the same one.
            found: The detections of ``batch`` pictures.
            steps: Device address of ``batch`` :data:`STEP` records, no camera twice.
            batch: Pictures.
            out: Device address of the results, :meth:`result_bytes`; 16-byte aligned.

        Raises:
            EngineError: The launch failed.
        """
        stream.launch(
            self._track,
            (batch, 1, 1),
            (THREADS, 1, 1),
            (
                ctypes.c_void_p(self._states.pointer),
                ctypes.c_void_p(self._scratch.pointer),
                _Seen(found.boxes, found.scores, found.classes, found.count, found.most),
                ctypes.c_void_p(steps),
                ctypes.c_void_p(self._options.pointer),
                ctypes.c_void_p(out),
            ),
        )

    def reset(self, stream: Stream, camera: int) -> None:
        """Forget the tracks of one camera; its ids are not used again.

        Raises:
            EngineError: The device failed.
        """
        address = self._states.pointer + camera * _STATE.itemsize
        offset = _STATE.fields["count"][1]  # type: ignore[index]
        stream.upload(address + offset, self._nothing.pointer, 4)

    def close(self) -> None:
        """Free its memory and kernel; closing the device does, too."""
        for buffer in (self._states, self._scratch, self._options, self._nothing):
            buffer.close()
        self._module.close()

    def _start(self, device: Device) -> None:
        """Nobody is followed yet, and scores are as the options assume them."""
        states = np.zeros(len(self._cameras), _STATE)
        for state, options in zip(states, self._cameras):
            floor = _floor(options)
            state["next_id"] = 1
            state["histogram"][floor] = _PRIOR
            # Below the lowest bin lies the share 0; see edgecount/track/_score_levels.py.
            state["levels"] = [floor / _BINS if share else 0.0 for share in _shares(options)]
        packed = b"".join(bytes(_options(o)) for o in self._cameras)
        for target, values in ((self._states, states.tobytes()), (self._options, packed)):
            staging = device.pinned(max(len(values), 1))
            staging.array[: len(values)] = np.frombuffer(values, np.uint8)
            self._stream.upload(target.pointer, staging.pointer, len(values))
            self._stream.synchronize()
            staging.close()


DEFINES: Mapping[str, object] = {
    "TRACKS": MOST_TRACKS,
    "DETECTIONS": MOST_DETECTIONS,
    "NEIGHBOURS": MOST_NEIGHBOURS,
    "THREADS": THREADS,
}


def _warn(overflows: Sequence[int]) -> None:
    found = {bit: text for bit, text in _OVERFLOWS.items() if any(o & bit for o in overflows)}
    _log.warning("tracker_full", reason=" and ".join(found.values()))


def _floor(options: Options) -> int:
    return min(int(options.high * _BINS), _BINS - 1)


def _shares(options: Options) -> Tuple[float, float, float]:
    return options.high_share, options.birth_share, options.strong_share


def _options(options: Options) -> _Options:
    names = [field[0] for field in _Options._fields_]
    same = {n: getattr(options, n) for n in names if hasattr(options, n)}
    ages = ("max_age", "tentative_age", "low_age", "coast")
    return _Options(
        **same,
        **{f"{name}_us": microseconds(getattr(options, name)) for name in ages},
        grow=0.5 + options.buffer,
        base_cost=options.overlap_weight + options.height_weight,
        limit_low=cost_limit(options.max_cost_low),
        limit_tentative=cost_limit(options.max_cost_tentative),
        floor=_floor(options),
    )
