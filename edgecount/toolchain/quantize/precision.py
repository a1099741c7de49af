"""Which layer runs in which precision: rules on the names of layers.

INT8 is what every convolution and matrix product gets unless a rule says otherwise.
"""

from dataclasses import dataclass, replace
from fnmatch import fnmatchcase
from typing import Dict, List, Sequence, Set, Tuple

import onnx
from typing_extensions import Literal

from edgecount.errors import ConfigError
from edgecount.infer.recipe import PrecisionRecipe
from edgecount.toolchain.quantize import regions

Precision = Literal["int8", "fp16", "fp32"]
_REGION = "@"
QUANTISABLE = frozenset({"Conv", "ConvTranspose", "Gemm", "MatMul"})


@dataclass(frozen=True)
class PrecisionRules:
    """Patterns (``fnmatch``) on layers' names, as ``neck.*``; the first list that matches wins.

    A name is matched as the file has it, and with dots for slashes: ``/model.22/cv2/Conv``
    is ``model.22.cv2.Conv``, too. ``@neck`` and ``@head`` are the nodes of that part of the
    network, by their names or by its structure (:mod:`.regions`).

    Attributes:
        fp32: Layers that stay in FP32.
        fp16: Layers that run in FP16.
        last: So many of the last layers of every branch stay in FP32.
    """

    fp32: Tuple[str, ...] = ()
    fp16: Tuple[str, ...] = ()
    last: int = 0

    def keeping(self, names: Sequence[str], precision: str = "fp32") -> "PrecisionRules":
        """The same rules, and these layers in FP32, or in FP16."""
        escaped = tuple(name.replace("[", "[[]") for name in names)
        if precision == "fp16":
            return replace(self, fp16=self.fp16 + escaped)
        return replace(self, fp32=self.fp32 + escaped)


PRESETS: Dict[str, PrecisionRules] = {
    "int8": PrecisionRules(),
    "int8+fp16-neck": PrecisionRules(fp16=("@neck",)),
    "int8+fp32-head": PrecisionRules(fp32=("@head",)),
    "fallback-last-3": PrecisionRules(last=3),
}


def preset(name: str) -> PrecisionRules:
    """The rules of that name. Raises ConfigError where there is none."""
    try:
        return PRESETS[name]
    except KeyError:
        raise ConfigError(
            f"there is no precision preset {name!r}; there are {', '.join(PRESETS)}"
        ) from None


def rules_of(recipe: PrecisionRecipe) -> PrecisionRules:
    """A recipe's rules: its own patterns before those of its preset."""
    base = preset(recipe.preset)
    return PrecisionRules(
        fp32=(*recipe.fp32, *base.fp32), fp16=(*recipe.fp16, *base.fp16), last=base.last
    )


def precisions(model: onnx.ModelProto, rules: PrecisionRules) -> Dict[str, Precision]:
    """The precision of every node that a rule can speak of: node's name → precision.

    Quantisable nodes are all there; others (an Add, a Resize) only where a rule names them.

    Raises:
        ConfigError: A pattern matches no node: it was written for another model.
    """
    fp32 = _named(model, rules.fp32)
    if rules.last:
        fp32 |= regions.last(model, rules.last)
    # Activations go with their layer: no cast stands between the two.
    fp16 = regions.followed(model, _named(model, rules.fp16))
    found: Dict[str, Precision] = {}
    for node in model.graph.node:
        if node.name in fp32:
            found[node.name] = "fp32"
        elif node.name in fp16:
            found[node.name] = "fp16"
        elif node.op_type in QUANTISABLE:
            found[node.name] = "int8"
    return found


def _named(model: onnx.ModelProto, patterns: Sequence[str]) -> Set[str]:
    """Names of the nodes that some patterns match. Raises ConfigError where one matches none."""
    nodes = [n for n in model.graph.node if n.name]
    found: Set[str] = set()
    for pattern in patterns:
        if pattern.startswith(_REGION):
            matched = regions.region(model, pattern[len(_REGION) :])
        else:
            matched = {n.name for n in nodes if _matches(n.name, pattern)}
        if not matched:
            raise ConfigError(
                f"precision rule {pattern!r} matches no layer of this model; its layers are "
                f"called like {_examples(nodes)}"
            )
        found |= matched
    return found


def layers(model: onnx.ModelProto) -> List[onnx.NodeProto]:
    """The nodes that can be quantised, in the order of execution."""
    constants = {i.name for i in model.graph.initializer}
    return [
        n
        for n in model.graph.node
        if n.op_type in QUANTISABLE and len(n.input) > 1 and n.input[1] in constants
    ]


def _matches(name: str, pattern: str) -> bool:
    dotted = name.strip("/").replace("/", ".")
    return fnmatchcase(name, pattern) or fnmatchcase(dotted, pattern)


def _examples(nodes: Sequence[onnx.NodeProto]) -> str:
    shown = [nodes[0], nodes[len(nodes) // 2], nodes[-1]] if nodes else []
    return ", ".join(repr(n.name) for n in shown) or "nothing: its nodes have no names"
