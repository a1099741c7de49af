"""The engine's key and its manifest."""

import pytest
from support.engine_key import SHAPE, engine_key

from edgecount.errors import EngineError
from edgecount.infer.recipe import InputRecipe, Recipe
from edgecount.infer.tensorrt import manifest as manifests
from edgecount.infer.tensorrt.device import DeviceFacts
from edgecount.infer.tensorrt.manifest import BuildKey, difference, key_for, loadable, recipe_hash
from edgecount.infer.tensorrt.profile import Profile
from edgecount.infer.tensorrt.versions import Version

LARGER = (1, 3, 640, 640)
KEY = engine_key()
CHANGES = {
    "model": ("head-s", "the model has changed"),
    "model_sha256": ("c", "the ONNX file has changed since"),
    "recipe_sha256": ("c", "the recipe's precision has changed since"),
    "calibration_sha256": ("c", "the calibration has changed since"),
    "runtime": ("tensorrt_rtx", "built with TensorRT 8.5.2, this is TensorRT-RTX 8.5.2"),
    "runtime_version": ("10.3.0", "built with TensorRT 8.5.2, this is TensorRT 10.3.0"),
    "cuda": ("12.6", "built with CUDA 11.4, this is 12.6"),
    "driver": ("36.4.3", "built with driver 35.4.1, this is 36.4.3"),
    "device": ("Orin", "built for Xavier (SM 7.2), this is Orin (SM 7.2)"),
    "sm": ("8.7", "built for Xavier (SM 7.2), this is Xavier (SM 8.7)"),
    "precision": ("fp16", "precision int8 → fp16"),
    "profile": (Profile(min=SHAPE, opt=SHAPE, max=LARGER), "input 1x3x416x416 → 1x3x416x416.."),
    "workspace": (2**30, "workspace 2048 MiB → 1024 MiB"),
    "dla": (True, "DLA off → on"),
}


@pytest.mark.parametrize("field", sorted(BuildKey.model_fields))
def test_every_field_of_the_key_matters_and_is_told(field) -> None:
    value, told = CHANGES[field]
    other = KEY.model_copy(update={field: value})
    assert other.digest != KEY.digest
    assert told in (difference(KEY, other) or "")


def test_equal_keys_have_no_difference() -> None:
    again = BuildKey.model_validate_json(KEY.model_dump_json())
    assert again == KEY
    assert again.digest == KEY.digest
    assert difference(KEY, again) is None


def test_another_board_is_one_sentence() -> None:
    now = KEY.model_copy(update={"runtime_version": "10.3.0", "sm": "8.7", "device": "Orin"})
    assert difference(KEY, now) == (
        "built with TensorRT 8.5.2 for Xavier (SM 7.2), this is TensorRT 10.3.0 on Orin (SM 8.7)"
    )


def test_a_patch_version_that_the_label_hides_is_shown() -> None:
    now = KEY.model_copy(update={"runtime_version": "8.5.2.3"})
    assert difference(KEY, now) == "built with TensorRT 8.5.2.2, this is TensorRT 8.5.2.3"


@pytest.mark.parametrize("field", ["runtime", "runtime_version", "device", "sm"])
def test_what_an_engine_is_bound_to(field) -> None:
    assert not loadable(KEY, KEY.model_copy(update={field: CHANGES[field][0]}))


def test_an_engine_of_another_model_file_can_be_loaded() -> None:
    assert loadable(KEY, KEY.model_copy(update={"model_sha256": "c", "driver": "36.0"}))


RECIPE = Recipe(
    name="m", file="m.onnx", head="ltrb", classes=["head"], input=InputRecipe(width=416, height=416)
)


def test_thresholds_do_not_rebuild_an_engine_but_precision_rules_do() -> None:
    assert recipe_hash(RECIPE) == recipe_hash(RECIPE.model_copy(update={"score_threshold": 0.9}))
    other = Recipe.model_validate({**RECIPE.model_dump(), "precision": {"fp32": ["head.*"]}})
    assert recipe_hash(RECIPE) != recipe_hash(other)


def test_the_key_hashes_files(tmp_path) -> None:
    model = tmp_path / "m.onnx"
    model.write_bytes(b"one")

    def key(calibration=""):
        return key_for(
            model,
            RECIPE,
            Version("tensorrt", (8, 5, 2, 2)),
            DeviceFacts("Orin", (8, 7), "36.4", "12.6", True),
            precision="fp16",
            profile=KEY.profile,
            workspace=1,
            calibration_sha256=calibration,
        )

    first = key()
    assert first == key()
    assert (first.sm, first.runtime_version, first.calibration_sha256) == ("8.7", "8.5.2.2", "")
    assert key("abc").calibration_sha256 == "abc"
    model.write_bytes(b"three")
    assert key() != first
    with pytest.raises(EngineError, match=r"cannot read .*nothing"):
        manifests.file_hash(tmp_path / "nothing")


@pytest.mark.parametrize("text", ["", "{}", "{", '{"format": 2}'])
def test_a_broken_manifest_is_an_error(tmp_path, text) -> None:
    path = tmp_path / "m.json"
    path.write_text(text)
    with pytest.raises(EngineError, match=r"the manifest .*m\.json"):
        manifests.read(path)
