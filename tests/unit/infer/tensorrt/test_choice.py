"""Service and build agree on file, precision and key."""

import json
from pathlib import Path

import onnx
import pytest
from support import conv_models

from edgecount.infer.precision import METADATA_KEY
from edgecount.infer.recipe import InputRecipe, Recipe
from edgecount.infer.tensorrt.choice import choose_precision, file_for, wanted_key
from edgecount.infer.tensorrt.device import DeviceFacts
from edgecount.infer.tensorrt.profile import Profile
from edgecount.infer.tensorrt.versions import TensorRt, Version, features_of
from edgecount.toolchain.build.request import BuildRequest, plan

ORIN = DeviceFacts("Orin", (8, 7), "36.4.3", "12.6", True)
NANO = DeviceFacts("Nano", (5, 3), "32.7.4", "10.2", True)
VERSION = Version.parse("tensorrt", "8.5.2.2")


@pytest.fixture
def path(tmp_path) -> Path:
    plain = conv_models.yolov8_like(tmp_path / "people.onnx")
    conv_models.with_qdq(plain, tmp_path / "people.int8.onnx")
    return plain


def test_each_precision_has_its_file(path) -> None:
    quantised = path.with_name("people.int8.onnx")
    assert file_for(path, "int8") == file_for(quantised, "int8") == quantised
    assert file_for(path, "fp16") == file_for(quantised, "fp32") == path
    quantised.unlink()
    assert file_for(path, "int8") == path


def test_a_refused_precision_gives_its_reason(path) -> None:
    assert choose_precision("int8", path, ORIN) == ("int8", None)
    precision, reason = choose_precision("int8", path, NANO)
    assert precision == "fp16"
    assert reason is not None
    assert "no INT8 units" in reason


@pytest.mark.parametrize(("within", "expected"), [(True, "int8"), (False, "fp16")])
def test_auto_takes_no_file_that_is_over_its_budget(path, within, expected) -> None:
    quantised = path.with_name("people.int8.onnx")
    model = onnx.load(str(quantised))
    note = {"loss": {"ap50_points": 3.0, "within": within}}
    model.metadata_props.add(key=METADATA_KEY, value=json.dumps(note))
    onnx.save(model, str(quantised))
    precision, reason = choose_precision("auto", path, ORIN)
    assert precision == expected
    assert (reason is None) == within
    assert choose_precision("int8", path, ORIN) == ("int8", None)
    assert choose_precision("auto", path, ORIN, calibrated=True) == ("int8", None)


@pytest.mark.parametrize("device", [ORIN, NANO])
@pytest.mark.parametrize("asked", ["auto", "fp32", "fp16", "int8"])
@pytest.mark.parametrize("given", ["people.onnx", "people.int8.onnx"])
def test_the_service_wants_what_the_command_builds(path, device, asked, given) -> None:
    trt = TensorRt(None, VERSION, features_of(VERSION))
    model = path.with_name(given)
    planned = plan(BuildRequest(str(model), precision=asked), trt, device)
    # The service may run a recipe with another default size: only the profile counts.
    recipe = planned.recipe.model_copy(update={"input": InputRecipe(width=96, height=96)})
    key = wanted_key(model, recipe, VERSION, device, asked=asked, profile=planned.profile)
    assert key == planned.key


def test_shapes_make_another_key(path) -> None:
    recipe = Recipe(
        name="m", file="m", head="ltrb", classes=["a"], input=InputRecipe(width=64, height=64)
    )
    keys = {
        wanted_key(path, recipe, VERSION, ORIN, asked="auto", profile=Profile(min=s, opt=s, max=s))
        for s in ((1, 3, 64, 64), (1, 3, 96, 96))
    }
    assert len(keys) == 2
