"""Pictures for tests of the preprocessing kernel, and what the reference makes of them."""

from typing import Any, List, NamedTuple, Optional, Sequence, Tuple

import numpy as np
from numpy.typing import NDArray
from support.device_memory import download, upload

from edgecount.infer import nv12
from edgecount.infer.cuda import compiler
from edgecount.infer.cuda.preprocess import SOURCE, Preprocess
from edgecount.infer.detector import OnnxDetector, Thresholds
from edgecount.infer.letterbox import Letterbox
from edgecount.infer.recipe import InputRecipe, Recipe
from edgecount.records import Float32Array, UInt8Array


class Picture(NamedTuple):
    """A picture as it lies in memory: (rows, pitch) bytes, of any layout."""

    rows: UInt8Array
    width: int
    height: int
    layout: str
    standard: nv12.Standard = "bt601"

    def bgr(self) -> UInt8Array:
        """(height, width, 3) uint8, by the reference."""
        if self.layout == "bgr":
            return self.rows[:, : 3 * self.width].reshape(self.height, self.width, 3)
        luma, chroma = self.rows[: self.height], self.rows[self.height :]
        return nv12.to_bgr(
            luma[:, : self.width], chroma[:, : self.width], nv12.MATRICES[self.standard]
        )


def picture(
    width: int,
    height: int,
    layout: str,
    random: np.random.Generator,
    *,
    pitch: int = 0,
    standard: nv12.Standard = "bt601",
) -> Picture:
    """Smooth waves and noise, so that both neighbours and single pixels matter."""
    rows = height if layout == "bgr" else height + height // 2
    bytes_ = 3 * width if layout == "bgr" else width
    pitch = pitch or bytes_
    y, x = np.mgrid[0:rows, 0:pitch]
    waves = 90 + 60 * np.sin(x / random.uniform(3, 40)) + 50 * np.cos(y / random.uniform(3, 30))
    noise = random.normal(0, 25, (rows, pitch))
    return Picture(np.clip(waves + noise, 0, 255).astype(np.uint8), width, height, layout, standard)


class _Shape:
    input_shape: Tuple[object, ...] = ()
    output_shape: Tuple[object, ...] = ()

    def run(self, batch: Float32Array) -> Float32Array:
        raise NotImplementedError


def expected(pictures: Sequence[Picture], input_: InputRecipe) -> Float32Array:
    """(B, 3, height, width) float32, by the detector's own preparation."""
    size = input_.width, input_.height
    recipe = Recipe(name="made-up", file="model.onnx", head="yolox", classes=["head"], input=input_)
    detector = OnnxDetector(_Shape(), recipe, size=size, thresholds=Thresholds(0.1, 0.6))
    return np.concatenate([detector.network_input(p.bgr()) for p in pictures])


class PreprocessRun:
    """The launcher with its buffers, for one batch of pictures."""

    def __init__(
        self,
        device: Any,
        stream: Any,
        pictures: Sequence[Picture],
        input_: InputRecipe,
        dtype: Any,
        *,
        step: Optional[float] = None,
        load: Any = compiler.load,
        **variant: int,
    ) -> None:
        size = input_.width, input_.height
        self.device, self.stream, self.dtype = device, stream, np.dtype(dtype)
        self.shape = (len(pictures), 3, size[1], size[0])
        self.preprocess = Preprocess(
            device, input_, size=size, dtype=dtype, step=step, load=load, **variant
        )
        self.bytes = int(np.prod(self.shape)) * self.dtype.itemsize
        self.out = device.allocate(self.bytes)
        records = np.zeros(len(pictures), SOURCE)
        self.planes: List[Any] = []
        for record, shown in zip(records, pictures):
            self.planes.append(upload(device, stream, _padded(shown.rows)))
            self.preprocess.describe(
                record,
                Letterbox.fit(shown.width, shown.height, *size),
                pointer=self.planes[-1].pointer,
                pitch=shown.rows.shape[1],
                layout=shown.layout,  # type: ignore[arg-type]
                standard=shown.standard,
            )
        self.records = upload(device, stream, records)

    def launch(self) -> None:
        """Enqueue the kernel."""
        self.preprocess.launch(self.stream, self.shape[0], self.records.pointer, self.out.pointer)

    def run(self) -> NDArray[Any]:
        """The network's input."""
        self.stream.fill(self.out.pointer, 0xAD, self.bytes)
        self.launch()
        return download(self.device, self.stream, self.out.pointer, self.shape, self.dtype)

    def close(self) -> None:
        """Free the buffers."""
        for buffer in (*self.planes, self.out, self.records):
            buffer.close()
        self.preprocess.close()


def _padded(rows: UInt8Array) -> UInt8Array:
    """All bytes, and as many more as make whole words."""
    flat = rows.reshape(-1)
    return np.concatenate([flat, np.zeros(-flat.size % 4, np.uint8)])
