"""How Polygraphy is called, and what the real one makes of it."""

import subprocess
import sys
from pathlib import Path
from typing import Optional

import numpy as np
import pytest
from support import conv_models, onnx_models

from edgecount.errors import ConfigError, EngineError
from edgecount.infer.tensorrt.versions import TensorRt, Version, features_of
from edgecount.toolchain.build import polygraphy
from edgecount.toolchain.build.comparison import made_up_pictures


def trt(text: str, product: str = "tensorrt") -> TensorRt:
    version = Version.parse(product, text)
    return TensorRt(None, version, features_of(version))


@pytest.fixture
def model(tmp_path) -> Path:
    path = conv_models.yolov8_like(tmp_path / "m.onnx")
    onnx_models.write_recipe(path, "yolov8", classes=("head", "hat"), width=96, height=64)
    return path


def nowhere_but_on_the_path(name: str) -> Optional[str]:
    return None if "/" in name else f"/bin/{name}"


def needs_polygraphy() -> None:
    try:
        polygraphy.find()
    except EngineError as error:
        pytest.skip(str(error))


@pytest.fixture
def run():
    """Run with a Polygraphy that keeps what it is called with, and the pictures it is fed."""

    def running(model: Path, runtime: TensorRt, pictures=2):
        seen = {}

        def call(arguments, env) -> int:
            script = {}
            exec(Path(arguments[-1]).read_text(), script)
            seen.update(arguments=arguments, env=env, fed=list(script["load_data"]()))
            return 3

        code = polygraphy.run(
            model, made_up_pictures(pictures), runtime, which=nowhere_but_on_the_path, call=call
        )
        assert code == 3
        return seen

    return running


def test_every_layer_is_compared_on_the_pictures_that_were_given(run, model) -> None:
    seen = run(model, trt("10.3.0"))
    assert seen["arguments"][:-1] == [
        "/bin/polygraphy", "run", str(model), "--trt", "--onnxrt", "--trt-outputs", "mark", "all",
        "--onnx-outputs", "mark", "all", "--fp16", "--input-shapes", "images:[1,3,64,96]",
        "--data-loader-script",
    ]  # fmt: skip
    assert [list(batch) for batch in seen["fed"]] == [["images"], ["images"]]
    for batch in seen["fed"]:
        assert batch["images"].shape == (1, 3, 64, 96)
        assert batch["images"].dtype == np.float32
        assert 0.0 < batch["images"].std() < 1.0  # scaled as the recipe says
    assert "POLYGRAPHY_USE_TENSORRT_RTX" not in seen["env"]


def test_what_tensorrt_may_use_follows_file_and_version(run, model, tmp_path) -> None:
    quantised = conv_models.with_qdq(model, tmp_path / "m.int8.onnx")
    onnx_models.write_recipe(quantised, "yolov8", classes=("head", "hat"), width=96, height=64)
    assert {"--fp16", "--int8"} <= set(run(quantised, trt("8.5.2"))["arguments"])
    for runtime in (trt("11.4.1"), trt("1.7.1", "tensorrt_rtx")):
        arguments = run(quantised, runtime)["arguments"]
        assert "--strongly-typed" in arguments
        assert not {"--fp16", "--int8"} & set(arguments)
    assert run(model, trt("1.7.1", "tensorrt_rtx"))["env"]["POLYGRAPHY_USE_TENSORRT_RTX"] == "1"


def test_without_polygraphy_it_is_said_how_to_get_it(model) -> None:
    with pytest.raises(EngineError, match="pip install polygraphy"):
        polygraphy.run(model, [], trt("10.3.0"), which=lambda _name: None)


def test_the_one_of_this_environment_is_taken_before_others() -> None:
    beside = str(Path(sys.executable).with_name("polygraphy"))
    assert polygraphy.find(lambda name: name) == beside
    assert polygraphy.find(nowhere_but_on_the_path) == "/bin/polygraphy"


def test_an_engine_is_no_onnx_file() -> None:
    with pytest.raises(ConfigError, match="give Polygraphy the ONNX file"):
        polygraphy.run(Path("m.engine"), [], trt("10.3.0"), which=str)


@pytest.mark.parametrize(("runtime", "marks"), [
    (trt("10.3.0"), "fp16=True"), (trt("11.4.1"), "strongly_typed=True"),
])  # fmt: skip
def test_the_real_polygraphy_understands_the_command(model, tmp_path, runtime, marks) -> None:
    needs_polygraphy()
    script = tmp_path / "what_it_would_run.py"

    def write_script(arguments, env) -> int:
        return subprocess.call([*arguments, "--gen-script", str(script)], env=env)

    assert polygraphy.run(model, made_up_pictures(1), runtime, call=write_script) == 0
    written = script.read_text()
    assert marks in written
    assert "OnnxrtRunner" in written
    assert "TrtRunner" in written


def test_the_real_polygraphy_runs_our_pictures_through_onnx_runtime(model) -> None:
    needs_polygraphy()
    told = []

    def without_tensorrt(arguments, env) -> int:
        position = arguments.index("--trt")
        kept = [*arguments[:position], "--onnxrt", *arguments[position + 1 :]]
        # Of TensorRT's options none is known without TensorRT.
        kept = [a for a in kept if a != "--fp16"]
        start = kept.index("--trt-outputs")
        done = subprocess.run(
            [*kept[:start], *kept[start + 3 :]], env=env, capture_output=True, text=True
        )
        told.append(done.stdout)
        return done.returncode

    assert polygraphy.run(model, made_up_pictures(2), trt("10.3.0"), call=without_tensorrt) == 0
    assert "PASSED" in told[0]
    assert "backbone.0" in told[0]
