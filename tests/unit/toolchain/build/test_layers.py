"""Layers from the inspector's JSON, as TensorRT 8 and 10 write it."""

import json

import pytest

from edgecount.infer.tensorrt.manifest import Layer
from edgecount.toolchain.build.layers import parse_inspector, type_of


@pytest.mark.parametrize(
    ("told", "name"),
    [
        ("Row major linear FP16 format", "fp16"),
        ("Thirty-two wide channel vectorized row major Int8 format.", "int8"),
        ("Channel major FP32 format where channel % 4 == 0", "fp32"),
        ("Half", "fp16"),
        ("Float", "fp32"),
        ("Int8", "int8"),
        ("BFloat16", "bf16"),
        ("FP8", "fp8"),
        ("N/A due to dynamic shapes", ""),
        ("", ""),
    ],
)
def test_types_in_words(told, name) -> None:
    assert type_of(told) == name


DETAILED = {
    "Name": "/model.0/conv/Conv + PWN(PWN(/model.0/act/Sigmoid), /model.0/act/Mul)",
    "LayerType": "CaskConvolution",
    "Inputs": [{"Name": "images", "Format/Datatype": "Four wide channel vectorized Int8 format"}],
    "Outputs": [{"Name": "act", "Format/Datatype": "Row major linear FP16 format"}],
    "ParameterType": "Convolution",
    "Weights": {"Type": "Int8", "Count": 432},
    "Metadata": "[ONNX Layer: /model.0/conv/Conv]\x1e[ONNX Layer: /model.0/act/Sigmoid]",
}


def test_a_convolution_computes_in_its_weights_type() -> None:
    (layer,) = parse_inspector(json.dumps({"Layers": [DETAILED]}))
    assert layer["kind"] == "Convolution"
    assert layer["precision"] == "int8"
    assert layer["parts"] == ["/model.0/conv/Conv", "/model.0/act/Sigmoid"]
    assert (layer["inputs"], layer["outputs"]) == (["images"], ["act"])
    Layer.model_validate(layer)


def test_without_weights_the_smallest_type_counts() -> None:
    layer = {
        "Name": "Reformatting CopyNode for Input Tensor 0",
        "LayerType": "Reformat",
        "Inputs": [{"Name": "a", "Format/Datatype": "Row major linear FP32"}],
        "Outputs": [{"Name": "b", "Format/Datatype": "Row major linear FP16 format"}],
        "Weights": {"Type": "Float", "Count": 0},
    }
    (parsed,) = parse_inspector(json.dumps({"Layers": [layer]}))
    assert (parsed["kind"], parsed["precision"]) == ("Reformat", "fp16")


def test_bare_names_are_taken_apart() -> None:
    (layer,) = parse_inspector('{"Layers": ["conv + bn + relu"], "Bindings": ["x"]}')
    assert layer["parts"] == ["conv", "bn", "relu"]
    Layer.model_validate(layer)
