"""Whether a camera's heads reach the network large enough, and what to do where they do not."""

import math
from dataclasses import dataclass
from typing import Iterator, List, Optional, Tuple

from edgecount.capture._select import open_source
from edgecount.config import MOST_TILES, CameraSettings, TileSettings
from edgecount.errors import EdgecountError
from edgecount.infer import tiles as tiling
from edgecount.infer.detector import OnnxDetector
from edgecount.infer.recipe import Recipe

Size = Tuple[int, int]

_LARGEST_INPUT = 4096
_MOST_COLUMNS = 8


@dataclass(frozen=True)
class Sight:
    """What a model sees reliably.

    Attributes:
        model: Its name.
        size: Width and height of its input, pixels.
        smallest: Least size of a head, pixels of the input.
        multiple: Of what its input's sides must be multiples; None where its size is fixed.
    """

    model: str
    size: Size
    smallest: float
    multiple: Optional[int]

    @staticmethod
    def of(detector: OnnxDetector, recipe: Recipe) -> "Optional[Sight]":
        """Of a loaded model; None where its recipe does not tell."""
        if recipe.smallest_head_px is None:
            return None
        fixed = all(isinstance(side, int) for side in detector.network.input_shape[2:])
        multiple = None if fixed else recipe.input.multiple
        return Sight(recipe.name, detector.size, recipe.smallest_head_px, multiple)

    def warnings(self, camera: CameraSettings, picture: Optional[Size]) -> List[str]:
        """What is wrong with the heads of a camera, whose pictures have this size."""
        if camera.head_px is None:
            return []
        if picture is None:
            return [self._unknown(camera, camera.head_px)]
        found = [self._too_small(camera, camera.head_px, picture)]
        found.append(_too_large(camera, camera.head_px, picture))
        return [warning for warning in found if warning is not None]

    def _unknown(self, camera: CameraSettings, head: float) -> str:
        return (
            f"camera {camera.name!r}: whether heads of {head:g} px are large enough for model "
            f"{self.model!r}, which sees them reliably from {self.smallest:g} px of its "
            f"{_by(self.size)} input on, depends on the picture's size: give the camera's "
            "picture: [width, height], or run edgecount doctor, which asks the camera"
        )

    def _too_small(self, camera: CameraSettings, head: float, picture: Size) -> Optional[str]:
        seen = head * tiling.scale(picture, self.size, camera.tiles)
        if seen >= self.smallest:
            return None
        where = "of a tile in" if camera.tiles else "in"
        return (
            f"camera {camera.name!r}: heads of {head:g} px in a picture of {_by(picture)} are "
            f"{seen:.1f} px {where} the {_by(self.size)} input, but model {self.model!r} sees "
            f"them reliably from {self.smallest:g} px on: {self._remedy(camera, head, picture)}"
        )

    def _remedy(self, camera: CameraSettings, head: float, picture: Size) -> str:
        ways = [
            way
            for way in (
                self._with_tiles(camera, head, picture),
                self._with_input(camera, head, picture),
            )
            if way is not None
        ]
        return ", or ".join(ways) or "bring the camera nearer, or give it a longer lens"

    def _with_tiles(self, camera: CameraSettings, head: float, picture: Size) -> Optional[str]:
        for tiles in _choices(camera.tiles):
            seen = head * tiling.scale(picture, self.size, tiles)
            if seen >= self.smallest:
                return (
                    f"give the camera tiles: {tiles.columns}x{tiles.rows} "
                    f"({seen:.1f} px, {tiles.pictures} runs of the network for each frame)"
                )
        return None

    def _with_input(self, camera: CameraSettings, head: float, picture: Size) -> Optional[str]:
        if self.multiple is None:
            return None
        # Of the picture's shape: padding is work, too.
        ratio = self.smallest / head
        width, height = (math.ceil(s * ratio / self.multiple) * self.multiple for s in picture)
        if max(width, height) > _LARGEST_INPUT:
            return None
        seen = head * tiling.scale(picture, (width, height), None)
        work = width * height / (self.size[0] * self.size[1])
        instead = " instead of tiles" if camera.tiles else ""
        return (
            f"set model.input_size: [{width}, {height}]{instead} "
            f"({seen:.1f} px, {work:.1f} × the work of one run)"
        )


def picture_size(camera: CameraSettings) -> Optional[Size]:
    """Width and height of a camera's pictures, as far as that is known without the camera."""
    if camera.picture is not None:
        return camera.picture
    width, height = camera.capture.get("width"), camera.capture.get("height")
    if isinstance(width, int) and isinstance(height, int):
        return width, height
    return _size_of_file(camera)


def _size_of_file(camera: CameraSettings) -> Optional[Size]:
    source = open_source(camera.name, camera.source, camera.capture)
    if source.live:
        return None
    try:
        source.open()
        first = source.read()
    except EdgecountError:
        return None  # said when it is counted
    finally:
        source.close()
    return None if first is None else (first.info.width, first.info.height)


def _choices(given: Optional[TileSettings]) -> Iterator[TileSettings]:
    """Ways to cut a frame, the fewest tiles first; overlap and whole as given."""
    base = given or TileSettings(columns=2, rows=1)
    sides = range(1, _MOST_COLUMNS + 1)
    shapes = [(c, r) for c in sides for r in sides if 2 <= c * r <= MOST_TILES]
    for columns, rows in sorted(shapes, key=lambda s: (s[0] * s[1], abs(s[0] - s[1]))):
        yield base.model_copy(update={"columns": columns, "rows": rows})


def _too_large(camera: CameraSettings, head: float, picture: Size) -> Optional[str]:
    if camera.tiles is None or camera.tiles.whole:
        return None
    overlap = tiling.overlap(*picture, camera.tiles)
    if head <= overlap:
        return None
    return (
        f"camera {camera.name!r}: heads of {head:g} px are larger than the {overlap:g} px that its "
        "tiles overlap, so their borders cut them: raise tiles.overlap, or set tiles.whole: true"
    )


def _by(size: Size) -> str:
    return f"{size[0]}×{size[1]}"
