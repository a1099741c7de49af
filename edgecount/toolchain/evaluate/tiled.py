"""A detector that cuts every picture as a tiled camera's frames are cut."""

from typing import List, Optional, Sequence

from edgecount.config import TileSettings
from edgecount.infer.base import Detector
from edgecount.infer.detector import OnnxDetector
from edgecount.records import Detections, UInt8Array


def in_tiles(finder: OnnxDetector, tiles: Optional[TileSettings]) -> Detector:
    """``finder`` for pictures that are cut; itself where ``tiles`` is None."""
    return finder if tiles is None else _InTiles(finder, tiles)


class _InTiles:
    def __init__(self, finder: OnnxDetector, tiles: TileSettings) -> None:
        self._finder = finder
        self._tiles = tiles

    def detect(self, images: Sequence[UInt8Array]) -> List[Detections]:
        return [self._finder.detect_tiled(image, self._tiles) for image in images]
