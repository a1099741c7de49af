"""What is said of an engine's layers, in a table and on a page."""

import hashlib
import json
from html.parser import HTMLParser
from pathlib import Path

import pytest
from click.testing import CliRunner
from support.engine_key import engine_key

from edgecount.cli.main import cli
from edgecount.errors import ConfigError, EngineError
from edgecount.infer.tensorrt.cache import EngineCache
from edgecount.infer.tensorrt.manifest import BuildKey, Layer, Manifest
from edgecount.toolchain.build import inspection
from edgecount.toolchain.build.inspection_html import render
from edgecount.toolchain.build.layers import parse_inspector

KEY = engine_key(model_sha256="0123456789abcdef0123")


def tensor(name: str, kind: str):
    return {"Name": name, "Location": "Device", "Dimensions": [1, 16, 52, 52],
            "Format/Datatype": kind}  # fmt: skip


INT8 = "Thirty-two wide channel vectorized row major Int8 format."
HALF = "Row major linear FP16 format"
LAYERS = json.dumps(
    {
        "Layers": [
            {
                "Name": "Reformatting CopyNode for Input Tensor 0 to stem.conv",
                "LayerType": "Reformat",
                "Inputs": [tensor("images", "Row major linear FP32")],
                "Outputs": [tensor("images.i8", INT8)],
                "ParameterType": "Reformat",
            },
            {
                "Name": "stem.weight + stem.QuantizeLinear + stem.conv + PWN(stem.act)",
                "LayerType": "CaskConvolution",
                "Inputs": [tensor("images.i8", INT8)],
                "Outputs": [tensor("stem", INT8)],
                "ParameterType": "Convolution",
                "Weights": {"Type": "Int8", "Count": 432},
                "Bias": {"Type": "Float", "Count": 16},
                "TacticName": "sm72_xmma_fprop_implicit_gemm_interleaved_i8i8_i8i32_f32",
            },
            {
                "Name": "left.conv + left.act || right.conv + right.act",
                "LayerType": "CaskConvolution",
                "Inputs": [tensor("stem", INT8)],
                "Outputs": [tensor("both", INT8)],
                "ParameterType": "Convolution",
                "Weights": {"Type": "Int8", "Count": 4608},
            },
            {
                "Name": "add.DequantizeLinear",
                "LayerType": "Dequantize",
                "Inputs": [tensor("both", INT8)],
                "Outputs": [tensor("both.half", HALF)],
                "ParameterType": "Dequantize",
            },
            {
                "Name": "head.<cls> & box",
                "LayerType": "CaskConvolution",
                "Inputs": [tensor("both.half", HALF)],
                "Outputs": [tensor("output", HALF)],
                "ParameterType": "Convolution",
                "Weights": {"Type": "Half", "Count": 80},
            },
        ],
        "Bindings": ["images", "output"],
    }
)


@pytest.fixture
def cache(tmp_path, monkeypatch) -> EngineCache:
    monkeypatch.setenv("EDGECOUNT_CACHE", str(tmp_path))
    return EngineCache(tmp_path)


def publish(cache: EngineCache, layers_of="engine", key: BuildKey = KEY) -> Path:
    layers = [Layer.model_validate(layer) for layer in parse_inspector(LAYERS)]
    manifest = Manifest(
        key=key,
        engine_sha256=hashlib.sha256(b"engine").hexdigest(),
        engine_bytes=6,
        built_at="2026-11-24T12:00:00+00:00",
        build_seconds=230.0,
        workspace_used=2**29,
        layers_of=layers_of,
        layers=layers,
        edgecount="0",
    )
    return cache.publish(manifest, b"engine").engine


def test_each_layer_is_described(cache) -> None:
    found = inspection.inspect(publish(cache))
    assert [row.layer.precision for row in found.rows] == ["int8", "int8", "int8", "int8", "fp16"]
    assert [row.remark for row in found.rows] == ["reformat", "", "siblings", "left-over", ""]
    assert [len(row.fused) for row in found.rows] == [0, 4, 4, 0, 0]
    assert found.precisions() == {"int8": 4, "fp16": 1}


def test_what_costs_time_is_told(cache) -> None:
    told = inspection.inspect(publish(cache)).findings
    assert told[0] == "8 nodes of the model are fused into 2 layers"
    assert told[1] == "1 layer computed as siblings in one launch"
    assert told[2].startswith("1 reformat copy data between layouts or precisions, which costs tim")
    assert "Reformatting CopyNode for Input Tensor 0 to stem.conv" in told[2]
    assert told[3].startswith("1 Q/DQ layer not fused into a neighbour: add.DequantizeLinear")
    assert told[4] == "2 of 3 convolutions compute in INT8; the others are head.<cls> & box"


def test_layers_before_fusion_are_not_judged(cache, monkeypatch) -> None:
    def no_tensorrt(_runtime):
        raise EngineError("none")

    monkeypatch.setattr(inspection.versions, "find", no_tensorrt)
    found = inspection.inspect(publish(cache, layers_of="network"))
    assert found.layers_of == "network"
    assert all(row.remark == "" for row in found.rows)
    (told,) = found.findings
    assert "before TensorRT fuses them" in told


class _Page(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.text = []
        self.rows = 0
        self.outside = []

    def handle_starttag(self, tag, attrs) -> None:
        self.rows += tag == "tr"
        self.outside += [v for k, v in attrs if k in ("src", "href")]

    def handle_data(self, data) -> None:
        self.text.append(data)


def test_the_page_holds_everything_and_needs_nothing(cache) -> None:
    page = _Page()
    html = render(inspection.inspect(publish(cache)))
    page.feed(html)
    text = " ".join(page.text)
    assert page.rows == 1 + 5
    assert page.outside == []
    for wanted in ("head-n int8 1x3x416x416", "TensorRT 8.5.2", "Xavier (SM 7.2)", "512 MiB",
                   "head.<cls> & box", "2 of 3 convolutions"):  # fmt: skip
        assert wanted in text
    assert "head.<cls>" not in html  # escaped


def test_the_command_shows_a_table_json_and_a_page(cache, tmp_path) -> None:
    publish(cache)
    runner = CliRunner()
    result = runner.invoke(cli, ["inspect", "head-n", "--html", str(tmp_path / "page.html")])
    assert result.exit_code == 0
    assert "5 layers: 4 int8, 1 fp16" in result.stdout
    assert (tmp_path / "page.html").read_text().startswith("<!doctype html>")
    data = json.loads(runner.invoke(cli, ["inspect", "head-n", "--json"]).stdout)
    assert data["precisions"] == {"int8": 4, "fp16": 1}
    assert data["layers"][0]["remark"] == "reformat"


def test_an_onnx_file_is_no_engine(tmp_path) -> None:
    with pytest.raises(ConfigError, match="is an ONNX file: build it"):
        inspection.inspect(tmp_path / "m.onnx")


def test_which_engine_must_be_clear(cache, tmp_path) -> None:
    with pytest.raises(ConfigError, match="no engine file, and no engine of such a model"):
        inspection.find_engine("head-n", cache)
    first = publish(cache)
    assert inspection.find_engine("head-n", cache) == first
    assert inspection.find_engine(str(first), cache) == first
    publish(cache, key=KEY.model_copy(update={"precision": "fp16"}))
    with pytest.raises(ConfigError, match="has several engines; give one of"):
        inspection.find_engine("head-n", cache)


if __name__ == "__main__":  # a page to look at
    import sys
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        engine = publish(EngineCache(Path(folder)))
        Path(sys.argv[1]).write_text(render(inspection.inspect(engine)))
