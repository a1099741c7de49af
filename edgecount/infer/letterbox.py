"""Letterbox: fit a picture into the network's input without changing its shape.

The resized picture lies at the top-left corner and the rest is filled with one
value, as YOLOX does it (Ge et al. 2021, reference implementation); a kernel then
needs no offsets. The very same function prepares calibration and evaluation data.
"""

from dataclasses import dataclass
from functools import cached_property

import cv2
import numpy as np

from edgecount.records import Float32Array, UInt8Array


@dataclass(frozen=True)
class Letterbox:
    """How one picture size maps to one input size. All lengths in pixels.

    Attributes:
        source_width: Width of the picture.
        source_height: Height of the picture.
        width: Width of the network's input.
        height: Height of the network's input.
        scaled_width: Width of the picture within the input, from the left edge.
        scaled_height: Height of the picture within the input, from the top edge.
    """

    source_width: int
    source_height: int
    width: int
    height: int
    scaled_width: int
    scaled_height: int

    @staticmethod
    def fit(source_width: int, source_height: int, width: int, height: int) -> "Letterbox":
        """The largest fit of a picture of one size into an input of another."""
        scale = min(width / source_width, height / source_height)
        return Letterbox(
            source_width,
            source_height,
            width,
            height,
            min(width, max(1, round(source_width * scale))),
            min(height, max(1, round(source_height * scale))),
        )

    def apply(self, image: UInt8Array, out: Float32Array, fill: float, swap_rb: bool) -> None:
        """Resize ``image`` bilinearly into ``out`` and fill the rest.

        Args:
            image: (source_height, source_width, 3) uint8, BGR.
            out: (3, height, width) float32, written; values 0..255.
            fill: Value of the padding.
            swap_rb: Write RGB instead of BGR.
        """
        self.place(image, out, swap_rb)
        self.pad(out, fill)

    def place(self, image: UInt8Array, out: Float32Array, swap_rb: bool) -> None:
        """Write the picture's part of ``out``, as :meth:`apply`, and leave the padding alone."""
        if (self.scaled_width, self.scaled_height) != (self.source_width, self.source_height):
            image = cv2.resize(  # type: ignore[assignment]
                image, (self.scaled_width, self.scaled_height), interpolation=cv2.INTER_LINEAR
            )
        planes = cv2.split(image)  # deinterleaves with SIMD; numpy's strided copy takes 4× longer
        for target, plane in zip(out, reversed(planes) if swap_rb else planes):
            target[: self.scaled_height, : self.scaled_width] = plane

    def pad(self, out: Float32Array, fill: float) -> None:
        """Fill what the picture leaves free of ``out``."""
        out[:, self.scaled_height :, :] = fill
        out[:, : self.scaled_height, self.scaled_width :] = fill

    def to_source(self, boxes: Float32Array) -> Float32Array:
        """Map (N, 4) boxes from input pixels to source pixels and clip them to the picture."""
        mapped = self.unclipped(boxes)
        np.maximum(mapped, np.float32(0), out=mapped)
        np.minimum(mapped, self._limit, out=mapped)
        return mapped

    def unclipped(self, boxes: Float32Array) -> Float32Array:
        """Map (N, 4) boxes from input pixels to source pixels, also those beyond the picture."""
        mapped: Float32Array = boxes * self._ratio
        return mapped

    @cached_property
    def _ratio(self) -> Float32Array:
        x, y = self.source_width / self.scaled_width, self.source_height / self.scaled_height
        return np.array([x, y, x, y], np.float32)

    @cached_property
    def _limit(self) -> Float32Array:
        return np.array([self.source_width, self.source_height] * 2, np.float32)
