"""Watch a network's activations while pictures go through it.

Pictures are read one after the other and forgotten; what remains of each tensor is one
histogram (:mod:`.histogram`), so memory does not grow with their number.
"""

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Callable, Dict, Iterable, Iterator, List, Mapping, Optional, Sequence, Tuple

import numpy as np

from edgecount.errors import DatasetError
from edgecount.infer.detector import OnnxDetector, Thresholds, check_input, input_size
from edgecount.infer.recipe import Recipe
from edgecount.records import Float32Array, UInt8Array
from edgecount.toolchain.quantize import watched
from edgecount.toolchain.quantize.histogram import Histogram, Magnitudes
from edgecount.toolchain.quantize.watched import Model, WatchedNetwork

# ONNX Runtime holds its activations itself while it hands out a copy, and its arena more.
_COPIES = 3
_MIB = 1 << 20

Progress = Callable[[int], None]


@dataclass(frozen=True)
class GatherSettings:
    """How pictures are run.

    Attributes:
        size: Width and height of the network's input; the recipe's where None.
        batch: Pictures in one call; 1 where the model takes no more.
        workers: Calls side by side, one CPU thread each; one for each core where None.
        memory_mib: Memory that activations may take, MiB: where they need more, fewer
            calls run side by side.
    """

    size: Optional[Tuple[int, int]] = None
    batch: int = 1
    workers: Optional[int] = None
    memory_mib: int = 512


@dataclass(frozen=True)
class Gathered:
    """What was seen of a network's activations.

    Attributes:
        model_sha256: Of the ONNX file.
        images: How many pictures were run.
        input: The recipe's input section, at the size that was run.
        histograms: Tensor → distribution, in the order of the graph.
        makers: Tensor → a description of the node that makes it.
    """

    model_sha256: str
    images: int
    input: Dict[str, Any]
    histograms: Dict[str, Histogram]
    makers: Mapping[str, str]


def gather(
    model: Model,
    images: Iterable[UInt8Array],
    recipe: Recipe,
    tensors: Optional[Sequence[str]] = None,
    settings: Optional[GatherSettings] = None,
    progress: Optional[Progress] = None,
) -> Gathered:
    """Run pictures through a network and gather the magnitudes of its activations.

    Pictures are prepared by :meth:`~edgecount.infer.detector.OnnxDetector.prepare`, the
    pipeline's own function. What is counted depends neither on batches nor on workers.

    Args:
        model: FP32 ONNX file, or the model itself.
        images: (H, W, 3) uint8 BGR each, of any size; read once, one after the other.
        recipe: The model's recipe.
        tensors: Activations to watch; :func:`~.watched.tensors_read` where None.
        settings: How they are run.
        progress: Called with the number of pictures done, from any thread.

    Raises:
        ModelError: The model cannot be loaded, is quantised already, or does not fit its recipe.
        EngineError: It does not run.
        DatasetError: There is no picture, or an activation is not finite; the message names
            tensor, node and picture.
    """
    settings = settings or GatherSettings()
    proto, digest = watched.load(model)
    names = watched.tensors_read(proto) if tensors is None else tensors
    network = WatchedNetwork(proto, names)
    path = model if isinstance(model, Path) else Path(recipe.file)
    check_input(network, path)
    width, height = input_size(network, recipe, path, settings.size)
    thresholds = Thresholds(recipe.low_threshold, recipe.nms_iou)
    detector = OnnxDetector(network, recipe, size=(width, height), thresholds=thresholds)
    run = _Pass(network, detector, iter(images), settings, progress)
    counted = run.all()
    found = {name: counted[name].histogram(name) for name in network.watched}
    return Gathered(
        model_sha256=digest,
        images=run.done,
        input={**recipe.input.model_dump(mode="json"), "width": width, "height": height},
        histograms={name: seen for name, seen in found.items() if seen is not None},
        makers=network.makers,
    )


class _Pass:
    """One pass over the pictures, by several workers."""

    def __init__(
        self,
        network: WatchedNetwork,
        detector: OnnxDetector,
        images: Iterator[UInt8Array],
        settings: GatherSettings,
        progress: Optional[Progress],
    ) -> None:
        self._network = network
        self._detector = detector
        self._images = images
        self._settings = settings
        self._progress = progress or (lambda _done: None)
        # check_input lets pass what takes one picture, or any number.
        self._batch = 1 if network.input_shape[0] == 1 else settings.batch
        self._lock = threading.Lock()
        self._taken = 0
        self.done = 0

    def all(self) -> Dict[str, Magnitudes]:
        """Run every picture; the first batch tells how many workers the memory is for."""
        total = self._empty()
        size = self._count_batch(total)
        if not size:
            raise DatasetError("there is no picture to calibrate with")
        workers = self._workers(size)
        with ThreadPoolExecutor(workers) as pool:
            parts = list(pool.map(lambda _: self._work(), range(workers)))
        for part in parts:
            for name, magnitudes in part.items():
                total[name].merge(magnitudes)
        return total

    def _workers(self, size: int) -> int:
        asked = self._settings.workers or os.cpu_count() or 1
        return max(1, min(asked, self._settings.memory_mib * _MIB // (size * _COPIES)))

    def _empty(self) -> Dict[str, Magnitudes]:
        return {name: Magnitudes() for name in self._network.watched}

    def _work(self) -> Dict[str, Magnitudes]:
        counted = self._empty()
        try:
            while self._count_batch(counted):
                pass
        except BaseException:
            self._stop()
            raise
        return counted

    def _count_batch(self, counted: Mapping[str, Magnitudes]) -> int:
        """Count the next batch. Returns the bytes of its activations; 0 at the end."""
        first, images = self._take()
        if not images:
            return 0
        values = self._network.activations(self._prepared(images))
        for name, value in zip(self._network.watched, values):
            self._count(counted[name], name, value, first)
        with self._lock:
            self.done += len(images)
            self._progress(self.done)
        return sum(value.nbytes for value in values)

    def _count(self, counted: Magnitudes, name: str, value: Float32Array, first: int) -> None:
        try:
            counted.add(value)
        except FloatingPointError:
            raise DatasetError(self._not_finite(name, value, first)) from None

    def _take(self) -> Tuple[int, List[UInt8Array]]:
        """The index of the next picture, and a batch of pictures; an empty one at the end."""
        with self._lock:
            first = self._taken
            images = list(islice(self._images, self._batch))
            self._taken += len(images)
        return first, images

    def _stop(self) -> None:
        """The other workers need not go on."""
        with self._lock:
            self._images = iter(())

    def _prepared(self, images: Sequence[UInt8Array]) -> Float32Array:
        width, height = self._detector.size
        batch = np.empty((len(images), 3, height, width), np.float32)
        for image, out in zip(images, batch):
            self._detector.prepare(image, out)
        return batch

    def _not_finite(self, name: str, value: Float32Array, first: int) -> str:
        sound = np.isfinite(value).reshape((*value.shape[:1], -1)).all(axis=-1)
        row = int(np.argmin(sound))
        maker = self._network.makers.get(name, "the input")
        return (
            f"activation {name!r} of {maker} is NaN or infinite for picture {first + row} "
            "(counted from 0), and no activation before it that was watched is: the FP32 model "
            "itself fails there. Run it on that picture, and mend the weights of that node or "
            "leave the picture out"
        )
