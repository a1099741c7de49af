"""Choose what differs most: farthest-first traversal, and its streaming form."""

from typing import Callable, Generic, List, Optional, Tuple, TypeVar

import numpy as np

from edgecount.records import Float32Array, Int64Array

Item = TypeVar("Item")

# Pictures closer than this are the same.
_SAME = 1e-4
# What remains of a full pool. Fewer would be thrown away too early, more would be sorted often.
_KEPT = 0.75


def farthest_first(
    points: Float32Array, count: int, near: Optional[Float32Array] = None
) -> Tuple[Int64Array, Float32Array]:
    """Order points so that each is as far as can be from all before it (Gonzalez 1985).

    Args:
        points: (n, d) float32.
        count: How many to order at most.
        near: (n,) float32, distances to what was chosen before; where None the point
            farthest from the mean comes first.

    Returns:
        Indices, and the distance of each from those before it; both end before the first
        point that equals one that was chosen.
    """
    chosen: List[int] = []
    radii: List[float] = []
    if near is None:
        near = np.full(len(points), np.inf, np.float32)
        start = _distances(points, points.mean(axis=0)) if len(points) else near
    else:
        start = near
    while len(chosen) < min(count, len(points)):
        best = int(np.argmax(near if chosen else start))
        if near[best] <= _SAME:
            break
        chosen.append(best)
        radii.append(float(near[best]))
        near = np.minimum(near, _distances(points, points[best]))
    return np.array(chosen, np.int64), np.array(radii, np.float32)


def nearest(points: Float32Array, others: Float32Array) -> Float32Array:
    """(n,) float32: the distance of each point to the nearest of ``others``."""
    near = np.full(len(points), np.inf, np.float32)
    for other in others:
        near = np.minimum(near, _distances(points, other))
    return near


class DiversePool(Generic[Item]):
    """Keeps the most different of a stream of items, a bounded number.

    A new item is kept if it is farther than a radius from all that are there. When the pool is
    full it is thinned by :func:`farthest_first`, and the radius grows to the least distance
    that remains (the doubling algorithm of Charikar et al. 1997, with the radius taken from
    the data). With fewer items than ``capacity`` only duplicates are dropped.
    """

    def __init__(self, capacity: int, drop: Callable[[Item], None]) -> None:
        """``drop`` is told of each item that was kept and is thrown away."""
        self.items: List[Item] = []
        self.radius = _SAME
        self._capacity = capacity
        self._points = np.empty((0, 0), np.float32)
        self._drop = drop

    @property
    def points(self) -> Float32Array:
        """(items, d): the embeddings."""
        return self._points[: len(self.items)]

    def offer(self, point: Float32Array, make: Callable[[], Item]) -> bool:
        """Keep an item if it differs from all others; it is made only then."""
        if not len(self._points):
            self._points = np.empty((self._capacity, len(point)), np.float32)
        there = self.points
        if len(there) and _distances(there, point).min() <= self.radius:
            return False
        if len(there) == self._capacity:
            self._thin()
            return self.offer(point, make)  # the radius has grown: it may be too near now
        item = make()
        self._points[len(there)] = point
        self.items.append(item)
        return True

    def _thin(self) -> None:
        kept = max(1, int(len(self.items) * _KEPT))
        order, radii = farthest_first(self.points, kept)
        survivors = set(order.tolist())
        for index, item in enumerate(self.items):
            if index not in survivors:
                self._drop(item)
        self._points[: len(order)] = self.points[order]
        self.items = [self.items[i] for i in order]
        self.radius = float(radii[-1])


def _distances(points: Float32Array, point: Float32Array) -> Float32Array:
    difference = points - point
    squares: Float32Array = np.einsum("nd,nd->n", difference, difference)
    return np.sqrt(squares)
