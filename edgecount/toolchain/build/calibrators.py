"""TensorRT's own calibrators (up to 10), fed with our scales or with our pictures."""

from pathlib import Path
from typing import Any, Callable, Iterator, List, Optional, Tuple

import numpy as np
from typing_extensions import Protocol

from edgecount.infer.cuda.driver import Device
from edgecount.infer.detector import OnnxDetector, Thresholds
from edgecount.infer.recipe import Recipe
from edgecount.infer.tensorrt.cache import keep_file
from edgecount.infer.tensorrt.profile import Shape
from edgecount.records import Float32Array
from edgecount.toolchain.build.job import Calibration, Emit
from edgecount.toolchain.quantize.calibration_set.images import CalibrationImages

_BASES = {"entropy": "IInt8EntropyCalibrator2", "minmax": "IInt8MinMaxCalibrator"}
_TELL_EVERY = 50

# Copies a batch to the device; returns where it lies there.
Upload = Callable[[Float32Array], int]


class Feed(Protocol):
    """Where a calibrator's batches and scales come from."""

    batch: int

    def next_batch(self) -> Optional[int]:
        """Device address of the next batch, None where there is none."""
        ...

    def known_scales(self) -> Optional[bytes]:
        """TensorRT's calibration cache, None where it must calibrate."""
        ...

    def keep_scales(self, scales: bytes) -> None:
        """What TensorRT found."""
        ...


class TableFeed:
    """All scales are known: TensorRT need not run the network."""

    batch = 1

    def __init__(self, cache: str) -> None:
        self._cache = cache

    def next_batch(self) -> Optional[int]:
        return None

    def known_scales(self) -> Optional[bytes]:
        return self._cache.encode()

    def keep_scales(self, scales: bytes) -> None:
        """Ours are the original."""


class PictureFeed:
    """Batches of pictures, prepared as the pipeline does it.

    Args:
        batches: (B, 3, H, W) float32 each; an incomplete one at the end is left out.
        batch: Pictures in one.
        upload: Copies one to the device.
        store: File of the scales.
        emit: Told how far it is.
    """

    def __init__(
        self,
        batches: Iterator[Float32Array],
        batch: int,
        upload: Upload,
        store: Path,
        emit: Emit,
    ) -> None:
        self.batch = batch
        self._batches = batches
        self._upload = upload
        self._store = store
        self._emit = emit
        self._fed = 0

    def next_batch(self) -> Optional[int]:
        batch = next(self._batches, None)
        if batch is None:
            return None
        before, self._fed = self._fed, self._fed + len(batch)
        if self._fed // _TELL_EVERY > before // _TELL_EVERY:
            self._emit("say", text=f"calibrating: {self._fed} pictures")
        return self._upload(batch)

    def known_scales(self) -> Optional[bytes]:
        return self._store.read_bytes() if self._store.is_file() else None

    def keep_scales(self, scales: bytes) -> None:
        keep_file(self._store, scales)


def batches_of(folder: Path, recipe: Recipe, shape: Shape) -> Iterator[Float32Array]:
    """The pictures of a folder in batches of ``shape``, prepared for the network.

    Raises:
        DatasetError: The folder holds none, or a file is damaged.
    """
    count, _, height, width = shape
    size = (width, height)
    prepare = OnnxDetector(_Unused(), recipe, size=size, thresholds=Thresholds(0.5, 0.5))
    batch: List[Float32Array] = []
    for image in CalibrationImages(folder):
        batch.append(prepare.network_input(image)[0])
        if len(batch) == count:
            yield np.stack(batch)
            batch = []


class DeviceUpload:
    """Copies batches into one buffer on the first GPU."""

    def __init__(self, shape: Shape, device: Optional[Device] = None) -> None:
        """Take the buffers. Raises EngineError where there is no GPU."""
        self._device = device or Device.open()
        size = int(np.prod(shape)) * np.dtype(np.float32).itemsize
        self._stream = self._device.stream()
        self._pinned = self._device.pinned(size)
        self._buffer = self._device.allocate(size)

    def __call__(self, batch: Float32Array) -> int:
        """Copy, and wait until it is there."""
        self._pinned.array.view(np.float32)[:] = batch.ravel()
        self._stream.upload(self._buffer.pointer, self._pinned.pointer, self._pinned.size)
        self._stream.synchronize()
        return int(self._buffer.pointer)


class _Unused:
    """A detector that only prepares pictures needs no network."""

    input_shape: Tuple[object, ...] = ()
    output_shape: Tuple[object, ...] = ()

    def run(self, batch: Float32Array) -> Float32Array:
        raise NotImplementedError


def feed_for(
    calibration: Calibration,
    shape: Shape,
    emit: Emit,
    upload: Callable[[Shape], Upload] = DeviceUpload,
) -> Feed:
    """What a calibration is fed from.

    Raises:
        DatasetError: There are no pictures.
        EngineError: There is no GPU to run them on.
    """
    if calibration.pictures is None:
        return TableFeed(calibration.cache or "")
    pictures = calibration.pictures
    batches = batches_of(pictures.folder, pictures.recipe, shape)
    return PictureFeed(batches, shape[0], upload(shape), pictures.store, emit)


def make_calibrator(trt: Any, algorithm: str, feed: Feed) -> Any:
    """TensorRT's calibrator over ``feed``; its base class comes with the TensorRT in use."""
    base: Any = getattr(trt, _BASES[algorithm])

    class Calibrator(base):  # type: ignore[misc]
        def __init__(self) -> None:
            base.__init__(self)

        def get_batch_size(self) -> int:
            return feed.batch

        def get_batch(self, names: Any) -> Optional[List[int]]:  # noqa: ARG002 - one input
            address = feed.next_batch()
            return None if address is None else [address]

        def read_calibration_cache(self) -> Optional[bytes]:
            return feed.known_scales()

        def write_calibration_cache(self, cache: Any) -> None:
            feed.keep_scales(bytes(cache))

    return Calibrator()
