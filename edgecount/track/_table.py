"""The tracks of one camera as arrays (a structure of arrays), by rising id."""

from typing import Tuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from edgecount.records import Float32Array, Int64Array
from edgecount.track import _kalman

KALMAN = slice(0, _kalman.ROWS)
EVIDENCE, SCORE, HIT_RATE = range(_kalman.ROWS, _kalman.ROWS + 3)
REALS = _kalman.ROWS + 3

ID, CONFIRMED, CLASS, UNSEEN_US = range(4)
INTEGERS = 4

_FIRST_CAPACITY = 64


class Table:
    """A growing table with one column per track.

    Attributes:
        reals: (23, N) float32: 20 rows of ``_kalman``, then the evidence, the newest
            score, and the running share of frames with a match.
        integers: (4, N) int64: id, confirmed (0 or 1), class,
            microseconds since the last match.
    """

    def __init__(self) -> None:
        self._real_store: Float32Array = np.zeros((REALS, _FIRST_CAPACITY), np.float32)
        self._integer_store: Int64Array = np.zeros((INTEGERS, _FIRST_CAPACITY), np.int64)
        self._resize(0)

    def __len__(self) -> int:
        return len(self.integers[0])

    def clear(self) -> None:
        """Remove all tracks."""
        self._resize(0)

    def keep(self, mask: NDArray[np.bool_]) -> None:
        """Remove the tracks for which ``mask`` (N,) is false; the others keep their order."""
        reals, integers = self.reals[:, mask], self.integers[:, mask]
        self._resize(reals.shape[1])
        self.reals[:], self.integers[:] = reals, integers

    def append(self, count: int) -> Tuple[Float32Array, Int64Array]:
        """Add ``count`` tracks of zeros at the end; give views of their columns."""
        size = len(self)
        capacity = self._real_store.shape[1]
        while capacity < size + count:
            capacity *= 2
        if capacity > self._real_store.shape[1]:
            self._real_store = _widened(self._real_store, capacity)
            self._integer_store = _widened(self._integer_store, capacity)
        self._resize(size + count)
        reals, integers = self.reals[:, size:], self.integers[:, size:]
        reals[:], integers[:] = 0, 0
        return reals, integers

    def _resize(self, size: int) -> None:
        self.reals: Float32Array = self._real_store[:, :size]
        self.integers: Int64Array = self._integer_store[:, :size]


_Scalar = TypeVar("_Scalar", bound=np.generic)


def _widened(store: NDArray[_Scalar], capacity: int) -> NDArray[_Scalar]:
    wide = np.zeros((store.shape[0], capacity), store.dtype)
    wide[:, : store.shape[1]] = store
    return wide
