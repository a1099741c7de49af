"""Overlapping tiles of a frame, so that small heads reach the network large enough.

Slicing with overlap as in SAHI (Akyon et al. 2022, arXiv:2202.06934), but for what is done at
the seams: each tile answers for a part of the frame alone, so that a head which one tile's
border cuts is its neighbour's, which sees the whole of it.
"""

import math
from dataclasses import dataclass
from typing import List, NamedTuple, Optional, Sequence, Tuple

import numpy as np

from edgecount.config import TileSettings
from edgecount.infer.heads.base import Candidates
from edgecount.records import Float32Array, UInt8Array

# Of an overlap: how near an inner border a candidate's centre may be. Half would be a line that
# a centre can miss on both sides, since two tiles do not see a head at quite the same place.
SEAM = 0.375


# Of an overlap: from which size on the whole frame tells of a head, too.
LARGE = 0.5


class _Span(NamedTuple):
    """One axis of a tile: its pixels, and the centres that it answers for."""

    start: int
    size: int
    low: float
    high: float


@dataclass(frozen=True)
class Tile:
    """A rectangle of the frame, in source pixels, and the candidates that it answers for.

    A candidate whose centre lies outside ``low`` … ``high`` is a neighbour's. Neighbours
    share a quarter of their overlap; what both find there, NMS makes one. Infinite at the
    frame's own border.

    Attributes:
        x, y: Its first pixel.
        width, height: Its size.
        low: Least x and y of a centre.
        high: Greatest x and y of a centre.
        least: A candidate is wider than the first or taller than the second.
        most: Greatest width and height of a candidate.
    """

    x: int
    y: int
    width: int
    height: int
    low: Tuple[float, float] = (-math.inf, -math.inf)
    high: Tuple[float, float] = (math.inf, math.inf)
    least: Tuple[float, float] = (0.0, 0.0)
    most: Tuple[float, float] = (math.inf, math.inf)

    def of(self, image: UInt8Array) -> UInt8Array:
        """A view of its part of the frame."""
        return image[self.y : self.y + self.height, self.x : self.x + self.width]

    def own(self, found: Candidates) -> Candidates:
        """Of candidates in pixels of the tile those that it answers for, in source pixels."""
        boxes = found.boxes + _pair((self.x, self.y) * 2)
        centres = (boxes[:, :2] + boxes[:, 2:]) * np.float32(0.5)
        sides = boxes[:, 2:] - boxes[:, :2]
        mine = ((centres >= _pair(self.low)) & (centres <= _pair(self.high))).all(axis=1)
        mine &= (sides <= _pair(self.most)).all(axis=1) & (sides > _pair(self.least)).any(axis=1)
        return Candidates(boxes[mine], found.scores[mine], found.classes[mine])


def cut(width: int, height: int, tiles: TileSettings) -> List[Tile]:
    """Tiles of one size that cover a frame, row by row; behind them the whole where asked for.

    Neighbours overlap by ``tiles.overlap`` of a tile's side at least, so a head that is
    smaller lies wholly in one of them. Origins are even, and sizes are where the frame's is:
    an NV12 picture can be cut without parting a chroma sample.

    With the whole frame, tiles tell of no head that is larger than the overlap, and the whole
    of none that is smaller than half of it.
    """
    across = _spans(width, tiles.columns, tiles.overlap)
    down = _spans(height, tiles.rows, tiles.overlap)
    shared = _shared(across), _shared(down)
    most = shared if tiles.whole else (math.inf, math.inf)
    found = [
        Tile(x.start, y.start, x.size, y.size, (x.low, y.low), (x.high, y.high), most=most)
        for y in down
        for x in across
    ]
    if tiles.whole:
        found.append(Tile(0, 0, width, height, least=(LARGE * shared[0], LARGE * shared[1])))
    return found


def merge(parts: Sequence[Candidates]) -> Candidates:
    """The candidates of all tiles of a frame, in the order of the tiles."""
    boxes, scores, classes = zip(*parts)
    return Candidates(np.concatenate(boxes), np.concatenate(scores), np.concatenate(classes))


def scale(frame: Tuple[int, int], size: Tuple[int, int], tiles: Optional[TileSettings]) -> float:
    """Pixels of the network's input for each pixel of the frame.

    Args:
        frame: Width and height of the frame, pixels.
        size: Width and height of the network's input.
        tiles: How the frame is cut; None for not at all.
    """
    if tiles is not None:
        tile = cut(*frame, tiles)[0]
        frame = tile.width, tile.height
    return min(size[0] / frame[0], size[1] / frame[1])


def overlap(width: int, height: int, tiles: TileSettings) -> float:
    """The largest side of a head that no seam cuts, source pixels."""
    spans = (_spans(width, tiles.columns, tiles.overlap), _spans(height, tiles.rows, tiles.overlap))
    return min(_shared(axis) for axis in spans)


def _shared(axis: List[_Span]) -> float:
    """Pixels that neighbours on an axis share at least; infinite where there is one tile."""
    return min([a.start + a.size - b.start for a, b in zip(axis, axis[1:])], default=math.inf)


def _spans(length: int, count: int, overlap: float) -> List[_Span]:
    size = _size(length, count, overlap)
    starts = [i * (length - size) // max(1, count - 1) // 2 * 2 for i in range(count)]
    shared = [left + size - right for left, right in zip(starts, starts[1:])]
    lows = [-math.inf, *(start + SEAM * s for start, s in zip(starts[1:], shared))]
    highs = [*(start + size - SEAM * s for start, s in zip(starts, shared)), math.inf]
    return [_Span(start, size, low, high) for start, low, high in zip(starts, lows, highs)]


def _size(length: int, count: int, overlap: float) -> int:
    """The least size, even where ``length`` is, with which ``count`` tiles reach the end."""
    size = math.ceil(length / (1 + (count - 1) * (1 - overlap)))
    size += (length - size) % 2
    while (count - 1) * (int(size * (1 - overlap)) // 2 * 2) + size < length:
        size += 2
    return size


def _pair(values: Tuple[float, ...]) -> Float32Array:
    return np.array(values, np.float32)
