"""Does the picture itself lie? Covered, defocused, frozen, dark, over-exposed, turned.

A camera can deliver 25 frames per second of nothing. Each look at the picture takes a
small grey copy of it (and some rows at full resolution, for its sharpness), compares it
with what this camera usually shows, and raises a flag when something was wrong for some
seconds. Flags go when the picture has been right again for some seconds.

What is usual is learnt while nothing is wrong, with a time constant of a minute: a view
that slowly fills with people is usual soon; one that changes as a whole within seconds
and then stands still is a camera that was turned.
"""

from dataclasses import dataclass
from typing import Dict, List, Optional, Tuple

import cv2
import numpy as np
from numpy.typing import NDArray

from edgecount.records import BoolArray, Float32Array, UInt8Array

# The small picture and its grid of blocks.
_WIDTH, _HEIGHT, _BLOCK = 160, 120, 20
# Pixels that are looked at for sharpness; more cost time and tell nothing more.
_SHARPNESS_PIXELS = 100_000


@dataclass(frozen=True)
class Limits:
    """When a picture is wrong. Grey levels are 0..255, times in seconds.

    Attributes:
        raise_s: How long something must be wrong before it is flagged.
        clear_s: How long it must be right again before the flag goes.
        learn_s: Time constant of what is usual.
        warm_up_s: How long a view must have been right before others are judged by it.
        flat: Standard deviation within a block, under which the block shows nothing.
        covered: Part of the blocks that usually show something and now show nothing.
        dark: 95 % of the picture is darker than this.
        bright: A pixel this bright is burnt out.
        burnt: Part of the picture that is burnt out.
        blurred: Sharpness, relative to the usual one, under which a picture is out of focus.
        identical_s: How long a picture must stay the same to be frozen.
        same: Mean absolute difference under which two small pictures are the same.
        alike: Correlation of a block with its usual look, under which it looks different.
        moved: Part of the blocks that look different and stand still.
    """

    raise_s: float = 5.0
    clear_s: float = 3.0
    learn_s: float = 60.0
    warm_up_s: float = 10.0
    flat: float = 4.0
    covered: float = 0.85
    dark: float = 40.0
    bright: float = 250.0
    burnt: float = 0.4
    blurred: float = 0.5
    identical_s: float = 8.0
    same: float = 0.02
    alike: float = 0.5
    moved: float = 0.6


class PictureHealth:
    """Watches the pictures of one camera.

    Args:
        limits: When a picture is wrong.
    """

    def __init__(self, limits: Optional[Limits] = None) -> None:
        self._limits = limits or Limits()
        self._flags: Tuple[str, ...] = ()
        self.features = None

    def update(self, image: UInt8Array, time: float) -> Tuple[str, ...]:
        """Look at a picture, about twice a second.

        Args:
            image: (height, width, 3) uint8, BGR.
            time: Its stream time, seconds.

        Returns:
            What is wrong with the picture, sorted; empty is good. Of ``covered``, ``dark``,
            ``defocused``, ``frozen``, ``moved``, ``overexposed``.
        """
        return ()
