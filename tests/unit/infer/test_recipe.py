from pathlib import Path
from typing import Dict, Optional, Sequence

import pytest
import yaml
from support.onnx_models import ultralytics_metadata

from edgecount.errors import ConfigError, ModelError
from edgecount.infer import recipe as recipes
from edgecount.infer.recipe import Recipe

COCO = 80
CELLS_416, CELLS_640, CELLS_640_P6 = 3549, 8400, 8500
FIXED_416, FIXED_640 = (1, 3, 416, 416), (1, 3, 640, 640)
DYNAMIC = ("batch", 3, "height", "width")
V5_NAMES = {"stride": "32", "names": "['head', 'person']"}


def infer(
    output: Sequence[object],
    inputs: Sequence[object] = FIXED_640,
    metadata: Optional[Dict[str, str]] = None,
    path: str = "my.onnx",
) -> Recipe:
    return recipes.infer(Path(path), inputs, output, metadata or {})


def minimal(**changes: object) -> Dict[str, object]:
    return {
        "name": "mine",
        "file": "mine.onnx",
        "head": "yolox",
        "classes": ["head"],
        "input": {"width": 416, "height": 416},
        **changes,
    }


def v8(names: Sequence[str], side: int = 640, **more: str) -> Dict[str, str]:
    return {**ultralytics_metadata(names, side, side), **more}


HEAD = ["head"]
PAIR = ["head", "person"]


@pytest.mark.parametrize(
    ("output", "inputs", "metadata", "head", "classes", "strides"),
    [
        # Everything fixed: the number of rows tells.
        ((1, CELLS_416, 85), FIXED_416, {}, "yolox", COCO, [8, 16, 32]),
        ((1, 3 * CELLS_640, 85), FIXED_640, {}, "yolov5", COCO, [8, 16, 32]),
        ((1, 84, CELLS_640), FIXED_640, {}, "yolov8", COCO, [8, 16, 32]),
        ((1, 300, 6), FIXED_640, {}, "end2end", COCO, [8, 16, 32]),
        ((1, 300, 6), FIXED_640, v8(PAIR), "end2end", 2, [8, 16, 32]),
        # One class, where rows of six numbers look like suppressed boxes.
        ((1, CELLS_416, 6), FIXED_416, {}, "yolox", 1, [8, 16, 32]),
        ((1, 84, 6), (1, 3, 64, 64), {}, "yolox", 1, [8, 16, 32]),
        ((1, 252, 6), (1, 3, 64, 64), {}, "yolov5", 1, [8, 16, 32]),
        ((1, 5, CELLS_640), FIXED_640, v8(HEAD), "yolov8", 1, [8, 16, 32]),
        # Other levels.
        ((1, CELLS_640_P6, 85), FIXED_640, {}, "yolox", COCO, [8, 16, 32, 64]),
        ((1, 3 * CELLS_640_P6, 7), FIXED_640, V5_NAMES, "yolov5", 2, [8, 16, 32, 64]),
        ((1, 6, CELLS_640_P6), FIXED_640, v8(PAIR), "yolov8", 2, [8, 16, 32, 64]),
        ((1, 6, 34000), FIXED_640, v8(PAIR), "yolov8", 2, [4, 8, 16, 32]),
        # Dynamic axes: the exporter's metadata tells.
        (("batch", "anchors", 7), DYNAMIC, V5_NAMES, "yolov5", 2, [8, 16, 32]),
        (("b", "anchors", 6), DYNAMIC, {"names": "['head']"}, "yolov5", 1, [8, 16, 32]),
        (("batch", 6, "anchors"), DYNAMIC, v8(PAIR), "yolov8", 2, [8, 16, 32]),
        (("batch", 6, None), DYNAMIC, v8(PAIR, stride="64"), "yolov8", 2, [8, 16, 32, 64]),
        (("batch", 84, -1), DYNAMIC, {}, "yolov8", COCO, [8, 16, 32]),
        (("batch", "rows", 6), DYNAMIC, v8(HEAD), "end2end", 1, [8, 16, 32]),
        # Ambiguous by numbers (64×64 has 84 cells), settled by the names.
        ((1, 84, 84), (1, 3, 64, 64), v8([f"c{i}" for i in range(80)]), "yolov8", 80, [8, 16, 32]),
    ],
)
def test_layout_is_read_from_the_file(
    output, inputs, metadata, head: str, classes: int, strides
) -> None:
    found = infer(output, inputs, metadata)
    assert (found.head, len(found.classes), found.strides) == (head, classes, strides)
    assert found.input.multiple == max(strides)


@pytest.mark.parametrize(
    ("output", "inputs", "metadata", "told"),
    [
        ((1, 100, 85), FIXED_640, {}, ["[1, 100, 85]", "640×640", "8400", "25200", "recipe.yaml"]),
        ((1, CELLS_416, 85), FIXED_640, {}, ["[1, 3549, 85]", "8400"]),
        ((1, 84), FIXED_640, {}, ["[1, 84]"]),
        ((), FIXED_640, {}, ["[]"]),
        ((1, 80, 80, 255), FIXED_640, {}, ["[1, 80, 80, 255]"]),
        ((1, 84, CELLS_640), FIXED_640, v8(PAIR), ["[1, 84, 8400]", "2 classes by its metadata"]),
        (
            ("b", "rows", 85),
            DYNAMIC,
            {},
            ["yolox with 80 classes or yolov5 with 80", "recipe.yaml"],
        ),
        (("b", "rows", "columns"), DYNAMIC, {}, ["'rows'", "known layouts"]),
        ((1, 300, 6, 1), FIXED_640, v8(PAIR), ["[1, 300, 6, 1]"]),
        ((1, 116, CELLS_640), FIXED_640, v8(PAIR, task="segment"), ["'segment'", "detectors"]),
    ],
)
def test_what_cannot_be_read_is_an_error_that_names_both_sides(
    output, inputs, metadata, told: Sequence[str]
) -> None:
    with pytest.raises(ModelError) as caught:
        infer(output, inputs, metadata)
    for words in ("my.onnx", *told):
        assert words in str(caught.value)


@pytest.mark.parametrize(
    ("inputs", "metadata", "size"),
    [
        ((1, 3, 320, 416), {}, (416, 320)),
        (DYNAMIC, {}, (640, 640)),
        (DYNAMIC, {"imgsz": "[320, 416]"}, (416, 320)),
        (DYNAMIC, {"imgsz": "320"}, (320, 320)),
        (DYNAMIC, {"imgsz": "[320]"}, (640, 320)),
        (DYNAMIC, {"imgsz": "rubbish"}, (640, 640)),
        (("batch", 3, 320, "width"), {"imgsz": "[96, 416]"}, (416, 320)),
    ],
)
def test_input_size(inputs, metadata, size) -> None:
    found = infer(("batch", 84, "anchors"), inputs, metadata)
    assert (found.input.width, found.input.height) == size


def test_a_coco_model_without_names_counts_persons() -> None:
    found = infer((1, CELLS_640, 85))
    assert found.classes[0] == "person"
    assert found.wanted() == (0,)
    assert found.anchor == "bottom"


def test_a_model_of_one_class_without_name_counts_heads() -> None:
    found = infer((1, CELLS_640, 6))
    assert (found.classes, found.wanted(), found.anchor) == (["head"], (0,), "center")


@pytest.mark.parametrize(
    ("names", "wanted", "anchor"),
    [
        (["car", "person", "head"], 2, "center"),
        (["face", "person"], 1, "bottom"),
        (["car", "face"], 1, "center"),
        (["pedestrian", "car"], 0, "bottom"),
        (["shoplifter"], 0, "bottom"),
    ],
)
def test_counted_class_and_its_anchor(names, wanted: int, anchor: str) -> None:
    found = infer((1, 4 + len(names), CELLS_640), metadata=v8(names))
    assert (found.wanted(), found.anchor) == ((wanted,), anchor)


def test_classes_without_a_person_must_be_named() -> None:
    found = infer((1, 4 + 20, CELLS_640))
    with pytest.raises(ModelError, match=r"20 classes .*'counted' in its recipe"):
        found.wanted()


@pytest.mark.parametrize(
    "names", ["{0: 'a', 'x': 'b'}", "{[1]: 2}", "not a list", "[1, 2", "&a [*a]", "(" * 10_000, "7"]
)
def test_unreadable_names_are_no_names(names: str) -> None:
    assert infer((1, CELLS_640, 85), metadata={"names": names}).classes[0] == "person"


def test_names_go_by_their_index() -> None:
    names = str({i: f"c{i}" for i in range(11, -1, -1)})
    assert infer((1, 16, CELLS_640), metadata={"names": names}).classes[2:11:8] == ["c2", "c10"]


def test_colour_and_scale_follow_the_family() -> None:
    yolox, yolov8 = infer((1, CELLS_640, 85)).input, infer((1, 84, CELLS_640)).input
    assert (yolox.color, yolox.scale) == ("bgr", 1.0)
    assert yolov8.color == "rgb"
    assert yolov8.scale == pytest.approx(1 / 255)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("/x/yolox nano (v2).onnx", "yolox-nano-v2"),
        ("/x/größe.onnx", "gr-e"),
        ("/x/...onnx", "model"),
        (f"/x/{'n' * 90}.onnx", "n" * 64),
    ],
)
def test_the_name_is_made_of_the_files(path: str, name: str) -> None:
    assert infer((1, CELLS_640, 85), path=path).name == name


def test_an_input_too_small_for_a_detector_is_an_error() -> None:
    with pytest.raises(ModelError, match=r"my\.onnx.*width.*32"):
        infer((1, 11, 85), inputs=(1, 3, 32, 16))


def test_a_recipe_is_read(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(minimal(training={"any": {"thing": 1}})), encoding="utf-8")
    found = recipes.load(path)
    assert (found.name, found.strides, found.training) == (
        "mine",
        [8, 16, 32],
        {"any": {"thing": 1}},
    )


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"hed": "yolox"}, "did you mean 'head'"),
        ({"counted": ["cat"]}, "counted class 'cat'"),
        ({"low_threshold": 0.5}, "low_threshold is above"),
        ({"classes": []}, "classes"),
        ({"temperature": 0}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"input": {"width": 8, "height": 416}}, "input.width"),
        ({"input": {"width": 416, "height": 416, "scale": float("inf")}}, "input.scale"),
        ({"strides": [8, 0]}, "strides"),
    ],
)
def test_a_wrong_recipe_names_file_and_key(tmp_path: Path, changes, told: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(minimal(**changes)), encoding="utf-8")
    with pytest.raises(ModelError) as caught:
        recipes.load(path)
    assert str(path) in str(caught.value)
    assert told in str(caught.value)


@pytest.mark.parametrize("text", ["", "[1]", "a: [", "a: &a [*a]", "\t", "[" * 5000, "\x00"])
def test_a_recipe_that_is_none(tmp_path: Path, text: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(text, encoding="utf-8")
    with pytest.raises(ModelError, match=r"recipe\.yaml"):
        recipes.load(path)


def test_a_missing_recipe(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"recipe\.yaml"):
        recipes.find(None, tmp_path)


class TestFind:
    def write(self, folder: Path, recipe: str, **changes: object) -> Path:
        path = folder / recipe
        path.write_text(yaml.safe_dump(minimal(**changes)), encoding="utf-8")
        return path

    def test_a_file_alone(self, tmp_path: Path) -> None:
        model = tmp_path / "mine.onnx"
        model.touch()
        assert recipes.find(None, model) == (model, None)

    def test_a_folder(self, tmp_path: Path) -> None:
        self.write(tmp_path, "recipe.yaml")
        path, recipe = recipes.find(None, tmp_path)
        assert path == tmp_path / "mine.onnx"
        assert recipe is not None

    @pytest.mark.parametrize("name", ["mine.onnx", "mine.int8.onnx"])
    def test_all_files_of_a_model_share_its_recipe(self, tmp_path: Path, name: str) -> None:
        self.write(tmp_path, "recipe.yaml")
        (tmp_path / name).touch()
        assert recipes.find(None, tmp_path / name)[1] is not None

    def test_dots_in_a_name_are_part_of_it(self, tmp_path: Path) -> None:
        self.write(tmp_path, "recipe.yaml", file="mine.v2.onnx")
        for name, known in (
            ("mine.v2.onnx", True),
            ("mine.v2.int8.onnx", True),
            ("mine.onnx", False),
        ):
            (tmp_path / name).touch()
            assert (recipes.find(None, tmp_path / name)[1] is not None) is known

    def test_another_models_recipe_is_not_taken(self, tmp_path: Path) -> None:
        self.write(tmp_path, "recipe.yaml")
        (tmp_path / "minestrone.onnx").touch()
        assert recipes.find(None, tmp_path / "minestrone.onnx")[1] is None

    def test_a_files_own_recipe_goes_first(self, tmp_path: Path) -> None:
        self.write(tmp_path, "recipe.yaml")
        self.write(tmp_path, "mine.recipe.yaml", name="own")
        (tmp_path / "mine.onnx").touch()
        recipe = recipes.find(None, tmp_path / "mine.onnx")[1]
        assert recipe is not None
        assert recipe.name == "own"

    def test_a_missing_file(self, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"gone\.onnx does not exist"):
            recipes.find(None, tmp_path / "gone.onnx")

    def test_an_unknown_name(self) -> None:
        with pytest.raises(ConfigError, match=r"no model is shipped|'heed-n' is not known"):
            recipes.find("heed-n", None)


def test_a_recipe_inside_the_file_is_taken_and_follows_its_name():
    text = (
        "name: mine\nfile: old.onnx\nhead: ltrb\nclasses: [head]\ninput: {width: 64, height: 64}\n"
    )
    found = recipes.embedded(Path("new.onnx"), {recipes.METADATA_KEY: text})
    assert found is not None
    assert (found.head, found.file) == ("ltrb", "new.onnx")
    assert recipes.embedded(Path("new.onnx"), {}) is None


@pytest.mark.parametrize("text", ["{", "name: mine", "- 1"])
def test_a_wrong_recipe_inside_the_file_names_the_file(text):
    with pytest.raises(ModelError, match=r"new\.onnx"):
        recipes.embedded(Path("new.onnx"), {recipes.METADATA_KEY: text})
