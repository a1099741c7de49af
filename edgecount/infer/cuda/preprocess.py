"""Pictures on the device to the network's input, a batch of any sizes in one launch.

Launches ``plugins/preprocess.cu``; the references are
:meth:`~edgecount.infer.detector.OnnxDetector.prepare` and :mod:`edgecount.infer.nv12`. A
resized pixel may differ from OpenCV's by one grey level of 255.
"""

import ctypes
from typing import Any, Callable, Mapping, Optional, Tuple

import numpy as np
from numpy.typing import DTypeLike
from typing_extensions import Literal

from edgecount.errors import EngineError, ModelError
from edgecount.infer.cuda import compiler
from edgecount.infer.cuda.driver import Device, Module, Stream
from edgecount.infer.letterbox import Letterbox
from edgecount.infer.nv12 import MATRICES, Standard
from edgecount.infer.recipe import InputRecipe

# Mirrors of plugins/preprocess.cu
KERNELS = ("preprocess",)
_WARP, _ROWS = 32, 8
PIXELS, STEPS = 2, 2
_OUTPUTS: Mapping[np.dtype, int] = {
    np.dtype(np.float32): 0,
    np.dtype(np.float16): 1,
    np.dtype(np.int8): 2,
}
Layout = Literal["bgr", "nv12"]
_FORMATS: Mapping[Layout, int] = {"bgr": 0, "nv12": 1}

_NUMBERS = (
    *("pitch", "chroma_pitch", "width", "height", "scaled_width", "scaled_height", "format"),
    *("luma_offset", "luma", "v_red", "v_green", "u_green", "u_blue"),
)
# What the kernel must know of one picture; see :meth:`Preprocess.describe`.
SOURCE = np.dtype(
    [("plane", np.uint64), ("chroma", np.uint64), *((name, np.int32) for name in _NUMBERS)],
    align=True,
)

Load = Callable[[Device, str, Mapping[str, object]], Module]


class _Format(ctypes.Structure):
    _fields_ = (
        ("width", ctypes.c_int),
        ("height", ctypes.c_int),
        ("swap", ctypes.c_int),
        ("mean", ctypes.c_float * 3),
        ("scale", ctypes.c_float),
        ("pad", ctypes.c_float),
        ("step", ctypes.c_float),
    )


class Preprocess:
    """Makes the input of one model.

    Args:
        device: The device.
        recipe: The input's recipe.
        size: Width and height of the input, pixels; the width is even.
        dtype: float32, float16 or int8.
        step: For int8: what one step of the input is worth, after normalisation.
        pixels: Pixels that a thread stores at once, 1, 2 or 4.
        steps: Stores of a thread, per plane.
        load: Makes the kernel.

    Raises:
        ModelError: The kernel cannot make such an input.
        EngineError: The device failed.
    """

    def __init__(
        self,
        device: Device,
        recipe: InputRecipe,
        *,
        size: Tuple[int, int],
        dtype: DTypeLike,
        step: Optional[float] = None,
        pixels: int = PIXELS,
        steps: int = STEPS,
        load: Load = compiler.load,
    ) -> None:
        output = _output(dtype, step)
        if size[0] % pixels:
            raise ModelError(
                f"an input {size[0]} pixels wide cannot be made on the device: use a multiple "
                f"of {pixels}"
            )
        self._format = _Format(
            *size,
            int(recipe.color == "rgb"),
            (ctypes.c_float * 3)(*recipe.mean),
            recipe.scale,
            recipe.pad,
            step or 1.0,
        )
        macros = {"OUTPUT": output, "PIXELS": pixels, "STEPS": steps}
        self._module = load(device, "preprocess", macros)
        self._function = self._module.function(KERNELS[0])
        self._grid = -(-size[0] // (_WARP * pixels * steps)), -(-size[1] // _ROWS)

    def describe(
        self,
        record: Any,
        box: Letterbox,
        *,
        pointer: int,
        pitch: int,
        layout: Layout = "bgr",
        chroma: Optional[Tuple[int, int]] = None,
        standard: Standard = "bt601",
    ) -> None:
        """Fill a picture's record (an element of a :data:`SOURCE` array).

        The kernel reads aligned words: up to three bytes behind the last pixel.

        Args:
            record: Written.
            box: How the picture is fitted into the input.
            pointer: Device address of its first row.
            pitch: Bytes from one row to the next.
            layout: Of the picture; ``nv12`` is luma, then chroma.
            chroma: Address and pitch of the chroma; behind the luma where None.
            standard: The matrix of an NV12 picture.

        Raises:
            EngineError: An NV12 picture has an odd size or lies at an odd address.
        """
        place, chroma_pitch = chroma or (pointer + pitch * box.source_height, pitch)
        if layout == "nv12" and (box.source_width | box.source_height | place | chroma_pitch) & 1:
            raise EngineError(
                f"an NV12 picture of {box.source_width}×{box.source_height} pixels at {place:#x} "
                f"with a pitch of {chroma_pitch}: all of them must be even"
            )
        record["plane"], record["pitch"] = pointer, pitch
        record["chroma"], record["chroma_pitch"] = place, chroma_pitch
        record["width"], record["height"] = box.source_width, box.source_height
        record["scaled_width"], record["scaled_height"] = box.scaled_width, box.scaled_height
        record["format"] = _FORMATS[layout]
        if layout == "nv12":
            for name, value in MATRICES[standard]._asdict().items():
                record[name] = value

    def launch(self, stream: Stream, batch: int, sources: int, out: int) -> None:
        """Enqueue the kernel.

        Args:
            stream: Any.
            batch: Pictures.
            sources: Device address of ``batch`` :data:`SOURCE` records.
            out: Device address of the (batch, 3, height, width) input, 16-byte aligned.

        Raises:
            EngineError: The launch failed.
        """
        stream.launch(
            self._function,
            (*self._grid, batch),
            (_WARP, _ROWS, 1),
            (ctypes.c_void_p(sources), self._format, ctypes.c_void_p(out)),
        )

    def close(self) -> None:
        """Unload the kernel; closing the device does, too."""
        self._module.close()


def _output(dtype: DTypeLike, step: Optional[float]) -> int:
    output = _OUTPUTS.get(np.dtype(dtype))
    if output is None:
        raise ModelError(
            f"the network takes {np.dtype(dtype)}; edgecount makes float32, float16 and int8"
        )
    if (np.dtype(dtype) == np.int8) != (step is not None):
        raise ModelError("an int8 input needs the step of its scale, and no other has one")
    return output
