from typing import Dict, Set

import numpy as np
import onnx
import pytest
from support.onnx_graphs import Builder

from edgecount.errors import ConfigError
from edgecount.toolchain.quantize import regions
from edgecount.toolchain.quantize.precision import PRESETS, PrecisionRules, precisions, preset


def detector(names: Dict[str, str]) -> onnx.ModelProto:
    """Backbone b1, b2; neck n1 (lifted), n2 (merged); two head layers for each of two levels."""
    b = Builder(size=8)

    def layer(source: str, name: str, into: int = 2) -> str:
        made = names.get(name, name)
        return b.node("Relu", [b.conv(source, made, (into, 2))], f"{made}.act")

    fine = layer("x", "b1")
    b.constants["twice"] = np.array([1, 1, 2, 2], np.float32)
    pooled = b.node("MaxPool", [fine], "pool", kernel_shape=[2, 2], strides=[2, 2])
    coarse = layer(pooled, "b2")
    lifted = b.node("Resize", [coarse, "", "twice"], "up", mode="nearest")
    merged = layer(b.node("Concat", [lifted, fine], "cat", axis=1), "n1", 4)
    lowered = b.node("MaxPool", [merged], "down", kernel_shape=[2, 2], strides=[2, 2])
    last = layer(b.node("Concat", [lowered, coarse], "cat2", axis=1), "n2", 4)
    outputs = []
    for level, source in enumerate((merged, last)):
        tower = layer(source, f"h{level}")
        outputs.append(b.conv(tower, names.get(f"p{level}", f"p{level}")))
    return b.model(*outputs)


def of(model: onnx.ModelProto, rules: PrecisionRules, wanted: str) -> Set[str]:
    layers = {n.name for n in model.graph.node if n.op_type == "Conv"}
    return {n for n, p in precisions(model, rules).items() if p == wanted and n in layers}


def test_int8_is_every_layer() -> None:
    assert of(detector({}), preset("int8"), "int8") == {
        "b1",
        "b2",
        "n1",
        "n2",
        "h0",
        "h1",
        "p0",
        "p1",
    }


def test_head_and_neck_are_found_by_structure() -> None:
    model = detector({})
    # n2 feeds no merge any more: by structure alone the last level's neck is its head's start.
    assert of(model, preset("int8+fp32-head"), "fp32") == {"n2", "h0", "h1", "p0", "p1"}
    assert of(model, preset("int8+fp16-neck"), "fp16") == {"n1"}


def test_names_say_more_than_structure() -> None:
    model = detector({"n1": "neck.a", "n2": "neck.b", "h0": "head.a", "p0": "head.b"})
    assert of(model, preset("int8+fp16-neck"), "fp16") == {"neck.a", "neck.b"}
    assert of(model, preset("int8+fp32-head"), "fp32") == {"head.a", "head.b"}


def test_what_a_region_alone_feeds_follows_it() -> None:
    found = regions.region(detector({"n1": "neck.a", "n2": "neck.b"}), "neck")
    assert found == {"neck.a", "neck.a.act", "down", "neck.b", "neck.b.act"}


def test_the_last_layers_of_every_branch() -> None:
    model = detector({})
    assert of(model, preset("fallback-last-3"), "fp32") == {"n2", "h0", "h1", "p0", "p1"}
    assert of(model, PrecisionRules(last=1), "fp32") == {"p0", "p1"}


@pytest.mark.parametrize("pattern", ["/model.22/cv2/*", "model.22.cv2.*"])
def test_slashes_may_be_written_as_dots(pattern: str) -> None:
    b = Builder()
    b.conv(b.conv("x", "/model.1/Conv"), "/model.22/cv2/Conv")
    model = b.model("/model.22/cv2/Conv")
    assert of(model, PrecisionRules(fp16=(pattern,)), "fp16") == {"/model.22/cv2/Conv"}


def test_fp32_comes_before_fp16() -> None:
    model = detector({})
    rules = PrecisionRules(fp16=("b*",), fp32=("b1",))
    assert of(model, rules, "fp32") == {"b1"}
    assert of(model, rules, "fp16") == {"b2"}


def test_layers_are_kept_by_their_very_name() -> None:
    b = Builder()
    b.conv(b.conv("x", "m[0]"), "m0")
    rules = PrecisionRules().keeping(["m[0]"], "fp16")
    assert of(b.model("m0"), rules, "fp16") == {"m[0]"}


def test_no_such_preset() -> None:
    with pytest.raises(ConfigError, match="fallback-last-3"):
        preset("int7")


def test_a_preset_of_a_part_that_is_not_there() -> None:
    b = Builder()
    model = b.model(b.conv(b.conv("x", "a"), "b"))
    with pytest.raises(ConfigError, match="@neck"):
        precisions(model, PRESETS["int8+fp16-neck"])
