"""Where people are: a coarse grid of person-seconds per camera. Metadata, no picture.

Once a second of stream time every confirmed head adds one to the cell that it is in.
"""

from typing import Dict, List

import numpy as np
from numpy.typing import NDArray

from edgecount.count.geometry import Anchor, anchors
from edgecount.records import Tracked

COLUMNS, ROWS = 32, 24
_EVERY_S = 1.0

Grid = NDArray[np.uint32]


class HeatMap:
    """Decides when to look, and which cells are warm. Used from one thread.

    Args:
        anchor: Which point of a box is the person.
    """

    def __init__(self, anchor: Anchor) -> None:
        self._anchor = anchor
        self._next: Dict[str, float] = {}

    def look(self, tracked: Tracked) -> List[int]:
        """The cells (row * COLUMNS + column) in which somebody is, one per head.

        Empty where nobody is, and until a second has passed since the last look.
        """
        info = tracked.info
        due = self._next.get(info.camera)
        if due is not None and due - _EVERY_S <= info.time < due:
            return []
        self._next[info.camera] = info.time + _EVERY_S
        boxes = tracked.tracks.boxes[tracked.tracks.confirmed]
        points = anchors(boxes, self._anchor) / (info.width, info.height)
        cells = np.clip((points * (COLUMNS, ROWS)).astype(np.int64), 0, (COLUMNS - 1, ROWS - 1))
        found: List[int] = (cells[:, 1] * COLUMNS + cells[:, 0]).tolist()
        return found


def empty() -> Grid:
    """A grid (ROWS, COLUMNS) of uint32 in which nobody was."""
    return np.zeros((ROWS, COLUMNS), np.uint32)


def to_bytes(grid: Grid) -> bytes:
    """For the ledger: little-endian, row by row."""
    return grid.astype("<u4").tobytes()


def from_bytes(data: bytes) -> Grid:
    """The inverse of ``to_bytes``. Raises ValueError for data of another size."""
    return np.frombuffer(data, "<u4").reshape(ROWS, COLUMNS).astype(np.uint32)
