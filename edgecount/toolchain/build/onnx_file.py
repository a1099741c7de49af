"""The ONNX file as a build takes it: checked first, so that a mistake is one clear sentence."""

from pathlib import Path
from typing import Callable, List, NamedTuple, Optional, Tuple

import numpy as np
import onnx
from onnx import numpy_helper

from edgecount.errors import ModelError
from edgecount.infer.tensorrt.versions import Version, newest_opset
from edgecount.toolchain.onnx_files import read_onnx

WANTED_OPSET = 13
"""The first with scales per output channel; older files are upgraded to it."""

_OLDEST_OPSET = 7
_QUANTISERS = ("QuantizeLinear", "DequantizeLinear")


class OnnxFile(NamedTuple):
    """A checked file.

    Attributes:
        path: Where it came from.
        model: Its contents, opset 13 or newer.
        upgraded_from: The opset it had, where it was upgraded.
    """

    path: Path
    model: onnx.ModelProto
    upgraded_from: Optional[int]

    @property
    def input_shape(self) -> Tuple[object, ...]:
        """Of the only input; a dynamic axis is its name."""
        dims = self.model.graph.input[0].type.tensor_type.shape.dim
        return tuple(d.dim_value if d.dim_value > 0 else d.dim_param or "?" for d in dims)

    @property
    def quantised(self) -> bool:
        """Whether the file holds Q/DQ nodes."""
        return any(node.op_type in _QUANTISERS for node in self.model.graph.node)


def read(path: Path) -> OnnxFile:
    """Read a file, check it, and upgrade it where its opset is old.

    Raises:
        ModelError: It is broken, of an opset that cannot be used, or quantised in a way that
            TensorRT does not take.
    """
    model = read_onnx(path, "tensorrt")
    opset = _opset(path, model)
    upgraded = opset < WANTED_OPSET
    if upgraded:
        model = _upgrade(path, model, opset)
    _drop_weight_inputs(model)
    _check_inputs(path, model)
    _check_zero_points(path, model)
    return OnnxFile(path, model, opset if upgraded else None)


def opset_note(file: OnnxFile, version: Version) -> str:
    """What to add to a parser's complaint where the file is newer than TensorRT; else empty."""
    newest = newest_opset(version)
    have = _declared_opset(file.model)
    if newest is None or have <= newest:
        return ""
    return (
        f"; the file is of opset {have}, and {version.label} reads opset {newest} at most: export "
        f"it with opset {newest}"
    )


def _declared_opset(model: onnx.ModelProto) -> int:
    versions = [e.version for e in model.opset_import if e.domain in ("", "ai.onnx")]
    return int(versions[0]) if versions else 0


def _opset(path: Path, model: onnx.ModelProto) -> int:
    opset = _declared_opset(model)
    newest = onnx.defs.onnx_opset_version()
    if not _OLDEST_OPSET <= opset <= newest:
        raise ModelError(
            f"{path} is of opset {opset}; {_OLDEST_OPSET} to {newest} can be read: export it "
            f"with opset {WANTED_OPSET}"
        )
    return opset


def _upgrade(path: Path, model: onnx.ModelProto, opset: int) -> onnx.ModelProto:
    """As opset 13. The converter loses nothing but value infos, which are inferred again."""
    try:
        upgraded = onnx.version_converter.convert_version(model, WANTED_OPSET)
    except (RuntimeError, ValueError) as error:  # ConvertError derives from the former
        reason = str(error).strip().splitlines()[-1]
        raise ModelError(
            f"{path} is of opset {opset} and cannot be upgraded to {WANTED_OPSET} ({reason}): "
            f"export it with opset {WANTED_OPSET}"
        ) from error
    del upgraded.metadata_props[:]
    upgraded.metadata_props.extend(model.metadata_props)
    return upgraded


def _drop_weight_inputs(model: onnx.ModelProto) -> None:
    """Old files list their weights among the inputs."""
    weights = {i.name for i in model.graph.initializer}
    real = [i for i in model.graph.input if i.name not in weights]
    del model.graph.input[:]
    model.graph.input.extend(real)


def _check_inputs(path: Path, model: onnx.ModelProto) -> None:
    names = [i.name for i in model.graph.input]
    if len(names) != 1:
        raise ModelError(f"{path} has {len(names)} inputs; a detector has one")
    dims = model.graph.input[0].type.tensor_type.shape.dim
    if len(dims) != 4:
        raise ModelError(f"{path} has an input of {len(dims)} axes; a picture's has four")


def _check_zero_points(path: Path, model: onnx.ModelProto) -> None:
    """TensorRT quantises symmetrically: every zero point is 0."""
    values = _constants(model)
    for node in model.graph.node:
        if node.op_type not in _QUANTISERS or len(node.input) < 3:
            continue
        zero = values(node.input[2])
        if zero is not None and np.any(zero != 0):
            raise ModelError(
                f"{path} is quantised asymmetrically: {node.op_type} {node.name or node.output[0]} "
                f"has the zero point {int(zero.flat[np.flatnonzero(zero)[0]])}, and TensorRT takes "
                "0 only: rewrite it with  edgecount quantize --symmetric, or quantise the FP32 file"
            )


def _constants(model: onnx.ModelProto) -> "Callable[[str], Optional[np.ndarray]]":
    weights = {i.name: i for i in model.graph.initializer}
    for node in model.graph.node:
        held: List[onnx.TensorProto] = [a.t for a in node.attribute if a.name == "value"]
        if node.op_type == "Constant" and held:
            weights[node.output[0]] = held[0]
    return lambda name: numpy_helper.to_array(weights[name]) if name in weights else None
