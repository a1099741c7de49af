"""Quantised networks in the form that OpenVINO makes integer kernels of.

OpenVINO reads QuantizeLinear and DequantizeLinear as a FakeQuantize to integers, conversions, and
the arithmetic back. Its passes quantise some tensors of that form wrongly (behind a Concat), and
run signed activations with a zero point of 128. One FakeQuantize each says the same, and
activations that are never negative get the unsigned range, which the u8×s8 products of x86 are
made for.
"""

from typing import Any, List, NamedTuple, Optional, Tuple

import numpy as np
from numpy.typing import NDArray

_NEVER_NEGATIVE = frozenset({"Relu", "Sigmoid", "Softmax", "Exp"})
_KEEPS_SIGN = frozenset(
    {"MaxPool", "AvgPool", "Slice", "StridedSlice", "Split", "VariadicSplit", "Transpose"}
    | {"Reshape", "Squeeze", "Unsqueeze", "Convert", "ReduceMean", "Interpolate"}
)
_KEEPS_SIGNS = frozenset({"Concat", "Add", "Multiply"})
_INT8_MOST, _UINT8_MOST = 127.0, 255.0

_Values = NDArray[np.float64]


def fold_quantisation(openvino: Any, model: Any) -> int:
    """Make one FakeQuantize of each activation's QuantizeLinear and DequantizeLinear.

    It rounds to the same values. Symmetric INT8 activations that are never negative become UINT8
    of the same scale: values beyond 127 steps are kept up to 255, where the file clips them.

    Args:
        openvino: The package.
        model: Changed in place.

    Returns:
        How many activations were folded; those of another form stay.
    """
    # Before 2025 the operators stood in openvino.runtime.
    ops = openvino.opset8 if hasattr(openvino, "opset8") else openvino.runtime.opset8
    folded = 0
    for node in model.get_ordered_ops():
        if node.get_type_name() == "FakeQuantize" and _stored(node.input_value(0)) is None:
            folded += _fold(ops, node)
    model.validate_nodes_and_infer_types()
    return folded


class _Range(NamedTuple):
    """What a FakeQuantize maps: real values from ``low`` to ``high`` to ``least`` … ``most``."""

    low: _Values
    high: _Values
    least: _Values
    most: _Values


def _fold(ops: Any, quantize: Any) -> bool:
    mapped, ends = _range(quantize), _dequantized(quantize)
    if mapped is None or not ends or not all(_inverse(mapped, *end) for end in ends):
        return False
    source, levels = quantize.input_value(0), quantize.get_attributes()["levels"]
    low, high = quantize.input_value(1), quantize.input_value(2)
    if _is_symmetric(mapped) and _never_negative(source):
        step = mapped.high.item() / _INT8_MOST
        low = ops.constant(np.float32(0.0))
        high = ops.constant(np.float32(_UINT8_MOST * step))
    made = ops.fake_quantize(source, low, high, low, high, levels)
    made.set_friendly_name(ends[0][1].get_friendly_name())
    for _, multiply in ends:
        for target in list(multiply.output(0).get_target_inputs()):
            target.replace_source_output(made.output(0))
    return True


def _dequantized(quantize: Any) -> List[Tuple[Optional[Any], Any]]:
    """Subtraction (None where the zero point is left out) and multiplication of each reader.

    Empty where anything else reads the integers.
    """
    ends: List[Tuple[Optional[Any], Any]] = []
    for stored in _readers(quantize):
        for widened in _readers(stored):
            if {stored.get_type_name(), widened.get_type_name()} != {"Convert"}:
                return []
            for node in _readers(widened):
                subtract = node if node.get_type_name() == "Subtract" else None
                ends += [(subtract, n) for n in ([node] if subtract is None else _readers(node))]
    return ends if all(multiply.get_type_name() == "Multiply" for _, multiply in ends) else []


def _range(quantize: Any) -> Optional[_Range]:
    values = [_constant(quantize.input_value(port)) for port in range(1, 5)]
    known = [v for v in values if v is not None]
    return _Range(*known) if len(known) == len(values) else None


def _inverse(mapped: _Range, subtract: Optional[Any], multiply: Any) -> bool:
    """Whether (integer − zero point) × scale leads back to the range that was quantised."""
    scale = _constant(multiply.input_value(1))
    zero = np.zeros(1) if subtract is None else _constant(subtract.input_value(1))
    if scale is None or zero is None:
        return False
    found = np.concatenate([mapped.low / scale, mapped.high / scale])
    wanted = np.concatenate([mapped.least - zero, mapped.most - zero])
    return np.allclose(found, wanted, rtol=0, atol=0.01)


def _is_symmetric(mapped: _Range) -> bool:
    """Whether it is INT8 with one scale and zero point 0."""
    if mapped.high.size != 1 or mapped.most.item() != _INT8_MOST:
        return False
    return abs(mapped.least.item() - _INT8_MOST * mapped.low.item() / mapped.high.item()) < 0.01


def _never_negative(output: Any) -> bool:
    node = output.get_node()
    kind, inputs = node.get_type_name(), node.input_values()
    if kind in _NEVER_NEGATIVE:
        return True
    if kind == "FakeQuantize":  # one that was made here, in front
        lowest = _constant(inputs[3])
        return lowest is not None and bool((lowest >= 0).all())
    if kind == "Interpolate" and "cubic" in str(node.get_attributes().get("mode")):
        return False  # it overshoots
    if kind in _KEEPS_SIGN:
        return _never_negative(inputs[0])
    return kind in _KEEPS_SIGNS and all(map(_never_negative, inputs))


def _constant(output: Any) -> Optional[_Values]:
    """The values of a constant, also of one that is converted or reshaped; else None."""
    node = _stored(output)
    return None if node is None else np.asarray(node.data, np.float64).ravel()


def _stored(output: Any) -> Optional[Any]:
    node = output.get_node()
    while node.get_type_name() in ("Convert", "Reshape"):
        node = node.input_value(0).get_node()
    return node if node.get_type_name() == "Constant" else None


def _readers(node: Any) -> List[Any]:
    return [target.get_node() for target in node.output(0).get_target_inputs()]
