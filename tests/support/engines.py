"""Small networks for fake engines: any batch, any size, and what they answer is known.

:func:`network` is laid out like YOLOX with one class and stride 8: (N, 3, H, W) in,
(N, H/8 × W/8, 6) out, each row a weighted sum of its cell's pixels.
"""

import ctypes
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

import numpy as np
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper
from support import fake_tensorrt
from support.fake_cuda import FakeCuda

from edgecount.infer.tensorrt import efficient_nms as nms_outputs
from edgecount.infer.tensorrt.versions import TensorRt, Version, features_of

STRIDE = 8
COLUMNS = 6
SIDE = 32
FLAVOURS = ("8.2", "8.6", "10.3", "11.0", "rtx")
_OPSET = 13
Shape = Tuple[Any, ...]


def tensorrt(flavour: str, cuda: Optional[FakeCuda] = None) -> TensorRt:
    """A fake TensorRT, as ``versions.find`` returns a real one, on a fake driver."""
    module = fake_tensorrt.module(
        flavour, cuda and (lambda stream, work: cuda.enqueue(stream, "tensorrt", work))
    )
    version = Version.parse(module.__name__, module.__version__)
    return TensorRt(module, version, features_of(version))


def network(*, dynamic: bool = False, half: bool = False, extra: bool = False) -> onnx.ModelProto:
    """The network.

    Args:
        dynamic: Whether batch and sides are open.
        half: Whether input and output are float16.
        extra: Whether a raw map comes first, as an output that nobody decodes.
    """
    kind = TensorProto.FLOAT16 if half else TensorProto.FLOAT
    weights = np.random.default_rng(7).normal(size=(COLUMNS, 3, STRIDE, STRIDE)) / 64
    nodes = [
        helper.make_node("Cast", ["images"], ["pixels"], to=TensorProto.FLOAT),
        helper.make_node("Conv", ["pixels", "weights"], ["map"], strides=[STRIDE, STRIDE]),
        helper.make_node("Reshape", ["map", "flat"], ["columns"]),
        helper.make_node("Transpose", ["columns"], ["rows"], perm=[0, 2, 1]),
        helper.make_node("Cast", ["rows"], ["output"], to=kind),
    ]
    cells = (SIDE // STRIDE) ** 2
    inputs: Shape = ("n", 3, "h", "w") if dynamic else (1, 3, SIDE, SIDE)
    outputs: List[Tuple[str, int, Shape]] = [
        ("output", kind, ("n", "cells", COLUMNS) if dynamic else (1, cells, COLUMNS))
    ]
    if extra:
        side = SIDE // STRIDE
        shape: Shape = ("n", COLUMNS, "h8", "w8") if dynamic else (1, COLUMNS, side, side)
        outputs.insert(0, ("map", TensorProto.FLOAT, shape))
    constants = {
        "weights": weights.astype(np.float32),
        "flat": np.array([0, COLUMNS, -1], np.int64),
    }
    return _model(nodes, [("images", kind, inputs)], outputs, constants)


def efficient_nms(boxes: "np.ndarray[Any, Any]", count: int) -> onnx.ModelProto:
    """Answers with the four outputs of EfficientNMS, whatever the picture.

    Args:
        boxes: (N, 6) float32: x1, y1, x2, y2, score, class.
        count: How many of them are said to be there.
    """
    rows = len(boxes)
    nodes = [
        helper.make_node("ReduceMean", ["images"], ["mean"], axes=[1, 2, 3], keepdims=0),
        helper.make_node("Mul", ["mean", "zero"], ["nothing"]),
        helper.make_node("Cast", ["nothing"], ["whole"], to=TensorProto.INT32),
        helper.make_node("Add", ["boxes", "nothing"], ["det_boxes"]),
        helper.make_node("Add", ["scores", "nothing"], ["det_scores"]),
        helper.make_node("Add", ["count", "whole"], ["num_dets"]),
        helper.make_node("Add", ["classes", "whole"], ["det_classes"]),
    ]
    outputs = [
        ("num_dets", TensorProto.INT32, (1, 1)),
        ("det_boxes", TensorProto.FLOAT, (1, rows, 4)),
        ("det_scores", TensorProto.FLOAT, (1, rows)),
        ("det_classes", TensorProto.INT32, (1, rows)),
    ]
    constants = {
        "zero": np.zeros(1, np.float32),
        "count": np.array([[count]], np.int32),
        "boxes": boxes[None, :, :4].astype(np.float32),
        "scores": boxes[None, :, 4].astype(np.float32),
        "classes": boxes[None, :, 5].astype(np.int32),
    }
    image = [("images", TensorProto.FLOAT, (1, 3, SIDE, SIDE))]
    return _model(nodes, image, outputs, constants)


def write(path: Path, model: onnx.ModelProto, flavour: str, **options: Any) -> Path:
    """Write an engine file; see :func:`~.fake_tensorrt.plan`."""
    path.write_bytes(fake_tensorrt.plan(model, flavour, **options))
    return path


def profile(
    most: int, size: Tuple[int, int] = (SIDE, SIDE), least: int = 1
) -> Tuple[Tuple[int, ...], ...]:
    """A profile of one picture size (width, height), for batches from ``least`` to ``most``."""
    tail = (3, size[1], size[0])
    return (least, *tail), (most, *tail), (most, *tail)


def answer(
    model: onnx.ModelProto, pictures: "np.ndarray[Any, Any]", output: Optional[str] = None
) -> "np.ndarray[Any, Any]":
    """What ONNX Runtime says to (N, 3, H, W) pictures."""
    session = onnxruntime.InferenceSession(model.SerializeToString())
    result: np.ndarray[Any, Any] = session.run([output or "output"], {"images": pictures})[0]
    return result


class RowsOnHost:
    """Makes rows of the outputs of EfficientNMS where device memory is the host's."""

    def __init__(self, device: Any, most: int) -> None:
        self._calls, self._most = device.calls, most

    def launch(self, stream: Any, batch: int, sources: Sequence[int], target: int) -> None:
        most = self._most
        shapes = [(batch, 1), (batch, most, 4), (batch, most), (batch, most)]
        dtypes = [np.int32, np.float32, np.float32, np.int32]

        def work() -> None:
            given = [_view(*where) for where in zip(sources, shapes, dtypes)]
            rows = nms_outputs.rows(*given)
            _view(target, rows.shape, np.float32)[...] = rows

        self._calls.enqueue(stream.handle, "rows", work)


def _view(address: int, shape: Sequence[int], dtype: Any) -> Any:
    size = int(np.prod(shape)) * np.dtype(dtype).itemsize
    return np.frombuffer((ctypes.c_uint8 * size).from_address(address), dtype).reshape(shape)


def _model(
    nodes: Sequence[onnx.NodeProto],
    inputs: Sequence[Tuple[str, int, Shape]],
    outputs: Sequence[Tuple[str, int, Shape]],
    constants: Dict[str, "np.ndarray[Any, Any]"],
) -> onnx.ModelProto:
    graph = helper.make_graph(
        list(nodes),
        "engine",
        [helper.make_tensor_value_info(*i) for i in inputs],
        [helper.make_tensor_value_info(*o) for o in outputs],
        [numpy_helper.from_array(value, name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", _OPSET)])
    model.ir_version = 8
    onnx.checker.check_model(model)
    return model
