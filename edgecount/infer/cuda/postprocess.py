"""A network's output to detections in source pixels, on the device, in two launches.

Launches ``plugins/nms.cu``; the reference is :class:`~edgecount.infer.detector.OnnxDetector`
with :func:`~edgecount.count.masks.apply_masks` behind it. The detections are the same, in the
same order, up to the rounding of ``exp`` in decoding and temperature.
"""

import ctypes
import math
from dataclasses import astuple, dataclass
from typing import Any, Callable, List, Mapping, Optional, Sequence, Tuple

import numpy as np
from numpy.typing import DTypeLike, NDArray
from pydantic import BaseModel, ConfigDict, Field
from typing_extensions import Annotated

from edgecount.config import Point
from edgecount.errors import ModelError
from edgecount.infer.cuda import compiler
from edgecount.infer.cuda.driver import Device, DeviceBuffer, Module, Stream
from edgecount.infer.detector import Thresholds, untempered
from edgecount.infer.heads.base import cells
from edgecount.infer.letterbox import Letterbox
from edgecount.infer.nms import TOP_K
from edgecount.infer.recipe import Recipe
from edgecount.infer.tiles import Tile

# Mirrors of plugins/nms.cu
HEADS: Mapping[str, int] = {"yolox": 1, "yolov5": 2, "yolov8": 3, "ltrb": 4, "end2end": 5}
KERNELS = ("decode_head", "suppress")
_DECODE_THREADS = 512
_SUPPRESS_THREADS = 256
_WORD = 64
_MAX_LEVELS = 6
_MOST_TILES = (
    (_SUPPRESS_THREADS // _WORD) * (TOP_K // _SUPPRESS_THREADS) * (TOP_K // _SUPPRESS_THREADS + 1)
) // 2
_BLOCKS_PER_PROCESSOR = 16
_ANCHOR_HEIGHT = {"center": 0.5, "bottom": 1.0}

# What the kernel must know of one picture.
PICTURE = np.dtype(
    [
        ("ratio", np.float32, 2),
        ("limit", np.float32, 2),
        ("diagonal", np.float64),
        ("scale", np.float64, 2),
        ("first_polygon", np.int32),
        ("polygons", np.int32),
    ]
)

# What the kernel must know of one of the network's pictures, where frames are cut.
PART = np.dtype(
    [
        *((name, np.int32) for name in ("picture", "first", "count", "cut")),
        *((name, np.float32, 2) for name in ("ratio", "start", "low", "high", "least", "most")),
    ]
)
_NO_PICTURE = -1

Load = Callable[[Device, str, Mapping[str, object]], Module]
ArrayOf = NDArray[Any]


class Options(BaseModel):
    """How detections are kept on the device."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    max_detections: Annotated[int, Field(ge=1, le=TOP_K)] = Field(
        1024, description="Most detections of a picture; the weakest beyond it are dropped."
    )


@dataclass(frozen=True)
class DetectionBuffers:
    """Device addresses of the detections of a batch of B pictures; M is ``most``.

    Behind ``count`` nothing is written.

    Attributes:
        boxes: float32[B][M][4], source pixels, clipped; best score first. 16-byte aligned.
        scores: float32[B][M].
        classes: int32[B][M].
        count: int32[B].
        most: M.
    """

    boxes: int
    scores: int
    classes: int
    count: int
    most: int

    @staticmethod
    def bytes_for(batch: int, most: int) -> int:
        """Bytes that :meth:`at` lays out."""
        return batch * (24 * most + 4)

    @staticmethod
    def at(address: int, batch: int, most: int) -> "DetectionBuffers":
        """Laid out one after the other from ``address``, which is 16-byte aligned."""
        scores = address + batch * 16 * most
        classes = scores + batch * 4 * most
        return DetectionBuffers(address, scores, classes, classes + batch * 4 * most, most)


class HeadLayout(ctypes.Structure):
    """``Head`` of ``nms.cu``."""

    _fields_ = (
        ("rows", ctypes.c_int),
        ("classes", ctypes.c_int),
        ("wanted_count", ctypes.c_int),
        ("levels", ctypes.c_int),
        ("first", ctypes.c_int * _MAX_LEVELS),
        ("columns", ctypes.c_int * _MAX_LEVELS),
        ("stride", ctypes.c_float * _MAX_LEVELS),
        ("threshold", ctypes.c_float),
        ("floor", ctypes.c_float),
    )


# Bytes per picture of what ``Scratch`` of ``nms.cu`` points to, with `rows` candidates.
_SCRATCH: Tuple[Tuple[str, Callable[[int], int]], ...] = (
    ("count", lambda _: 4),
    ("finished", lambda _: 4),
    ("sorted_count", lambda _: 4),
    ("keys", lambda rows: 8 * rows),
    ("boxes", lambda rows: 16 * rows),
    ("classes", lambda rows: 4 * rows),
    ("sorted_boxes", lambda _: 16 * TOP_K),
    ("sorted_scores", lambda _: 4 * TOP_K),
    ("sorted_classes", lambda _: 4 * TOP_K),
    ("overlaps", lambda _: 8 * TOP_K * (TOP_K // _WORD)),
)
_ALIGNMENT = 256


class _Scratch(ctypes.Structure):
    _fields_ = tuple((name, ctypes.c_void_p) for name, _ in _SCRATCH)


class _Output(ctypes.Structure):
    _fields_ = (
        ("boxes", ctypes.c_void_p),
        ("scores", ctypes.c_void_p),
        ("classes", ctypes.c_void_p),
        ("count", ctypes.c_void_p),
        ("most", ctypes.c_int),
    )


def head_layout(
    recipe: Recipe, size: Tuple[int, int], output_shape: Sequence[int], threshold: float
) -> HeadLayout:
    """How the output of a model is read.

    Args:
        recipe: Of the model.
        size: Width and height of the network's input.
        output_shape: Of one picture, without the batch.
        threshold: Least score, before the temperature.

    Raises:
        ModelError: The kernel does not know such a head.
    """
    if recipe.head not in HEADS:
        raise ModelError(
            f"head {recipe.head!r} of model {recipe.name} has no CUDA decoder; those that have: "
            f"{', '.join(HEADS)}: run it with backend: cpu"
        )
    if len(recipe.strides) > _MAX_LEVELS:
        raise ModelError(
            f"model {recipe.name} has {len(recipe.strides)} output levels, more than the CUDA "
            f"decoder's {_MAX_LEVELS}: run it with backend: cpu"
        )
    layout = HeadLayout(
        rows=output_shape[1] if recipe.head in ("yolov8", "ltrb") else output_shape[0],
        classes=len(recipe.classes),
        wanted_count=len(recipe.wanted()),
        levels=len(recipe.strides),
        threshold=_logit(threshold) if recipe.head == "ltrb" else threshold,
        floor=threshold,
    )
    first = 0
    for i, (columns, rows, stride) in enumerate(cells(*size, recipe.strides)):
        layout.first[i], layout.columns[i], layout.stride[i] = first, columns, stride
        first += columns * rows
    return layout


class Postprocess:
    """Decoder, NMS and ignore masks of one model, for batches up to ``max_batch``.

    The memory between its launches is its own: launch it on one stream only.

    Args:
        device: The device.
        stream: Used for setting up; it is waited for.
        recipe: Of the model.
        size: Width and height of the network's input, pixels.
        output_shape: Of one picture, without the batch.
        output_dtype: float32 or float16.
        thresholds: Least (calibrated) score and NMS's overlap.
        ignore: For each camera its mask polygons, normalised.
        max_batch: Most pictures of a launch.
        tiles: Whether frames are cut, so that several of the network's pictures are one.
        options: See :class:`Options`.
        load: Makes the kernels.

    Raises:
        ModelError: The model has a head or output that the kernel does not know.
        EngineError: The device failed.
    """

    def __init__(
        self,
        device: Device,
        stream: Stream,
        recipe: Recipe,
        *,
        size: Tuple[int, int],
        output_shape: Sequence[int],
        output_dtype: DTypeLike,
        thresholds: Thresholds,
        ignore: Sequence[Sequence[Sequence[Point]]] = (),
        max_batch: int = 1,
        tiles: bool = False,
        options: Options = Options(),  # noqa: B008 (frozen)
        load: Load = compiler.load,
    ) -> None:
        threshold = untempered(thresholds.score, recipe.temperature)
        wanted = recipe.wanted()
        self.options = options
        self._layout = head_layout(recipe, size, output_shape, threshold)
        self._tiles = tiles
        self._module = load(device, "nms", defines(recipe, output_dtype, tiles))
        self._decode, self._suppress = (self._module.function(name) for name in KERNELS)
        self._wide = _BLOCKS_PER_PROCESSOR * device.properties.multiprocessors
        self._cameras, polygons, corners = _mask_tables(ignore)
        self._scratch, self._memory = self._reserve(device, stream, max_batch)
        self._wanted, self._polygons, self._corners = (
            _upload(device, stream, table)
            for table in (np.asarray(wanted, np.int32), polygons, corners)
        )
        self._iou = ctypes.c_float(thresholds.iou)
        self._temperature = ctypes.c_float(recipe.temperature)
        self._anchor = ctypes.c_double(_ANCHOR_HEIGHT[recipe.anchor])
        self._only = ctypes.c_int(wanted[0])

    def describe(self, record: Any, box: Letterbox, camera: int) -> None:
        """Fill a picture's record (an element of a :data:`PICTURE` array).

        Args:
            record: Written.
            box: How the picture was fitted into the input.
            camera: Index into ``ignore``; negative for none.
        """
        self._describe(record, box.source_width, box.source_height, camera)
        record["ratio"] = (
            box.source_width / box.scaled_width,
            box.source_height / box.scaled_height,
        )

    def describe_cut(self, record: Any, width: int, height: int, camera: int) -> None:
        """The same of a frame that is cut: its candidates are in source pixels already."""
        self._describe(record, width, height, camera)
        record["ratio"] = 1.0, 1.0

    def _describe(self, record: Any, width: int, height: int, camera: int) -> None:
        diagonal = math.hypot(width, height)
        first, count = self._cameras[camera] if 0 <= camera < len(self._cameras) else (0, 0)
        record["limit"] = width, height
        record["diagonal"] = diagonal
        record["scale"] = width / diagonal, height / diagonal
        record["first_polygon"], record["polygons"] = first, count

    def launch(
        self,
        stream: Stream,
        batch: int,
        output: int,
        pictures: int,
        found: DetectionBuffers,
        parts: int = 0,
    ) -> None:
        """Enqueue both kernels.

        Args:
            stream: Always the same one.
            batch: Pictures of the network's.
            output: Device address of the network's output.
            pictures: Device address of ``batch`` :data:`PICTURE` records; with tiles those
                behind the last frame are :func:`no_picture`, and get no detections.
            found: Where the detections go.
            parts: With tiles: device address of ``batch`` :data:`PART` records.

        Raises:
            EngineError: The launch failed.
        """
        decode_blocks = -(-self._layout.rows // _DECODE_THREADS)
        stream.launch(
            self._decode,
            (decode_blocks, batch, 1),
            (_DECODE_THREADS, 1, 1),
            (
                ctypes.c_void_p(output),
                ctypes.c_void_p(self._wanted.pointer),
                self._layout,
                self._scratch,
                *((ctypes.c_void_p(parts),) if self._tiles else ()),
            ),
        )
        stream.launch(
            self._suppress,
            (max(1, min(_MOST_TILES, self._wide // batch)), batch, 1),
            (_SUPPRESS_THREADS, 1, 1),
            (
                self._scratch,
                ctypes.c_void_p(pictures),
                ctypes.c_void_p(self._polygons.pointer),
                ctypes.c_void_p(self._corners.pointer),
                self._iou,
                self._temperature,
                self._anchor,
                self._only,
                _Output(*astuple(found)),
            ),
        )

    def close(self) -> None:
        """Free its memory and kernels; closing the device does, too."""
        for buffer in (self._memory, self._wanted, self._polygons, self._corners):
            buffer.close()
        self._module.close()

    def _reserve(self, device: Device, stream: Stream, batch: int) -> Tuple[_Scratch, DeviceBuffer]:
        """Memory between the launches, its counters at zero."""
        sizes = [_aligned(batch * bytes_of(self._layout.rows)) for _, bytes_of in _SCRATCH]
        memory = device.allocate(sum(sizes))
        starts = np.cumsum([0, *sizes[:-1]]) + memory.pointer
        stream.fill(memory.pointer, 0, sum(sizes[:3]))
        stream.synchronize()
        return _Scratch(*(int(start) for start in starts)), memory


def describe_part(record: Any, box: Letterbox, tile: Optional[Tile]) -> None:
    """Fill what is the same for one of the network's pictures in every batch.

    Args:
        record: Written: an element of a :data:`PART` array, but for ``picture`` and ``first``.
        box: How it is fitted into the input.
        tile: Which part of a frame it is; None for a frame that is not cut.
    """
    record["count"], record["cut"] = 1, tile is not None
    if tile is None:
        return
    record["ratio"] = box.source_width / box.scaled_width, box.source_height / box.scaled_height
    record["start"] = tile.x, tile.y
    record["low"], record["high"] = tile.low, tile.high
    record["least"], record["most"] = tile.least, tile.most


def no_picture(record: Any) -> None:
    """Fill a :data:`PICTURE` record for which there is no frame in this batch."""
    record["polygons"] = _NO_PICTURE


def defines(recipe: Recipe, output_dtype: DTypeLike, tiles: bool = False) -> Mapping[str, object]:
    """The macros that ``nms.cu`` is compiled with for a model.

    Raises:
        ModelError: The output is neither float32 nor float16.
    """
    dtype = np.dtype(output_dtype)
    if dtype not in (np.dtype(np.float32), np.dtype(np.float16)):
        raise ModelError(
            f"the output of model {recipe.name} is {dtype}; edgecount reads float32 and float16"
        )
    return {
        "HEAD": HEADS[recipe.head],
        "HALF_OUTPUT": int(dtype == np.dtype(np.float16)),
        "ONE_CLASS": int(len(recipe.wanted()) == 1),
        **({"TILES": 1} if tiles else {}),
    }


def _logit(score: float) -> float:
    return float(np.float32(np.log(score / (1.0 - score)))) if score < 1.0 else math.inf


def _mask_tables(
    ignore: Sequence[Sequence[Sequence[Point]]],
) -> Tuple[List[Tuple[int, int]], ArrayOf, ArrayOf]:
    """For each camera its first polygon and how many; then all polygons; then all corners."""
    cameras: List[Tuple[int, int]] = []
    polygons: List[Tuple[int, int]] = []
    corners: List[Point] = []
    for masks in ignore:
        cameras.append((len(polygons), len(masks)))
        for polygon in masks:
            polygons.append((len(corners), len(polygon)))
            corners.extend(polygon)
    return (
        cameras,
        np.asarray(polygons, np.int32).reshape(-1, 2),
        np.asarray(corners, np.float64).reshape(-1, 2),
    )


def _upload(device: Device, stream: Stream, values: ArrayOf) -> DeviceBuffer:
    """A copy of ``values`` on the device, at least one byte."""
    size = max(values.nbytes, 1)
    memory, staging = device.allocate(size), device.pinned(size)
    staging.array[: values.nbytes] = np.frombuffer(values.tobytes(), np.uint8)
    stream.upload(memory.pointer, staging.pointer, size)
    stream.synchronize()
    staging.close()
    return memory


def _aligned(size: int) -> int:
    return -(-size // _ALIGNMENT) * _ALIGNMENT
