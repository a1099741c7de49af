"""An ONNX network whose activations can be seen."""

import itertools
from hashlib import sha256
from pathlib import Path
from typing import Dict, List, Sequence, Tuple, Union

import onnxruntime

from edgecount.errors import EngineError, MissingExtraError, ModelError
from edgecount.records import Float32Array
from edgecount.toolchain.onnx_files import read_onnx

try:
    import onnx
    from onnx import TensorProto, helper, shape_inference
except ImportError as error:
    raise MissingExtraError("onnx", "quantize") from error

READERS = ("Conv", "ConvTranspose", "Gemm", "MatMul", "Add")
"""Operators that may read their inputs through Q/DQ, whatever the precision rules."""

_QUANTISED = ("QuantizeLinear", "DequantizeLinear", "QLinearConv", "ConvInteger")
_FATAL_ONLY = 4

Model = Union[Path, onnx.ModelProto]


def load(model: Model) -> Tuple[onnx.ModelProto, str]:
    """The model, and the SHA-256 of its file (of its serialised form, where it has none).

    Raises:
        ModelError: The file cannot be read, or the model is no FP32 model (any more).
    """
    if isinstance(model, Path):
        proto = read_onnx(model)
        digest = sha256(model.read_bytes()).hexdigest()
    else:
        proto, digest = model, sha256(model.SerializeToString(deterministic=True)).hexdigest()
    quantised = next((n for n in proto.graph.node if n.op_type in _QUANTISED), None)
    if quantised is not None:
        raise ModelError(
            f"the model is quantised already ({describe(quantised)}): calibrate the FP32 file that "
            "it was made of"
        )
    _check_floats(proto)
    return proto, digest


def _check_floats(model: onnx.ModelProto) -> None:
    fixed = {i.name for i in model.graph.initializer}
    for value in model.graph.input:
        kind = value.type.tensor_type.elem_type
        if value.name not in fixed and kind != TensorProto.FLOAT:
            raise ModelError(
                f"the model's input {value.name!r} takes {TensorProto.DataType.Name(kind)}: "
                "calibrate the FP32 file"
            )


def float_tensors(model: onnx.ModelProto) -> List[str]:
    """All float32 activations: the input, then what nodes make, in the order of the graph."""
    inferred = shape_inference.infer_shapes(model).graph
    declared = itertools.chain(inferred.input, inferred.value_info, inferred.output)
    floats = {v.name for v in declared if v.type.tensor_type.elem_type == TensorProto.FLOAT}
    fixed = {i.name for i in inferred.initializer}
    fixed.update(name for n in inferred.node if n.op_type == "Constant" for name in n.output)
    made = (name for node in inferred.node for name in node.output)
    names = itertools.chain((v.name for v in inferred.input), made)
    return [name for name in names if name in floats and name not in fixed]


def tensors_read(model: onnx.ModelProto, readers: Sequence[str] = READERS) -> List[str]:
    """Float32 activations that operators of these kinds read, in the order of the graph."""
    read = {name for n in model.graph.node if n.op_type in readers for name in n.input}
    return [name for name in float_tensors(model) if name in read]


def describe(node: onnx.NodeProto) -> str:
    """A node as messages name it: ``Conv node 'neck.out3.conv'``."""
    return f"{node.op_type} node {node.name or node.output[0]!r}"


class WatchedNetwork:
    """A network whose activations come out with its output. Safe to call from several threads.

    It is a :class:`~edgecount.infer.detector.Network`, too.

    Attributes:
        watched: Names of the activations, in the order of the graph.
        makers: Tensor → a description of the node that makes it.
        input_shape: As the file declares it: a dynamic axis is not an int.
        output_shape: Of the first output; likewise.
    """

    def __init__(self, model: onnx.ModelProto, tensors: Sequence[str], threads: int = 1) -> None:
        """Load ``model``; it is not changed.

        Args:
            model: An FP32 model with one input.
            tensors: The activations to watch.
            threads: CPU threads of one call.

        Raises:
            ModelError: A tensor is no float32 activation of it, or ONNX Runtime cannot load it.
        """
        known = float_tensors(model)
        unknown = [name for name in tensors if name not in set(known)]
        if unknown:
            raise ModelError(
                f"the model has no float32 activation {unknown[0]!r} ({len(unknown)} of "
                f"{len(tensors)} tensors are unknown): they are another model's"
            )
        self.watched = [name for name in known if name in set(tensors)]
        self.makers: Dict[str, str] = {
            out: describe(node) for node in model.graph.node for out in node.output
        }
        self._session = _session(_exposing(model, self.watched), threads)
        inputs, outputs = self._session.get_inputs(), self._session.get_outputs()
        if len(inputs) != 1:
            raise ModelError(f"the model has {len(inputs)} inputs; a detector has one")
        self._input, self._first = inputs[0].name, outputs[0].name
        self.input_shape: Tuple[object, ...] = tuple(inputs[0].shape)
        self.output_shape: Tuple[object, ...] = tuple(outputs[0].shape)

    def run(self, batch: Float32Array) -> Float32Array:
        """(B, 3, H, W) float32 → the first output. Raises EngineError."""
        return self._run([self._first], batch)[0]

    def activations(self, batch: Float32Array) -> List[Float32Array]:
        """The values of ``watched`` for a batch, (B, 3, H, W) float32. Raises EngineError."""
        made = [name for name in self.watched if name != self._input]
        values = dict(zip(made, self._run(made, batch)))
        values[self._input] = batch
        return [values[name] for name in self.watched]

    def _run(self, names: List[str], batch: Float32Array) -> List[Float32Array]:
        # An empty list would mean all outputs.
        if not names:
            return []
        try:
            values: List[Float32Array] = self._session.run(names, {self._input: batch})
        except Exception as error:  # its exceptions share no base class but Exception
            hint = ": it may be made for a batch of 1, use that" if len(batch) > 1 else ""
            raise EngineError(
                f"ONNX Runtime cannot run the model on a batch of {len(batch)}{hint} ({error})"
            ) from error
        return values


def _exposing(model: onnx.ModelProto, tensors: Sequence[str]) -> onnx.ModelProto:
    """A copy whose outputs are the model's own and then ``tensors``."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    there = {v.name for v in itertools.chain(copy.graph.input, copy.graph.output)}
    copy.graph.output.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        for name in tensors
        if name not in there
    )
    return copy


def _session(model: onnx.ModelProto, threads: int) -> onnxruntime.InferenceSession:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.log_severity_level = _FATAL_ONLY
    try:
        return onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # as above
        raise ModelError(
            f"ONNX Runtime {onnxruntime.__version__} cannot load the model: {error}"
        ) from error
