"""Draw a heat map."""

from pathlib import Path
from typing import Optional

import cv2
import numpy as np

from edgecount.count.heatmap import Grid
from edgecount.errors import ConfigError
from edgecount.records import UInt8Array

_SIZE = (1280, 960)
_OPACITY = 0.6


def draw(grid: Grid, background: Optional[UInt8Array] = None) -> UInt8Array:
    """A picture (height, width, 3) uint8 BGR: the more person-seconds, the warmer.

    Args:
        grid: (rows, columns) of person-seconds.
        background: A frame of the camera to draw on, BGR; black where not given.
    """
    canvas = np.zeros((_SIZE[1], _SIZE[0], 3), np.uint8) if background is None else background
    size = (canvas.shape[1], canvas.shape[0])
    # The square root, or one busy cell at the door hides everything else.
    level = np.sqrt(grid / max(1, int(grid.max()))).astype(np.float32)
    smooth = np.clip(cv2.resize(level, size, interpolation=cv2.INTER_CUBIC), 0.0, 1.0)
    colours = cv2.applyColorMap((smooth * 255).astype(np.uint8), cv2.COLORMAP_TURBO)
    weight = (_OPACITY * np.minimum(1.0, 4.0 * smooth))[..., None]
    blended: UInt8Array = (canvas * (1.0 - weight) + colours * weight).astype(np.uint8)
    return blended


def read_background(path: Path) -> UInt8Array:
    """A picture file as BGR. Raises ConfigError."""
    image = cv2.imread(str(path))
    if image is None:
        raise ConfigError(f"{path} is no picture that OpenCV can read")
    return np.asarray(image, np.uint8)


def write(path: Path, image: UInt8Array) -> None:
    """Write a picture; the format follows the file's name. Raises ConfigError."""
    try:
        written = cv2.imwrite(str(path), image)
    except cv2.error as error:
        raise ConfigError(f"cannot write {path}: give a name that ends in .png or .jpg") from error
    if not written:
        raise ConfigError(f"cannot write {path}: check the folder and its permissions")
