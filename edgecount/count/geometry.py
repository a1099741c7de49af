"""Anchors, lines and polygons in one length unit: the diagonal of the picture.

Settings are normalised per axis; distances are not comparable there unless the picture is
square. All geometry of the counters therefore happens in *diagonal units*: pixels divided
by the length of the picture's diagonal. The same scene gives the same numbers at every
resolution of one aspect ratio.
"""

from dataclasses import dataclass
from math import hypot
from typing import List, Sequence, Tuple

import numpy as np
from numpy.typing import NDArray
from typing_extensions import Literal

from edgecount.config import LineSettings, Point

FloatArray = NDArray[np.float64]
IndexArray = NDArray[np.intp]
MaskArray = NDArray[np.bool_]

Anchor = Literal["center", "bottom", "head"]
# The centre of a head lies this far under the top of the box of its whole body.
HEAD_BELOW_TOP = 0.065
_HEIGHT_FRACTION = {"center": 0.5, "bottom": 1.0, "head": HEAD_BELOW_TOP}


class Canvas:
    """The size of a picture.

    Attributes:
        width: In pixels.
        height: In pixels.
        diagonal: Length of the diagonal in pixels.
        scale: What a normalised x and y are multiplied with to get diagonal units.
    """

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self.diagonal = hypot(width, height)
        self.scale = width / self.diagonal, height / self.diagonal

    def same_shape(self, other: "Canvas") -> bool:
        """Whether diagonal units mean the same in both (within a pixel of rounding)."""
        return abs(self.scale[0] - other.scale[0]) * self.diagonal < 1.0

    def points(self, normalised: Sequence[Point]) -> FloatArray:
        """Turn normalised points into (N, 2) diagonal units."""
        return np.asarray(normalised, np.float64).reshape(-1, 2) * self.scale


def anchors(boxes: NDArray[np.float32], kind: Anchor) -> FloatArray:
    """Where a person is, for counting.

    Args:
        boxes: (N, 4) ``x1, y1, x2, y2``.
        kind: ``center`` of the box (heads), its ``bottom`` centre (bodies: the feet), or
            the centre of the ``head`` in a box around a whole body.

    Returns:
        (N, 2) in the unit of the boxes.
    """
    corners = np.asarray(boxes, np.float64).reshape(-1, 4)
    result = np.empty((len(corners), 2))
    result[:, 0] = 0.5 * (corners[:, 0] + corners[:, 2])
    fraction = _HEIGHT_FRACTION[kind]
    result[:, 1] = corners[:, 1] * (1.0 - fraction) + corners[:, 3] * fraction
    return result


@dataclass(frozen=True)
class LineGeometry:
    """Several lines as arrays, in diagonal units.

    Attributes:
        normals: (L, 2) unit vectors to the right of each line ("in" walks along them).
        offsets: (L,) so that ``point @ normal - offset`` is the signed distance.
        along: (L, 2) so that ``point @ along - origin`` is 0 at ``from`` and 1 at ``to``.
        origins: (L,).
    """

    normals: FloatArray
    offsets: FloatArray
    along: FloatArray
    origins: FloatArray

    @staticmethod
    def of(lines: Sequence[LineSettings], canvas: Canvas) -> "LineGeometry":
        """Lay the lines over a picture."""
        start = canvas.points([line.start for line in lines])
        span = canvas.points([line.end for line in lines]) - start
        length = np.hypot(span[:, 0], span[:, 1])[:, None]
        # y grows downwards, so facing along the line (dx, dy) the right hand is (-dy, dx).
        normals = np.stack((-span[:, 1], span[:, 0]), axis=1) / length
        along = span / length**2
        return LineGeometry(
            normals, np.sum(start * normals, axis=1), along, np.sum(start * along, axis=1)
        )

    def distances(self, points: FloatArray) -> FloatArray:
        """(N, L) signed distances of (N, 2) points; positive is the right-hand side."""
        result: FloatArray = points @ self.normals.T
        result -= self.offsets
        return result

    def position(self, point: FloatArray, line: int) -> float:
        """Where beside the line a point is: 0 at ``from``, 1 at ``to``, outside beyond them."""
        return float(point @ self.along[line] - self.origins[line])


class Polygons:
    """Several polygons, asked together.

    A point on a border may fall on either side; two polygons that share a side never both
    hold it (each side is half-open in y). Algorithm: even-odd rule as in W. R. Franklin's
    PNPOLY.

    Args:
        corners: For each polygon its (K, 2) corners in order, K ≥ 3.
    """

    def __init__(self, corners: Sequence[FloatArray]) -> None:
        self._corners = list(corners)
        start = np.concatenate([np.zeros((0, 2)), *corners])
        end = np.concatenate([np.zeros((0, 2)), *(np.roll(c, -1, axis=0) for c in corners)])
        rise = end[:, 1] - start[:, 1]
        self._low, self._high = start[:, 1], end[:, 1]
        self._slope = (end[:, 0] - start[:, 0]) / np.where(rise == 0.0, 1.0, rise)
        self._foot = start[:, 0] - self._slope * start[:, 1]
        self._first_side = np.cumsum([0, *(len(c) for c in corners)])[:-1]
        self.box_low = np.array([c.min(axis=0) for c in corners]).reshape(-1, 2)
        self.box_high = np.array([c.max(axis=0) for c in corners]).reshape(-1, 2)

    def __len__(self) -> int:
        return len(self._corners)

    def hold(self, points: FloatArray) -> MaskArray:
        """(N, P): which of (N, 2) points lie in which polygon."""
        if not self._corners:
            return np.zeros((len(points), 0), np.bool_)
        x, y = points[:, :1], points[:, 1:]
        hits = (self._low > y) != (self._high > y)
        hits &= x < self._slope * y + self._foot
        result: MaskArray = np.logical_xor.reduceat(hits, self._first_side, axis=1)
        return result

    def chords(self, start: FloatArray, end: FloatArray, polygon: int) -> List[Tuple[float, float]]:
        """The parts of the way from ``start`` to ``end`` that lie in one polygon.

        Returns:
            ``(enter, leave)`` as fractions of the way, 0..1, in order; empty when it is missed.
        """
        cuts = [0.0, *_cuts(start, end, self._corners[polygon]), 1.0]
        middles = np.array([0.5 * (a + b) for a, b in zip(cuts, cuts[1:])])[:, None]
        held = self.hold(start + middles * (end - start))[:, polygon]
        result: List[Tuple[float, float]] = []
        for enter, leave, is_in in zip(cuts, cuts[1:], held):
            if not is_in or leave <= enter:
                continue
            if result and result[-1][1] == enter:
                result[-1] = (result[-1][0], leave)
            else:
                result.append((enter, leave))
        return result


def _cuts(start: FloatArray, end: FloatArray, polygon: FloatArray) -> List[float]:
    """Fractions of the way, sorted, at which it meets a side of the polygon."""
    way = end - start
    sides = np.roll(polygon, -1, axis=0) - polygon
    offset = polygon - start
    cross = way[0] * sides[:, 1] - way[1] * sides[:, 0]
    parallel = cross == 0.0
    divisor = np.where(parallel, 1.0, cross)
    on_way = (offset[:, 0] * sides[:, 1] - offset[:, 1] * sides[:, 0]) / divisor
    on_side = (offset[:, 0] * way[1] - offset[:, 1] * way[0]) / divisor
    hit = ~parallel & (on_way > 0.0) & (on_way < 1.0) & (on_side >= 0.0) & (on_side <= 1.0)
    return sorted(float(fraction) for fraction in on_way[hit])
