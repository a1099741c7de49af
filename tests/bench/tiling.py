#!/usr/bin/env python3
"""Small heads: the whole frame, a larger input and tiles side by side, on a clip with bodies.

    python tests/bench/tiling.py CLIP GT [--model head-n] [--every 10] [--score 0.4 …]
        [--variant 416 --variant 960x736 --variant 416:2x2@0.2+whole …] [--picture OUT.png]

GT is MOTChallenge ground truth of whole bodies. A detection is somebody's head where its centre
lies in the upper third of an annotated body; bodies taller than 60 px of the source are to
be found. A second head of one body is a double: what a seam would make. Time is the least of
all frames' for each part (one thread), the variants taking turns on each frame.
"""

import argparse
import json
from dataclasses import dataclass, field
from pathlib import Path
from time import perf_counter
from typing import Dict, List, Optional, Sequence, Tuple

import cv2
import numpy as np

from edgecount.config import ModelSettings, TileSettings
from edgecount.infer import detector
from edgecount.infer.detector import OnnxDetector
from edgecount.infer.onnxruntime import open_network
from edgecount.records import Detections, Float32Array, UInt8Array
from edgecount.toolchain.evaluate.motchallenge import read_rows

TALL = 60.0
HEAD = 1 / 3  # part of a body
ABOVE = 0.1  # annotated boxes often begin below the hair


@dataclass
class Tally:
    """What one variant saw at one score."""

    people: int = 0
    found: int = 0
    false: int = 0
    doubles: int = 0

    def add(self, bodies: Float32Array, tall: Sequence[bool], heads: Float32Array) -> None:
        taken = np.zeros(len(bodies), np.bool_)
        self.people += sum(tall)
        for head in heads:
            near = _bodies_under(bodies, head)
            free = [i for i in near if not taken[i]]
            if free:
                taken[free[0]] = True
                self.found += bool(tall[free[0]])
            elif len(near):
                self.doubles += 1
            else:
                self.false += 1


@dataclass
class Variant:
    """A way to look at a frame."""

    name: str
    finder: OnnxDetector
    tiles: Optional[TileSettings]
    seconds: List[float] = field(default_factory=list)
    tallies: Dict[float, Tally] = field(default_factory=dict)

    def look(self, image: UInt8Array) -> Detections:
        began = perf_counter()
        if self.tiles is None:
            (seen,) = self.finder.detect([image])
        else:
            seen = self.finder.detect_tiled(image, self.tiles)
        self.seconds.append(perf_counter() - began)
        return seen


def _bodies_under(bodies: Float32Array, head: Float32Array) -> List[int]:
    """Bodies whose upper part holds a head's centre, the nearest first."""
    x, y = (head[0] + head[2]) / 2, (head[1] + head[3]) / 2
    height = bodies[:, 3] - bodies[:, 1]
    from_top = y - bodies[:, 1]
    inside = (bodies[:, 0] <= x) & (x <= bodies[:, 2])
    inside &= (from_top >= -ABOVE * height) & (from_top <= HEAD * height)
    distance = np.abs((bodies[:, 0] + bodies[:, 2]) / 2 - x) + np.abs(from_top - height / 8)
    return [int(i) for i in np.argsort(distance) if inside[i]]


def _variant(name: str, model: str, scores: Sequence[float]) -> Variant:
    size, _, tiles = name.partition(":")
    shape, _, whole = tiles.partition("+")
    shape, _, overlap = shape.partition("@")
    width, _, height = size.partition("x")
    sides = int(width), int(height or width)
    file = Path(model)
    given = {"path": file} if file.is_file() else {"name": model}
    settings = ModelSettings(input_size=sides, **given)
    finder, _ = detector.create(settings, open_network)
    cut = TileSettings.model_validate(shape) if tiles else None
    if cut is not None:
        changes = {"overlap": float(overlap or cut.overlap), "whole": bool(whole)}
        cut = cut.model_copy(update=changes)
    return Variant(name, finder, cut, tallies={s: Tally() for s in scores})


def _frames(clip: str, every: int) -> List[Tuple[int, UInt8Array]]:
    reader, frames, index = cv2.VideoCapture(clip), [], 0
    while True:
        there, image = reader.read()
        if not there:
            return frames
        if index % every == 0:
            frames.append((index, np.asarray(image, np.uint8)))
        index += 1


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clip")
    parser.add_argument("gt", type=Path)
    parser.add_argument("--model", default="head-n", help="name of a shipped model, or ONNX file")
    parser.add_argument("--every", type=int, default=10)
    parser.add_argument("--score", type=float, action="append")
    parser.add_argument("--variant", action="append")
    parser.add_argument("--picture", type=Path, help="draw the fullest frame of the last variant")
    asked = parser.parse_args()
    scores = asked.score or [0.3173]
    names = asked.variant or ["416", "416:2x2", "640", "832", "960"]
    variants = [_variant(name, asked.model, scores) for name in names]
    rows = read_rows(asked.gt)
    fullest: Tuple[int, Optional[UInt8Array]] = (-1, None)
    for index, image in _frames(asked.clip, asked.every):
        bodies = rows.boxes[rows.frames == index + 1]
        tall = (bodies[:, 3] - bodies[:, 1] > TALL).tolist()
        for variant in variants:
            seen = variant.look(image)
            for score, tally in variant.tallies.items():
                tally.add(bodies, tall, seen.boxes[seen.scores >= score])
        heads = seen.boxes[seen.scores >= scores[0]]
        if asked.picture and len(heads) > fullest[0]:
            fullest = (len(heads), _drawn(image, heads, variants[-1].tiles))
    if fullest[1] is not None:
        cv2.imwrite(str(asked.picture), fullest[1])
    frames = len(variants[0].seconds)
    for v in variants:
        for score, t in v.tallies.items():
            shown = {
                "variant": v.name,
                "score": score,
                "recall": round(t.found / t.people, 3),
                "false_per_frame": round(t.false / frames, 2),
                "doubles_per_frame": round(t.doubles / frames, 3),
                "ms_least": round(1e3 * min(v.seconds), 1),
                "ms_median": round(1e3 * float(np.median(v.seconds)), 1),
            }
            print(json.dumps(shown))


def _drawn(image: UInt8Array, heads: Float32Array, tiles: Optional[TileSettings]) -> UInt8Array:
    from edgecount.infer.tiles import cut

    drawn = cv2.resize(image, None, fx=2, fy=2)
    if tiles is not None:
        for tile in cut(image.shape[1], image.shape[0], tiles):
            end = 2 * (tile.x + tile.width), 2 * (tile.y + tile.height)
            cv2.rectangle(drawn, (2 * tile.x, 2 * tile.y), end, (255, 200, 0), 1)
    for box in heads:
        x1, y1, x2, y2 = (2 * box).round().astype(int).tolist()
        cv2.rectangle(drawn, (x1, y1), (x2, y2), (0, 255, 0), 1)
    return np.asarray(drawn, np.uint8)


if __name__ == "__main__":
    main()
