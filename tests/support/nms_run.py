"""Runs :class:`Postprocess` on a device, real or emulated, and compares detections."""

from typing import Any, List, Sequence, Tuple

import numpy as np
from numpy.typing import NDArray
from support.device_memory import download, upload

from edgecount.config import Point
from edgecount.infer.cuda import compiler
from edgecount.infer.cuda.postprocess import PICTURE, DetectionBuffers, Options, Postprocess
from edgecount.infer.detector import Thresholds
from edgecount.infer.letterbox import Letterbox
from edgecount.infer.recipe import Recipe
from edgecount.records import Detections

_POISON = 0xAD


class NmsRun:
    """The launcher with its buffers, for one batch of outputs."""

    def __init__(
        self,
        device: Any,
        stream: Any,
        recipe: Recipe,
        size: Tuple[int, int],
        outputs: Sequence[NDArray[Any]],
        *,
        thresholds: Thresholds,
        masks: Sequence[Sequence[Sequence[Point]]] = (),
        most: int = 1024,
        load: Any = compiler.load,
    ) -> None:
        self.device, self.stream, self.batch, self.most = device, stream, len(outputs), most
        self.post = Postprocess(
            device,
            stream,
            recipe,
            size=size,
            output_shape=outputs[0].shape,
            output_dtype=outputs[0].dtype,
            thresholds=thresholds,
            ignore=masks,
            max_batch=len(outputs),
            options=Options(max_detections=most),
            load=load,
        )
        self.output = upload(device, stream, np.stack(outputs))
        self.found = device.allocate(DetectionBuffers.bytes_for(self.batch, most))
        self.pictures = device.allocate(PICTURE.itemsize * self.batch)

    def describe(self, boxes: Sequence[Letterbox], cameras: Sequence[int]) -> None:
        """Say how the pictures were fitted in, and whose they are."""
        records = np.zeros(self.batch, PICTURE)
        for record, box, camera in zip(records, boxes, cameras):
            self.post.describe(record, box, camera)
        self.pictures.close()
        self.pictures = upload(self.device, self.stream, records)

    def launch(self) -> None:
        """Enqueue both kernels."""
        found = DetectionBuffers.at(self.found.pointer, self.batch, self.most)
        self.post.launch(self.stream, self.batch, self.output.pointer, self.pictures.pointer, found)

    def close(self) -> None:
        """Free the buffers."""
        for buffer in (self.output, self.found, self.pictures):
            buffer.close()
        self.post.close()

    def run(self, boxes: Sequence[Letterbox], cameras: Sequence[int]) -> List[Detections]:
        """The detections of each picture."""
        self.describe(boxes, cameras)
        size = DetectionBuffers.bytes_for(self.batch, self.most)
        self.stream.fill(self.found.pointer, _POISON, size)
        self.launch()
        raw = download(self.device, self.stream, self.found.pointer, (size,), np.uint8)
        return unpacked(raw, self.batch, self.most)


def unpacked(raw: NDArray[np.uint8], batch: int, most: int) -> List[Detections]:
    """The detections in a block that :meth:`DetectionBuffers.at` laid out."""
    size = batch * most
    boxes = raw[: 16 * size].view(np.float32).reshape(batch, most, 4)
    scores = raw[16 * size : 20 * size].view(np.float32).reshape(batch, most)
    classes = raw[20 * size : 24 * size].view(np.int32).reshape(batch, most)
    count = raw[24 * size :].view(np.int32)
    return [
        Detections(boxes[b, :n].copy(), scores[b, :n].copy(), classes[b, :n].copy())
        for b, n in enumerate(count)
    ]


def check(found: Detections, wanted: Detections, ulps: int) -> None:
    """Fail unless both say the same, to ``ulps`` of the largest number of each column."""
    assert len(found) == len(wanted)
    assert (found.classes == wanted.classes).all()
    for have, want in ((found.boxes, wanted.boxes), (found.scores, wanted.scores)):
        scale = np.spacing(np.abs(want).max(initial=1.0, axis=0))
        assert (np.abs(have - want) <= ulps * scale).all()
