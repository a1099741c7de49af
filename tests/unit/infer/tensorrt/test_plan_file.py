import json
from pathlib import Path

import pytest

from edgecount.errors import ConfigError, ModelError
from edgecount.infer import recipe as recipes
from edgecount.infer.tensorrt import plan_file

PLAN = b"ftrt" + bytes(range(64))
ENGINE = Path("yolo.engine")


def with_header(values: object, plan: bytes = PLAN) -> bytes:
    text = json.dumps(values).encode()
    return len(text).to_bytes(4, "little") + text + plan


def test_a_plain_plan_is_taken_as_it_is():
    file = plan_file.split(ENGINE, PLAN)
    assert file.plan == PLAN
    assert file.metadata == {}
    assert file.declared_precision is None


def test_the_header_of_ultralytics_is_cut_off_and_read_like_an_onnx_files_metadata():
    values = {
        "author": "Ultralytics",
        "stride": 32,
        "task": "detect",
        "batch": 1,
        "imgsz": [416, 640],
        "names": {"0": "person", "1": "head"},
        "args": {"batch": 1, "half": False, "int8": True},
    }
    file = plan_file.split(ENGINE, with_header(values))
    assert file.plan == PLAN
    assert file.declared_precision == "int8"
    recipe = recipes.infer(ENGINE, ("n", 3, -1, -1), ("n", 6, -1), file.metadata)
    assert recipe.classes == ["person", "head"]
    assert (recipe.input.width, recipe.input.height) == (640, 416)
    assert recipe.head == "yolov8"


@pytest.mark.parametrize(
    ("arguments", "precision"), [({"half": True, "int8": False}, "fp16"), ({"int8": False}, None)]
)
def test_the_header_may_tell_the_precision(arguments, precision):
    file = plan_file.split(ENGINE, with_header({"args": arguments}))
    assert file.declared_precision == precision


@pytest.mark.parametrize(
    "data",
    [
        (1 << 30).to_bytes(4, "little") + b'{"a": 1}',  # longer than the file
        (8).to_bytes(4, "little") + b"{broken}" + PLAN,
        (8).to_bytes(4, "little") + b'{"\xff": 1}' + PLAN,
        (2).to_bytes(4, "little") + b"[]" + PLAN,
    ],
)
def test_what_only_looks_like_a_header_belongs_to_the_plan(data):
    assert plan_file.split(ENGINE, data).plan == data


def test_an_engine_that_ends_after_its_header_is_refused():
    with pytest.raises(ModelError, match="ends after its header: build it again"):
        plan_file.split(ENGINE, with_header({"task": "detect"}, b""))


def test_a_file_that_is_not_there_or_empty_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"cannot read the engine .*No such file"):
        plan_file.read(tmp_path / "gone.engine")
    (tmp_path / "empty.engine").touch()
    with pytest.raises(ModelError, match="holds 0 bytes"):
        plan_file.read(tmp_path / "empty.engine")
