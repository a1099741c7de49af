"""NV12, as video decoders write it, to BGR: the reference for the CUDA kernel.

The arithmetic is OpenCV's ``cvtColor(COLOR_YUV2BGR_NV12)``: factors in units of 2⁻²⁰, chroma
not interpolated. OpenCV knows BT.601 only; HD cameras mostly send BT.709.
"""

from typing import Mapping, NamedTuple

import numpy as np
from typing_extensions import Literal

from edgecount.records import Int32Array, UInt8Array

Standard = Literal["bt601", "bt709"]
_BITS = 20
_HALF = 1 << (_BITS - 1)


class ColorMatrix(NamedTuple):
    """What turns luma and chroma into red, green and blue; all but the first in 2⁻²⁰.

    Attributes:
        luma_offset: Luma of black.
        luma: Factor of luma in each colour.
        v_red: Factor of V in red.
        v_green: Factor of V in green.
        u_green: Factor of U in green.
        u_blue: Factor of U in blue.
    """

    luma_offset: int
    luma: int
    v_red: int
    v_green: int
    u_green: int
    u_blue: int


def _limited(red: float, blue: float) -> ColorMatrix:
    """A matrix for luma 16..235, by the weights of red and blue in luma (BT.709, item 3)."""
    unit, green = 1 << _BITS, 1.0 - red - blue
    chroma = unit * 255.0 / 112.0
    return ColorMatrix(
        16,
        round(unit * 255.0 / 219.0),
        round(chroma * (1.0 - red)),
        round(-chroma * (1.0 - red) * red / green),
        round(-chroma * (1.0 - blue) * blue / green),
        round(chroma * (1.0 - blue)),
    )


MATRICES: Mapping[Standard, ColorMatrix] = {
    # As OpenCV rounds them.
    "bt601": ColorMatrix(16, 1220542, 1673527, -852492, -409993, 2116026),
    "bt709": _limited(0.2126, 0.0722),
}


def to_bgr(luma: UInt8Array, chroma: UInt8Array, matrix: ColorMatrix) -> UInt8Array:
    """Convert a picture.

    Args:
        luma: (H, W) uint8; H and W are even.
        chroma: (H / 2, W) uint8, U and V in turns.
        matrix: How.

    Returns:
        (H, W, 3) uint8.
    """
    pairs = chroma.reshape(len(chroma), -1, 2).astype(np.int32) - 128
    u, v = (pairs[:, :, i].repeat(2, axis=0).repeat(2, axis=1) for i in (0, 1))
    light = np.maximum(luma.astype(np.int32) - matrix.luma_offset, 0) * matrix.luma + _HALF
    blue = light + matrix.u_blue * u
    green = light + matrix.v_green * v + matrix.u_green * u
    red = light + matrix.v_red * v
    return np.stack([_level(c) for c in (blue, green, red)], axis=-1)


def _level(color: Int32Array) -> UInt8Array:
    level: UInt8Array = np.clip(color >> _BITS, 0, 255).astype(np.uint8)
    return level
