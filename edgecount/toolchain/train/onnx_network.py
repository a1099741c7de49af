"""An ONNX detector as a PyTorch module that can be trained, with Q/DQ pairs as fake quantisers.

Quantisation-aware training must round exactly where the quantised file rounds. So it does not
guess these places from the module tree: it runs the very graph that the Q/DQ writer made, with
the FP32 file's weights as parameters.
"""

from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from edgecount.errors import MissingExtraError, ModelError

LEAST, MOST = -128, 127  # what QuantizeLinear saturates int8 to
LEVELS = 127.0  # weights: symmetric, as TensorRT has it
_SMALLEST = 1e-12  # scale of a channel of zeros

Attributes = Mapping[str, Any]
Operator = Callable[[Sequence[Tensor], Attributes], Tensor]


class Step(NamedTuple):
    """One operation: names of its inputs (``""`` where one is left out) and of its output."""

    run: Operator
    inputs: Tuple[str, ...]
    output: str
    attributes: Attributes


class _FakeQuantise(torch.autograd.Function):
    """Keeps only its input for the way back: what it needs besides is quickly made again."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, scale: Tensor) -> Tensor:
        ctx.save_for_backward(x, scale)
        return (x / scale).round().clamp(LEAST, MOST) * scale

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> Tuple[Tensor, Optional[Tensor]]:
        x, scale = ctx.saved_tensors
        steps = x / scale
        rounded = steps.round()
        inside = (rounded >= LEAST) & (rounded <= MOST)
        of_scale = None
        if ctx.needs_input_grad[1]:
            slope = rounded.clamp(LEAST, MOST) - steps * inside
            of_scale = (gradient * slope).sum_to_size(scale.shape)
        return gradient * inside, of_scale


def fake_quantise(x: Tensor, scale: Tensor) -> Tensor:
    """Round to multiples of ``scale`` and clip at −128 and 127 of them; the shape stays.

    The gradient passes the rounding straight through and vanishes where it clips (Bengio et
    al. 2013); the scale's own gradient is that of LSQ (Esser et al. 2020, section 2.1).
    """
    return _FakeQuantise.apply(x, scale)  # type: ignore[no-any-return]


def weight_scale(weight: Tensor) -> Tensor:
    """Scale per output channel (C, 1, …) of a weight (C, …): its greatest magnitude ÷ 127."""
    greatest = weight.detach().abs().amax(dim=tuple(range(1, weight.ndim)), keepdim=True)
    return (greatest / LEVELS).clamp(min=_SMALLEST)


class OnnxNetwork(nn.Module):
    """Runs ``model`` with the weights of ``plain``.

    Args:
        model: A detector with one input and one output, FP32 or with Q/DQ; casts to half
            precision are left out, since training is done in FP32.
        plain: The FP32 file that it was made of: nodes of the same name have the same weights.
        learn_scales: Whether activations' scales are parameters, too.

    Raises:
        MissingExtraError: onnx is not installed.
        ModelError: The graph has an operator that cannot be trained here, or does not belong to
            ``plain``.
    """

    def __init__(self, model: Any, plain: Any, learn_scales: bool = True) -> None:
        super().__init__()
        try:
            import onnx  # noqa: F401
        except ImportError as error:
            raise MissingExtraError("onnx", "train") from error
        graph = _Graph(model, plain)
        self._steps = graph.steps
        self._dead_after = _dead_after(graph.steps, model.graph.output[0].name)
        self._input, self._output = model.graph.input[0].name, model.graph.output[0].name
        self._parameter_of = graph.parameters
        self._quantised_weights = graph.quantised_weights
        self._scale_of = graph.scales
        self._origin_of = {tensor: graph.origin(tensor) for tensor in graph.scales}
        self.weights = nn.ParameterDict(
            {_key(name): nn.Parameter(torch.from_numpy(a)) for name, a in graph.values.items()}
        )
        # In octaves: a step of Adam then changes each scale by the same share (Jain et al. 2020,
        # "Trained Quantization Thresholds", section 3.2). Equal scales, as on all inputs of a
        # Concat, are one parameter and stay equal.
        self.octaves = nn.ParameterDict(
            {
                key: nn.Parameter(torch.tensor(value).log2(), requires_grad=learn_scales)
                for key, value in {_scale_key(s): s for s in graph.scales.values()}.items()
            }
        )

    def forward(self, images: Tensor) -> Tensor:
        """(N, 3, H, W) to the graph's output."""
        return self._run(images, lambda _step, value: value)

    def steps_apart(self, images: Tensor, seen: Mapping[str, Tensor]) -> float:
        """How far another runtime's quantised activations are from this network's.

        Each operation is given what the other runtime had there: of a deep network's final
        outputs nothing can be asked, since one value that falls on the other side of a rounding
        changes all that follow.

        Args:
            images: (N, 3, H, W), what both ran on.
            seen: Outputs of DequantizeLinear nodes in the other runtime.

        Returns:
            The largest difference, in quantised steps; 0 where there is none at all.
        """
        worst = 0.0

        def compare(step: Step, value: Tensor) -> Tensor:
            nonlocal worst
            if step.run is not _run_fake_quantise:
                return value
            scale = self._scale(step.inputs[0])
            other = seen[step.output]
            worst = max(worst, float(((value - other) / scale).abs().max()))
            return other

        with torch.no_grad():
            self._run(images, compare)
        return worst

    @property
    def quantised(self) -> List[str]:
        """Outputs of the activations' DequantizeLinear nodes."""
        return [step.output for step in self._steps if step.run is _run_fake_quantise]

    def _run(self, images: Tensor, observe: Callable[[Step, Tensor], Tensor]) -> Tensor:
        values: Dict[str, Tensor] = {self._input: images}
        for name, initializer in self._parameter_of.items():
            weight = self.weights[_key(initializer)]
            if name in self._quantised_weights:
                weight = fake_quantise(weight, weight_scale(weight))
            values[name] = weight
        for tensor in self._scale_of:
            values[_scale_name(tensor)] = self._scale(tensor)
        for step, dead in zip(self._steps, self._dead_after):
            value = step.run([values[n] for n in step.inputs], step.attributes)
            values[step.output] = observe(step, value)
            for name in dead:
                del values[name]
        return values[self._output]

    def _scale(self, tensor: str) -> Tensor:
        return self.octaves[_scale_key(self._scale_of[tensor])].exp2()  # type: ignore[no-any-return]

    def learnt_weights(self) -> Dict[str, np.ndarray]:
        """Initializers of the FP32 file, by name, as they are now."""
        names = set(self._parameter_of.values())
        return {n: self.weights[_key(n)].detach().float().cpu().numpy() for n in sorted(names)}

    def learnt_amax(self) -> Dict[str, float]:
        """Clipping point of each quantised activation, by its name in the FP32 file."""
        return {
            self._origin_of[tensor]: float(self._scale(tensor).detach()) * LEVELS
            for tensor in self._scale_of
        }


def _key(name: str) -> str:
    """An initializer's name as a parameter's: no dots."""
    return name.replace(".", "/")


def _scale_key(scale: float) -> str:
    return f"{scale:.9g}".replace(".", "_")


def _scale_name(tensor: str) -> str:
    return f"scale of {tensor}"


class _Graph:
    """What of an ONNX graph is run, and which values it needs."""

    def __init__(self, model: Any, plain: Any) -> None:
        from onnx import numpy_helper

        self.steps: List[Step] = []
        self.values: Dict[str, np.ndarray] = {}  # FP32 initializers that are parameters
        self.parameters: Dict[str, str] = {}  # value in the graph → initializer of ``plain``
        self.quantised_weights: Dict[str, None] = {}
        self.scales: Dict[str, float] = {}  # activation → scale
        self._constants = _constants(model)
        self._plain_nodes = {node.name: node for node in plain.graph.node}
        self._plain_constants = {
            i.name: numpy_helper.to_array(i).copy() for i in plain.graph.initializer
        }
        self._quantised: Dict[str, Tuple[str, float]] = {}  # Q's output → (its input, scale)
        self._fixed: Dict[str, None] = {}  # outputs of Q/DQ over initializers
        self._cast: Dict[str, str] = {}  # activation → what it was cast from
        for node in model.graph.node:
            self._add(node)

    def origin(self, tensor: str) -> str:
        """An activation's name in the FP32 file: layers in FP16 are cast before they are read."""
        while tensor in self._cast:
            tensor = self._cast[tensor]
        return tensor

    def _add(self, node: Any) -> None:
        if node.op_type == "Constant":
            return
        if node.op_type == "QuantizeLinear":
            self._add_quantize(node)
        elif node.op_type == "DequantizeLinear":
            self._add_dequantize(node)
        elif node.op_type == "Cast" and self._is_fixed(node.input[0]):
            self._fixed[node.output[0]] = None
        elif node.op_type == "Conv":
            self._add_conv(node)
        elif node.op_type == "Cast":
            self._cast[node.output[0]] = node.input[0]
            self._add_plain(node)
        else:
            self._add_plain(node)

    def _is_fixed(self, name: str) -> bool:
        return name in self._constants or name in self._fixed

    def _add_quantize(self, node: Any) -> None:
        if self._is_fixed(node.input[0]):
            self._fixed[node.output[0]] = None
            return
        scale = self._constants[node.input[1]]
        zero = self._constants.get(node.input[2]) if len(node.input) > 2 else None
        if scale.size != 1 or (zero is not None and (zero.dtype != np.int8 or zero.any())):
            raise ModelError(
                f"node {node.name!r} does not quantise symmetrically to int8 with one scale: "
                "quantisation-aware training needs that"
            )
        self._quantised[node.output[0]] = (node.input[0], float(scale.reshape(())))

    def _add_dequantize(self, node: Any) -> None:
        if self._is_fixed(node.input[0]):
            self._fixed[node.output[0]] = None
            return
        tensor, scale = self._quantised[node.input[0]]
        self.scales[tensor] = scale
        inputs = (tensor, _scale_name(tensor))
        self.steps.append(Step(_run_fake_quantise, inputs, node.output[0], {}))

    def _add_conv(self, node: Any) -> None:
        plain = self._plain_nodes.get(node.name)
        if plain is None or len(plain.input) != len(node.input):
            raise ModelError(
                f"the quantised model's node {node.name!r} is not in the FP32 file: it was made "
                "of another model"
            )
        parameters = [
            self._parameter(plain.input[position], node.input[position], position)
            for position in range(1, len(node.input))
        ]
        inputs = (node.input[0], *parameters)
        self.steps.append(Step(_conv, inputs, node.output[0], _attributes(node)))

    def _parameter(self, initializer: str, given: str, position: int) -> str:
        """Make an initializer of the FP32 file a parameter; the name of its value in this graph."""
        array = self._plain_constants.get(initializer)
        if array is None or not self._is_fixed(given):
            raise ModelError(
                f"weight {initializer!r} is computed by the graph: it cannot be trained"
            )
        self.values[initializer] = np.asarray(array, np.float32)
        quantised = position == 1 and self._is_dequantised(given)
        name = f"{'quantised' if quantised else 'plain'} {initializer}"
        self.parameters[name] = initializer
        if quantised:
            self.quantised_weights[name] = None
        return name

    def _is_dequantised(self, name: str) -> bool:
        return name in self._fixed and name not in self._constants

    def _add_plain(self, node: Any) -> None:
        run = OPERATORS.get(node.op_type)
        if run is None:
            raise ModelError(
                f"node {node.name!r} is a {node.op_type}, which quantisation-aware training does "
                f"not know (it knows {', '.join(sorted(OPERATORS))})"
            )
        attributes = _attributes(node)
        inputs: List[str] = []
        for position, name in enumerate(node.input):
            if name in self._constants:
                if node.op_type not in _WITH_CONSTANTS:
                    raise ModelError(
                        f"node {node.name!r} has a constant input: it cannot be trained"
                    )
                attributes[f"input{position}"] = self._constants[name]
            elif name:
                inputs.append(name)
        self.steps.append(Step(run, tuple(inputs), node.output[0], attributes))


def _dead_after(steps: Sequence[Step], output: str) -> List[List[str]]:
    """For each step the values that no later one reads."""
    last = {name: i for i, step in enumerate(steps) for name in step.inputs}
    dead: List[List[str]] = [[] for _ in steps]
    for name, i in last.items():
        if name != output:
            dead[i].append(name)
    return dead


def _constants(model: Any) -> Dict[str, np.ndarray]:
    from onnx import helper, numpy_helper

    found = {i.name: numpy_helper.to_array(i) for i in model.graph.initializer}
    for node in model.graph.node:
        if node.op_type == "Constant":
            (value,) = (helper.get_attribute_value(a) for a in node.attribute)
            found[node.output[0]] = numpy_helper.to_array(value)
    return found


def _attributes(node: Any) -> Dict[str, Any]:
    from onnx import helper

    return {a.name: helper.get_attribute_value(a) for a in node.attribute}


def _run_fake_quantise(given: Sequence[Tensor], _attributes: Attributes) -> Tensor:
    return fake_quantise(given[0].float(), given[1])


def _padding(attributes: Attributes) -> Tuple[int, int]:
    top, left, bottom, right = attributes.get("pads", (0, 0, 0, 0))
    if (top, left) != (bottom, right) or attributes.get("auto_pad", b"NOTSET") != b"NOTSET":
        raise ModelError(f"padding {attributes.get('pads')} is not the same on both sides")
    return top, left


def _conv(given: Sequence[Tensor], attributes: Attributes) -> Tensor:
    return F.conv2d(
        given[0],
        given[1],
        given[2] if len(given) > 2 else None,
        tuple(attributes.get("strides", (1, 1))),
        _padding(attributes),
        tuple(attributes.get("dilations", (1, 1))),
        attributes.get("group", 1),
    )


def _max_pool(given: Sequence[Tensor], attributes: Attributes) -> Tensor:
    return F.max_pool2d(
        given[0],
        tuple(attributes["kernel_shape"]),
        tuple(attributes.get("strides", (1, 1))),
        _padding(attributes),
        ceil_mode=bool(attributes.get("ceil_mode", 0)),
    )


def _resize(given: Sequence[Tensor], attributes: Attributes) -> Tensor:
    scales = attributes.get("input2")
    how = (attributes.get("mode"), attributes.get("coordinate_transformation_mode"))
    if scales is None or scales.size != 4 or how != (b"nearest", b"asymmetric"):
        raise ModelError(f"a Resize of {how} is not known: only nearest, asymmetric, by a factor")
    return F.interpolate(given[0], scale_factor=tuple(float(s) for s in scales[2:]), mode="nearest")


def _reshape(given: Sequence[Tensor], attributes: Attributes) -> Tensor:
    sizes = [int(s) for s in attributes["input1"]]
    return given[0].reshape([given[0].shape[i] if s == 0 else s for i, s in enumerate(sizes)])


def _clip(given: Sequence[Tensor], attributes: Attributes) -> Tensor:
    bounds: List[Optional[float]] = [
        None if attributes.get(key) is None else float(attributes[key])
        for key in ("input1", "input2")
    ]
    return given[0].clamp(*bounds)


def _hard_sigmoid(given: Sequence[Tensor], attributes: Attributes) -> Tensor:
    slope, shift = attributes.get("alpha", 0.2), attributes.get("beta", 0.5)
    return (given[0] * slope + shift).clamp(0, 1)


_WITH_CONSTANTS = ("Clip", "Reshape", "Resize")
# Operators with tensors alone as inputs; constants among the inputs arrive as ``input<position>``.
OPERATORS: Mapping[str, Operator] = {
    "Add": lambda given, _: given[0] + given[1],
    "Cast": lambda given, _: given[0],
    "Clip": _clip,
    "Concat": lambda given, attributes: torch.cat(list(given), attributes["axis"]),
    "GlobalAveragePool": lambda given, _: given[0].mean((2, 3), keepdim=True),
    "HardSigmoid": _hard_sigmoid,
    "Identity": lambda given, _: given[0],
    "LeakyRelu": lambda given, attributes: F.leaky_relu(given[0], attributes.get("alpha", 0.01)),
    "MaxPool": _max_pool,
    "Mul": lambda given, _: given[0] * given[1],
    "Relu": lambda given, _: given[0].relu(),
    "Reshape": _reshape,
    "Resize": _resize,
    "Sigmoid": lambda given, _: given[0].sigmoid(),
    "Softplus": lambda given, _: F.softplus(given[0]),
}
