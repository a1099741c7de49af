"""Runs :class:`Postprocess` on a device, real or emulated, and compares detections."""

from typing import Any, List, Optional, Sequence, Tuple

import numpy as np
from numpy.typing import NDArray
from support.device_memory import download, upload

from edgecount.config import Point, TileSettings
from edgecount.infer.cuda import compiler
from edgecount.infer.cuda.postprocess import (
    PART,
    PICTURE,
    DetectionBuffers,
    Options,
    Postprocess,
    describe_part,
    no_picture,
)
from edgecount.infer.detector import Thresholds
from edgecount.infer.letterbox import Letterbox
from edgecount.infer.recipe import Recipe
from edgecount.infer.tiles import cut
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
        tiles: bool = False,
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
            tiles=tiles,
            options=Options(max_detections=most),
            load=load,
        )
        self.output = upload(device, stream, np.stack(outputs))
        self.found = device.allocate(DetectionBuffers.bytes_for(self.batch, most))
        self.pictures = device.allocate(PICTURE.itemsize * self.batch)
        self.parts = device.allocate(PART.itemsize * self.batch)

    def describe(self, boxes: Sequence[Letterbox], cameras: Sequence[int]) -> None:
        """Say how the pictures were fitted in, and whose they are."""
        records = np.zeros(self.batch, PICTURE)
        for record, box, camera in zip(records, boxes, cameras):
            self.post.describe(record, box, camera)
        self.pictures.close()
        self.pictures = upload(self.device, self.stream, records)

    def describe_cut(
        self,
        size: Tuple[int, int],
        frames: Sequence[Tuple[Tuple[int, int], Optional[TileSettings]]],
        cameras: Sequence[int],
    ) -> None:
        """The same for frames of which some are cut; the input has ``size``."""
        records, parts = np.zeros(self.batch, PICTURE), np.zeros(self.batch, PART)
        at = 0
        for number, ((frame, how), camera) in enumerate(zip(frames, cameras)):
            tiles = [None] if how is None else list(cut(*frame, how))
            for part, tile in zip(parts[at:], tiles):
                sides = frame if tile is None else (tile.width, tile.height)
                describe_part(part, Letterbox.fit(*sides, *size), tile)
            if how is None:
                self.post.describe(records[number], Letterbox.fit(*frame, *size), camera)
            else:
                self.post.describe_cut(records[number], *frame, camera)
            mine = parts[at : at + len(tiles)]
            mine["picture"], mine["first"], mine["count"] = number, at, len(tiles)
            at += len(tiles)
        for record in records[len(frames) :]:
            no_picture(record)
        for name, table in (("pictures", records), ("parts", parts)):
            getattr(self, name).close()
            setattr(self, name, upload(self.device, self.stream, table))

    def launch(self) -> None:
        """Enqueue both kernels."""
        found = DetectionBuffers.at(self.found.pointer, self.batch, self.most)
        self.post.launch(
            self.stream,
            self.batch,
            self.output.pointer,
            self.pictures.pointer,
            found,
            self.parts.pointer,
        )

    def close(self) -> None:
        """Free the buffers."""
        for buffer in (self.output, self.found, self.pictures, self.parts):
            buffer.close()
        self.post.close()

    def run(self, boxes: Sequence[Letterbox], cameras: Sequence[int]) -> List[Detections]:
        """The detections of each picture."""
        self.describe(boxes, cameras)
        return self.results()

    def results(self) -> List[Detections]:
        """The detections of each picture that was described."""
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
