"""Builds with the real TensorRT-RTX, which needs no GPU to build."""

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import onnx
import psutil
import pytest
from click.testing import CliRunner
from onnx import TensorProto, helper
from support import conv_models, onnx_models

from edgecount.cli.main import cli
from edgecount.errors import ConfigError, EdgecountError, EngineError, ModelError
from edgecount.infer.tensorrt import device, loader, versions
from edgecount.infer.tensorrt.cache import EngineCache
from edgecount.infer.tensorrt.profile import parse
from edgecount.toolchain.build.builder import build
from edgecount.toolchain.build.job import Silent
from edgecount.toolchain.build.request import BuildRequest

pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx-cu13 is not installed")
pytestmark = pytest.mark.integration

RANGE = (parse("1x3x320x320"), parse("1x3x640x640"), parse("4x3x1280x1280"))
RUNTIME = "tensorrt_rtx"


@pytest.fixture(scope="module")
def trt():
    return versions.find(RUNTIME)


@pytest.fixture
def make(trt, tmp_path):
    """Build with the real module into a cache of its own."""

    def run(model, *, facts=None, force=False, **asked):
        request = BuildRequest(model=str(model), **asked)
        cache = EngineCache(tmp_path / "cache")
        return build(request, trt, facts or device.look(), cache, Silent(), force=force)

    return run


@pytest.fixture(scope="module")
def yolov8(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("yolov8")
    path = conv_models.yolov8_like(folder / "people.onnx")
    conv_models.with_qdq(path, folder / "people.int8.onnx")
    return path


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_a_dynamic_yolov8_builds_for_a_range_of_sizes(make, yolov8, precision) -> None:
    built = make(yolov8, precision=precision, shapes=RANGE)
    manifest = built.entry.manifest
    assert not built.reused
    assert manifest.key.model == "people"
    assert manifest.key.profile.text == "1x3x320x320..1x3x640x640..4x3x1280x1280"
    assert len(built.entry.read()) == manifest.engine_bytes > 100_000
    assert manifest.precisions()[precision] > 10


@pytest.mark.parametrize("precision", ["fp32", "fp16", "int8"])
def test_the_shipped_detector_builds(make, tmp_path, precision) -> None:
    folder = Path(__file__).parents[3] / "engines/head-n"
    copied = tmp_path / "head-n"
    copied.mkdir()
    for name in ("head-n.onnx", "recipe.yaml"):
        shutil.copy(folder / name, copied / name)
    conv_models.with_qdq(copied / "head-n.onnx", copied / "head-n.int8.onnx")
    built = make(copied, precision=precision)
    assert built.entry.manifest.key.model == "head-n"
    assert built.entry.manifest.precisions()[precision] > 100


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_fixed_yolox_of_opset_11_is_upgraded_and_builds(make, tmp_path, precision) -> None:
    model = conv_models.yolox_like(tmp_path / "yolox.onnx")
    built = make(model, precision=precision)
    manifest = built.entry.manifest
    assert "yolox.onnx is of opset 11: upgraded to 13 first" in built.notes
    assert manifest.key.profile.text == "1x3x416x416"
    assert manifest.precisions()[precision] > 30
    assert {"resize", "pooling"} <= {layer.kind for layer in manifest.layers}
    with pytest.raises(ConfigError, match="height is fixed at 416"):
        make(model, precision=precision, shapes=(None, parse("1x3x640x640"), None))


def test_yolox_nano_is_upgraded_and_builds(make) -> None:
    model = os.environ.get("EDGECOUNT_TEST_MODEL")
    if not model:
        pytest.skip("EDGECOUNT_TEST_MODEL does not name YOLOX-nano")
    for precision in ("fp32", "fp16"):
        built = make(model, precision=precision)
        assert any("opset 11: upgraded to 13" in note for note in built.notes)
        assert built.entry.manifest.key.profile.text == "1x3x416x416"


def test_the_second_build_is_a_hit_and_force_is_not(make, yolov8) -> None:
    first = make(yolov8, precision="fp16")
    begun = time.monotonic()
    again = make(yolov8, precision="fp16")
    assert again.reused
    assert again.entry.manifest.built_at == first.entry.manifest.built_at
    assert time.monotonic() - begun < 1.0
    assert not make(yolov8, precision="fp16", force=True).reused


def test_another_model_file_is_built_anew_and_a_rollback_goes_back(make, yolov8, tmp_path) -> None:
    path = tmp_path / "people.onnx"
    shutil.copy(yolov8, path)
    old = make(path, precision="fp16")
    model = onnx.load(str(path))
    model.doc_string = "retrained"
    onnx.save(model, str(path))
    new = make(path, precision="fp16")
    assert new.reason is not None
    assert new.reason.startswith("the ONNX file has changed since: rebuilding, about")
    slot = EngineCache(tmp_path / "cache").slot(new.entry.manifest.key)
    assert slot.rollback().engine == old.entry.engine
    assert old.entry.read()
    assert make(path, precision="fp16").reused  # by hand: the rollback is over
    assert slot.index().current == new.entry.manifest.key.digest


def test_layers_that_the_recipe_keeps_in_float_are_float(make, tmp_path) -> None:
    path = conv_models.yolov8_like(tmp_path / "people.onnx")
    recipe = onnx_models.write_recipe(
        path, "yolov8", classes=("head", "hat"), width=320, height=320
    )
    with recipe.open("a") as file:
        file.write("precision: {fp32: ['head.*']}\n")
    layers = {x.name: x.precision for x in make(path, precision="fp16").entry.manifest.layers}
    assert [layers[f"head.{i}"] for i in range(3)] == ["fp32"] * 3
    assert layers["backbone.4"] == "fp16"
    recipe.write_text(recipe.read_text().replace("head.*", "no.such.*"))
    with pytest.raises(ConfigError, match=r"'no\.such\.\*' matches no layer"):
        make(path, precision="fp16")


def test_a_gpu_of_another_kind_is_refused_before_the_build(make, yolov8) -> None:
    h100 = device.DeviceFacts("NVIDIA H100", (9, 0), "580.65", "13.0", False)
    with pytest.raises(EngineError, match=r"no kernels for this GPU \(SM 9\.0\)"):
        make(yolov8, facts=h100)


def _wrong(path: Path, op: str, **attributes: object) -> Path:
    graph = helper.make_graph(
        [helper.make_node(op, ["images"], ["output"], "odd", **attributes)],
        "g",
        [helper.make_tensor_value_info("images", TensorProto.FLOAT, [1, 3, 64, 64])],
        [helper.make_tensor_value_info("output", TensorProto.FLOAT, [1, 6, 84])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 13)])
    model.ir_version = 8
    onnx.save(model, str(path))
    return path


@pytest.mark.parametrize("op", ["Unheard", "Det"])
def test_an_unknown_operator_is_one_sentence(make, tmp_path, op) -> None:
    with pytest.raises(ModelError) as caught:
        make(_wrong(tmp_path / "odd.onnx", op), precision="fp32")
    told = str(caught.value)
    assert f"it does not know the operator {op} (node odd)" in told
    assert "\n" not in told


@pytest.mark.parametrize(
    ("content", "told"),
    [(b"nothing of the kind", "no ONNX file"), (b"", "no ONNX file")],
)
def test_a_broken_file_is_one_sentence(make, tmp_path, content, told) -> None:
    path = tmp_path / "broken.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=told):
        make(path)


def test_int8_without_a_quantised_file_says_how_to_make_one(make, tmp_path) -> None:
    path = conv_models.yolov8_like(tmp_path / "plain.onnx")
    with pytest.raises(
        ModelError, match=r"plain\.int8\.onnx beside it: make one with  edgecount q"
    ):
        make(path, precision="int8")


def _start(yolov8: Path, cache: Path) -> "subprocess.Popen[str]":
    """A build in a process of its own, like a person's or the service's."""
    return subprocess.Popen(
        [sys.executable, "-m", "edgecount", "build", str(yolov8), "--precision", "fp16",
         "--max", "8x3x1280x1280", "--force", "--json"],
        env={**os.environ, "EDGECOUNT_CACHE": str(cache)},
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip


def _until(line: str, process: "subprocess.Popen[str]") -> None:
    assert process.stderr is not None
    for told in process.stderr:
        if line in told:
            return
    pytest.fail(f"the build ended before it said {line!r}")


def test_a_killed_build_leaves_the_last_good_engine(yolov8, tmp_path) -> None:
    def state():
        files = sorted(p for p in tmp_path.rglob("*") if p.is_file() and ".build" not in p.parts)
        return {str(p): p.read_bytes() for p in files}

    first = _start(yolov8, tmp_path)
    assert first.wait(60) == 0
    before = state()
    for moment in ("asked for", "Building engine", "Preparing graph"):
        with _start(yolov8, tmp_path) as process:
            _until(moment, process)
            children = psutil.Process(process.pid).children()
            process.send_signal(signal.SIGKILL)
        assert state() == before
        # The building process ends with its parent, and so does the lock.
        assert psutil.wait_procs(children, timeout=20)[1] == []
    with _start(yolov8, tmp_path) as process:
        output, _ = process.communicate(timeout=60)
    assert json.loads(output)["reused"] is False
    assert list(tmp_path.rglob(".build")) == []  # what the killed ones left is gone


def test_a_build_whose_process_dies_is_tried_once_more(yolov8, tmp_path) -> None:
    with _start(yolov8, tmp_path) as process:
        _until("Building engine", process)
        (child,) = psutil.Process(process.pid).children()
        child.kill()
        output, told = process.communicate(timeout=60)
    assert process.returncode == 0
    assert "was killed (SIGKILL" in told
    assert "trying once more with 512 MiB of workspace" in told
    manifest = json.loads(output)["manifest"]
    assert manifest["workspace_used"] == 512 * 2**20
    assert manifest["key"]["workspace"] == 2 * 2**30


def test_the_engine_cannot_be_opened_without_a_gpu_of_its_kind(make, yolov8, trt) -> None:
    if device.look().capability is not None:
        pytest.skip("there is a GPU here")
    built = make(yolov8, precision="fp16")
    assert built.entry.manifest.layers_of == "network"
    assert any("no GPU here" in note for note in built.notes)
    with pytest.raises(EngineError) as caught:
        loader.load(built.entry.engine, trt)
    told = str(caught.value)
    assert "no NVIDIA GPU here, or its driver is too old for TensorRT-RTX" in told
    assert "checkMacros" not in told


def test_the_commands(yolov8, tmp_path, monkeypatch) -> None:
    monkeypatch.setenv("EDGECOUNT_CACHE", str(tmp_path))
    runner = CliRunner()
    result = runner.invoke(cli, ["build", str(yolov8), "--precision", "fp32", "--json"])
    assert result.exit_code == 0
    built = json.loads(result.stdout)
    assert Path(built["engine"]).is_file()
    result = runner.invoke(cli, ["build", str(yolov8), "--precision", "fp32"])
    assert "already built" in result.stdout
    rows = json.loads(runner.invoke(cli, ["model", "list", "--json"]).stdout)
    assert [(r["model"], r["state"]) for r in rows] == [("people", "current")]
    assert "people" in runner.invoke(cli, ["model", "list"]).stdout
    refused = runner.invoke(cli, ["model", "rollback", "people"])
    assert isinstance(refused.exception, EdgecountError)
    no_dla = runner.invoke(cli, ["build", str(yolov8), "--precision", "fp16", "--dla"])
    assert isinstance(no_dla.exception, ConfigError)
    assert "TensorRT-RTX 1.7.1 has no DLA" in str(no_dla.exception)


def test_only_the_casts_at_the_ends_of_an_fp16_network_are_float(make, yolov8) -> None:
    layers = make(yolov8, precision="fp16").entry.manifest.layers
    assert [layer.name for layer in layers if layer.precision == "fp32"] == ["cast.output"]
