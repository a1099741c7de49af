"""``auto`` builds INT8 and FP16 and keeps the faster; on the real builder, with told times."""

from pathlib import Path

import pytest
from support import conv_models

from edgecount.errors import EngineError
from edgecount.infer.recipe import Recipe
from edgecount.infer.tensorrt import versions
from edgecount.infer.tensorrt.cache import EngineCache
from edgecount.infer.tensorrt.choice import wanted_key
from edgecount.infer.tensorrt.device import DeviceFacts
from edgecount.toolchain.build.auto import build_fastest
from edgecount.toolchain.build.job import Silent
from edgecount.toolchain.build.request import BuildRequest

pytest.importorskip("tensorrt_rtx", reason="tensorrt-rtx-cu13 is not installed")
pytestmark = pytest.mark.integration

RTX4060 = DeviceFacts("NVIDIA GeForce RTX 4060", (8, 9), "580.65", "13.0", False)
NOTHING = DeviceFacts("none", None, "none", "none", False)


class Heard(Silent):
    def __init__(self) -> None:
        self.said = []

    def say(self, text) -> None:
        self.said.append(text)


@pytest.fixture
def model(tmp_path) -> Path:
    path = conv_models.yolov8_like(tmp_path / "people.onnx")
    conv_models.with_qdq(path, tmp_path / "people.int8.onnx")
    return path


@pytest.fixture
def make(model, tmp_path):
    cache = EngineCache(tmp_path / "cache")

    def run(times, facts=RTX4060, **asked):
        measured = []

        def measure(engine: Path) -> float:
            precision = engine.parent.name.split("-")[0]
            measured.append(precision)
            return times[precision]

        heard = Heard()
        built = build_fastest(
            BuildRequest(str(model), **asked),
            versions.find("tensorrt_rtx"),
            facts,
            cache,
            heard,
            timed=measure,
        )
        return built, measured, heard.said, cache

    return run


@pytest.mark.parametrize(
    ("times", "wanted"),
    [({"int8": 1.0, "fp16": 2.0}, "int8"), ({"int8": 3.0, "fp16": 2.0}, "fp16")],
)
def test_the_faster_one_is_used_also_by_the_service(make, model, times, wanted) -> None:
    built, measured, said, cache = make(times)
    assert built.entry.manifest.key.precision == wanted
    assert measured == ["int8", "fp16"]
    assert said[-1].endswith(f"; {wanted} is used")
    key = built.entry.manifest.key
    recipe = Recipe.model_validate(
        {"name": "people", "file": "people.onnx", "head": "yolov8", "classes": ["head", "hat"],
         "input": {"width": 640, "height": 640}}
    )  # fmt: skip
    now = wanted_key(
        model, recipe, key.version, RTX4060, asked="auto", profile=key.profile, cache=cache
    )
    assert now == key
    again, measured, _, _ = make(times)
    assert measured == []  # it is known
    assert again.reused
    assert again.entry == built.entry


def test_a_changed_file_is_measured_anew(make, model) -> None:
    make({"int8": 1.0, "fp16": 2.0})
    conv_models.with_qdq(model, model.with_name("people.int8.onnx"), activation=0.1)
    built, measured, _, _ = make({"int8": 3.0, "fp16": 2.0})
    assert measured == ["int8", "fp16"]
    assert built.entry.manifest.key.precision == "fp16"


@pytest.mark.parametrize(("asked", "facts"), [({"precision": "int8"}, RTX4060), ({}, NOTHING)])
def test_nothing_is_measured_where_int8_was_asked_for_or_no_gpu_is_there(
    make, asked, facts
) -> None:
    built, measured, _, _ = make({}, facts, **asked)
    assert built.entry.manifest.key.precision == "int8"
    assert measured == []


def test_an_engine_that_cannot_be_measured_is_used_all_the_same(make) -> None:
    class Failing(dict):
        def __missing__(self, precision):
            raise EngineError("the device is busy")

    built, measured, said, _ = make(Failing())
    assert built.entry.manifest.key.precision == "int8"
    assert measured == ["int8"]
    assert said[-1].endswith("could not be measured against FP16: the device is busy")
