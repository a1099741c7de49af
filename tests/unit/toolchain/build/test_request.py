"""From what is asked for to one well-defined build."""

import shutil
from pathlib import Path

import pytest
from support import conv_models, onnx_models

from edgecount.errors import ConfigError, EngineError, ModelError
from edgecount.infer.tensorrt.device import DeviceFacts
from edgecount.infer.tensorrt.profile import parse
from edgecount.infer.tensorrt.versions import TensorRt, Version, features_of
from edgecount.toolchain.build.request import BuildRequest, plan
from edgecount.toolchain.quantize.table import CalibrationTable

ORIN = DeviceFacts("Orin", (8, 7), "36.4.3", "12.6", True)
NANO = DeviceFacts("Nano", (5, 3), "32.7.4", "10.2", True)
NOTHING = DeviceFacts("none", None, "none", "none", False)


def trt(text: str) -> TensorRt:
    version = Version.parse("tensorrt", text)
    return TensorRt(None, version, features_of(version))


OLD, TEN, ELEVEN = trt("8.5.2.2"), trt("10.3.0"), trt("11.4.1")


@pytest.fixture
def plain(tmp_path) -> Path:
    return conv_models.yolov8_like(tmp_path / "people.onnx")


@pytest.fixture
def both(plain) -> Path:
    conv_models.with_qdq(plain, plain.with_name("people.int8.onnx"))
    return plain


@pytest.fixture
def table(tmp_path) -> Path:
    path = tmp_path / "calibration.json"
    CalibrationTable("", "entropy", 500, "", {}, {"images": 1.0}).save(path)
    return path


def test_auto_is_int8_where_file_and_units_are_there(both) -> None:
    planned = plan(BuildRequest(str(both)), OLD, ORIN)
    assert planned.precision == "int8"
    assert planned.file.path.name == "people.int8.onnx"
    assert planned.key.model == "people"
    assert planned.notes == ()


def test_auto_is_fp16_without_a_quantised_file(plain) -> None:
    assert plan(BuildRequest(str(plain)), OLD, ORIN).precision == "fp16"


def test_auto_is_fp16_without_units_and_says_nothing(both) -> None:
    planned = plan(BuildRequest(str(both)), OLD, NANO)
    assert planned.precision == "fp16"
    assert planned.file.path == both
    assert planned.notes == ()


def test_int8_without_units_is_fp16_and_says_so_once(both) -> None:
    planned = plan(BuildRequest(str(both), precision="int8"), OLD, NANO)
    assert planned.precision == "fp16"
    assert planned.key.precision == "fp16"
    assert planned.notes == ("Nano (SM 5.3) has no INT8 units: building FP16 instead",)


def test_the_quantised_file_may_be_given_itself(both) -> None:
    given = both.with_name("people.int8.onnx")
    assert plan(BuildRequest(str(given)), OLD, ORIN).file.path == given
    assert plan(BuildRequest(str(given), precision="fp16"), OLD, ORIN).file.path == both
    assert plan(BuildRequest(str(given)), OLD, NANO).file.path == both


def test_a_quantised_file_alone_builds_int8_only(both) -> None:
    both.unlink()
    given = str(both.with_name("people.int8.onnx"))
    with pytest.raises(ModelError, match="is quantised: build it with --precision int8"):
        plan(BuildRequest(given, precision="fp16"), OLD, ORIN)


@pytest.mark.parametrize(("runtime", "strong"), [(OLD, False), (TEN, True), (ELEVEN, True)])
def test_typing_follows_the_version(both, runtime, strong) -> None:
    assert plan(BuildRequest(str(both)), runtime, NOTHING).strongly_typed is strong


def test_an_implicit_calibration_takes_the_plain_file_weakly_typed(both, table) -> None:
    for runtime in (OLD, TEN):
        request = BuildRequest(str(both), precision="int8", calibration=table)
        planned = plan(request, runtime, NOTHING)
        assert planned.file.path == both
        assert not planned.strongly_typed
        assert planned.key.calibration_sha256


def test_calibrators_are_gone_in_11(both, table) -> None:
    with pytest.raises(ConfigError, match=r"TensorRT 11\.4\.1 has no calibrators any more"):
        plan(BuildRequest(str(both), calibration=table), ELEVEN, NOTHING)


def test_the_dla_does_not_compute_in_float(plain) -> None:
    with pytest.raises(ConfigError, match="DLA computes in FP16 and INT8"):
        plan(BuildRequest(str(plain), precision="fp32", dla=True), OLD, ORIN)


def test_the_dla_takes_types_from_flags_where_there_are_flags(plain) -> None:
    for runtime, strong in ((OLD, False), (TEN, False), (ELEVEN, True)):
        request = BuildRequest(str(plain), precision="fp16", dla=True)
        assert plan(request, runtime, NOTHING).strongly_typed is strong


def test_the_dla_of_a_version_with_calibrators_takes_no_quantised_file(both, table) -> None:
    for runtime in (OLD, TEN):
        planned = plan(BuildRequest(str(both), dla=True), runtime, ORIN)
        assert planned.precision == "fp16"
        assert any("the DLA takes no Q/DQ file" in note for note in planned.notes)
        with pytest.raises(ConfigError, match=r"--calibration TABLE.json, or --precision fp16"):
            plan(BuildRequest(str(both), precision="int8", dla=True), runtime, ORIN)
        request = BuildRequest(str(both), precision="int8", dla=True, calibration=table)
        assert plan(request, runtime, ORIN).precision == "int8"
    assert plan(BuildRequest(str(both), dla=True), ELEVEN, ORIN).precision == "int8"


def test_the_dla_has_one_shape(plain) -> None:
    shapes = (parse("1x3x320x320"), parse("2x3x320x320"), None)
    with pytest.raises(ConfigError, match="the DLA takes one shape"):
        plan(BuildRequest(str(plain), precision="fp16", dla=True, shapes=shapes), OLD, ORIN)


def test_a_device_profile_with_dla_builds_for_its_whole_batch(tmp_path) -> None:
    path = conv_models.yolov8_like(tmp_path / "people.onnx")
    recipe = onnx_models.write_recipe(path, "yolov8", classes=("head", "hat"), width=64, height=64)
    with recipe.open("a") as file:
        file.write("profiles: {board: {board: A board, width: 64, height: 64, batch: 4, "
                   "precision: fp16, power: MAXN, dla: true}}\n")  # fmt: skip
    planned = plan(BuildRequest(str(path), profile="board"), OLD, ORIN)
    assert planned.key.dla
    assert planned.profile.text == "4x3x64x64"


def test_a_version_without_dla_is_refused(plain) -> None:
    request = BuildRequest(str(plain), precision="fp16", dla=True)
    with pytest.raises(ConfigError, match=r"TensorRT 11\.4\.0 has no DLA.*build without --dla"):
        plan(request, trt("11.4.0"), NOTHING)


def test_a_version_without_kernels_is_refused(plain) -> None:
    with pytest.raises(EngineError, match=r"use TensorRT 10\.16"):
        plan(BuildRequest(str(plain)), trt("10.13.2"), ORIN)


def test_no_gpu_is_noted(plain) -> None:
    notes = plan(BuildRequest(str(plain)), OLD, NOTHING).notes
    assert notes == ("there is no GPU here: the engine can be built, but not opened or measured",)


def test_a_shipped_model_by_name_and_an_unknown_one() -> None:
    planned = plan(BuildRequest("head-n", precision="fp32"), OLD, ORIN)
    assert planned.key.model == "head-n"
    assert planned.profile.text == "1x3x416x416"
    with pytest.raises(ConfigError, match="'head-m' is not known: did you mean 'head-"):
        plan(BuildRequest("head-m"), OLD, ORIN)
    with pytest.raises(ConfigError, match="does not exist"):
        plan(BuildRequest("no/such.onnx"), OLD, ORIN)


def test_a_layout_that_is_no_detector_is_told(tmp_path) -> None:
    path = conv_models.yolov8_like(tmp_path / "m.onnx")
    shutil.copy(path, tmp_path / "copy.onnx")
    (tmp_path / "copy.recipe.yaml").write_text("name: x\n")
    with pytest.raises(ModelError, match=r"copy\.recipe\.yaml"):
        plan(BuildRequest(str(tmp_path / "copy.onnx")), OLD, ORIN)


def test_a_device_profile_gives_size_precision_and_batch() -> None:
    planned = plan(BuildRequest("head-n", profile="jetson-nano"), OLD, NANO)
    assert (planned.precision, planned.profile.text) == ("fp16", "1x3x320x320")
    planned = plan(BuildRequest("head-n", profile="agx-xavier"), OLD, ORIN)
    assert planned.profile.text == "1x3x416x416..1x3x416x416..4x3x416x416"


def test_what_is_asked_for_goes_before_a_device_profile() -> None:
    shape = (2, 3, 640, 640)
    request = BuildRequest(
        "head-n", profile="jetson-nano", precision="fp32", shapes=(None, shape, None)
    )
    planned = plan(request, OLD, NANO)
    assert (planned.precision, planned.profile.text) == ("fp32", "2x3x640x640")


def test_an_unknown_device_profile_names_the_nearest(plain) -> None:
    with pytest.raises(ConfigError, match="no device profile 'orin': did you mean"):
        plan(BuildRequest("head-n", profile="orin"), OLD, ORIN)
    with pytest.raises(ConfigError, match="its recipe has no profiles"):
        plan(BuildRequest(str(plain), profile="orin-nx"), OLD, ORIN)


def test_a_folder_of_pictures_and_the_calibrator_are_in_the_key(both, tmp_path) -> None:
    folder = tmp_path / "set"
    folder.mkdir()
    (folder / "a.png").write_bytes(b"not looked into before the build")

    def digest(calibrator) -> str:
        request = BuildRequest(
            str(both), precision="int8", calibration=folder, calibrator=calibrator
        )
        return plan(request, OLD, NOTHING).key.calibration_sha256

    assert digest("entropy") != digest("minmax")
    before = digest("entropy")
    (folder / "b.png").write_bytes(b"another")
    assert digest("entropy") != before
