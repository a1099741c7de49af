"""The detector as a whole, on tiny models and on the real one."""

import os
from functools import lru_cache
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Dict, List, Optional, Sequence, Tuple

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import onnx_models
from support.onnx_models import Box

from edgecount.config import ModelSettings, TileSettings
from edgecount.errors import ConfigError, EdgecountError, EngineError, ModelError
from edgecount.infer import detector, nms
from edgecount.infer.letterbox import Letterbox
from edgecount.infer.onnxruntime import open_network
from edgecount.infer.recipe import InputRecipe, Recipe
from edgecount.infer.tiles import cut
from edgecount.records import Detections

COCO_CELLS = 3549


def build(model: Path, **settings: object) -> Tuple[detector.OnnxDetector, Recipe]:
    return detector.create(ModelSettings(path=model, **settings), open_network)


def known_model(folder: Path, layout: str, boxes: Sequence[Box], **more) -> Path:
    model = onnx_models.constant_model(folder / "known.onnx", layout, boxes, **more)
    onnx_models.write_recipe(model, layout, width=64, height=64)
    return model


class FakeNetwork:
    """Says ``output`` to every picture, and remembers what it was fed."""

    def __init__(
        self,
        input_shape: Tuple[object, ...] = (1, 3, 64, 64),
        output_shape: Tuple[object, ...] = (1, 84, 6),
        output: Optional[np.ndarray] = None,
    ) -> None:
        self.input_shape, self.output_shape = input_shape, output_shape
        self._output = np.zeros((1, 84, 6), np.float32) if output is None else output
        self.fed: List[np.ndarray] = []

    def run(self, batch: np.ndarray) -> np.ndarray:
        self.fed.append(batch.copy())
        return self._output


def create_with(
    tmp_path: Path, network: FakeNetwork, metadata: Optional[Dict[str, str]] = None, **settings
) -> Tuple[detector.OnnxDetector, Recipe]:
    path = tmp_path / "fake.onnx"
    path.touch()
    return detector.create(
        ModelSettings(path=path, **settings), lambda _path: (network, metadata or {})
    )


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("layout", onnx_models.LAYOUTS)
def test_spots_of_a_picture_are_found_in_every_layout(
    tmp_path: Path, layout: str, dynamic: bool
) -> None:
    model = onnx_models.spot_model(tmp_path / "spots.onnx", layout, dynamic=dynamic)
    onnx_models.write_recipe(model, layout, width=416, height=416)
    built, recipe = build(model)

    found = built.detect([onnx_models.picture_with_spots([(300, 60), (100, 204)])])[0]

    assert recipe.head == layout
    centers = (found.boxes[:, :2] + found.boxes[:, 2:]) / 2
    assert np.abs(centers[np.argsort(centers[:, 0])] - [(100, 204), (300, 60)]).max() <= 4
    assert found.scores.min() > 0.9


@pytest.mark.parametrize("suppressor", ["numpy", "opencv"])
@pytest.mark.parametrize("layout", onnx_models.LAYOUTS)
def test_known_boxes_come_out(tmp_path: Path, layout: str, suppressor: str) -> None:
    model = known_model(tmp_path, layout, [Box(40, 20, 56, 50, 0.6), Box(10, 12, 30, 40, 0.9)])
    built, _ = build(model, nms=suppressor)

    found = built.detect([np.zeros((128, 128, 3), np.uint8)])[0]

    np.testing.assert_allclose(found.boxes, [[20, 24, 60, 80], [80, 40, 112, 100]], atol=1e-3)
    np.testing.assert_allclose(found.scores, [0.9, 0.6], atol=1e-6)
    assert found.classes.tolist() == [0, 0]
    assert found.boxes.dtype == found.scores.dtype == np.float32
    assert found.classes.dtype == np.int32


@pytest.mark.parametrize("dynamic", [False, True])
@pytest.mark.parametrize("layout", ["yolov5", "yolov8", "end2end"])
def test_a_file_without_recipe_speaks_for_itself(
    tmp_path: Path, layout: str, dynamic: bool
) -> None:
    metadata = onnx_models.ultralytics_metadata(["car", "head"], 64, 64)
    if layout == "yolov5":
        del metadata["task"]
    model = onnx_models.constant_model(
        tmp_path / "own.onnx",
        layout,
        [Box(10, 12, 30, 40, 0.9, 1), Box(34, 12, 50, 40, 0.9, 0)],
        classes=2,
        dynamic=dynamic,
        metadata=metadata,
    )
    built, recipe = build(model)
    found = built.detect([np.zeros((64, 64, 3), np.uint8)])[0]
    assert recipe.head == layout
    assert found.classes.tolist() == [1]
    np.testing.assert_allclose(found.boxes, [[10, 12, 30, 40]], atol=1e-3)


def test_a_yolox_file_without_recipe_counts_heads(tmp_path: Path) -> None:
    model = onnx_models.constant_model(tmp_path / "own.onnx", "yolox", [Box(10, 12, 30, 40)])
    built, recipe = build(model)
    assert (recipe.head, recipe.classes) == ("yolox", ["head"])
    found = built.detect([np.zeros((64, 64, 3), np.uint8)])[0]
    np.testing.assert_allclose(found.boxes, [[10, 12, 30, 40]], atol=1e-3)


def test_several_pictures_of_several_sizes(tmp_path: Path) -> None:
    built, _ = build(known_model(tmp_path, "yolov8", [Box(16, 8, 48, 24)]))
    sizes = [(64, 64), (32, 128), (10, 1)]
    results = built.detect([np.zeros((h, w, 3), np.uint8) for h, w in sizes])
    np.testing.assert_allclose(results[0].boxes, [[16, 8, 48, 24]], atol=1e-3)
    # 128×32 fits as 64×16: what lies below its picture is cut off.
    np.testing.assert_allclose(results[1].boxes, [[32, 16, 96, 32]], atol=1e-3)
    assert len(results[2]) == 0


def test_a_box_in_the_padding_alone_is_nobody(tmp_path: Path) -> None:
    built, _ = build(known_model(tmp_path, "yolox", [Box(8, 40, 24, 60), Box(8, 4, 24, 20)]))
    found = built.detect([np.zeros((32, 64, 3), np.uint8)])[0]
    np.testing.assert_allclose(found.boxes, [[8, 4, 24, 20]], atol=1e-3)


def test_the_picture_is_normalised_as_the_recipe_says(tmp_path: Path) -> None:
    network = FakeNetwork()
    recipe = Recipe(
        name="m",
        file="m.onnx",
        head="yolox",
        classes=["head"],
        input=InputRecipe(
            width=64, height=64, color="rgb", scale=0.5, mean=(1.0, 2.0, 3.0), pad=100.0
        ),
    )
    built = detector.OnnxDetector(
        network, recipe, size=(64, 64), thresholds=detector.Thresholds(0.3, 0.5)
    )
    built.detect([np.full((32, 64, 3), [10, 20, 30], np.uint8)])
    np.testing.assert_allclose(network.fed[0][0, :, 0, 0], [14.5, 9.0, 3.5])
    np.testing.assert_allclose(network.fed[0][0, :, 63, 0], [49.5, 49.0, 48.5])


def test_stages_are_timed(tmp_path: Path) -> None:
    timed: List[str] = []
    path = known_model(tmp_path, "yolox", [])
    built, _ = detector.create(
        ModelSettings(path=path), open_network, lambda stage, _seconds: timed.append(stage)
    )
    built.detect([np.zeros((64, 64, 3), np.uint8)] * 2)
    assert timed == ["preprocess", "infer", "post"] * 2


class TestThresholds:
    BOXES = (Box(0, 0, 16, 16, 0.35), Box(32, 32, 48, 48, 0.15), Box(0, 32, 16, 48, 0.05))

    @pytest.mark.parametrize(
        ("asked", "scores"), [(None, [0.35, 0.15]), (0.9, [0.35, 0.15]), (0.02, [0.35, 0.15, 0.05])]
    )
    def test_low_scores_are_kept_for_the_tracker(
        self, tmp_path: Path, asked: Optional[float], scores: List[float]
    ) -> None:
        built, _ = build(known_model(tmp_path, "yolox", self.BOXES), score_threshold=asked)
        found = built.detect([np.zeros((64, 64, 3), np.uint8)])[0]
        np.testing.assert_allclose(found.scores, scores, atol=1e-6)

    @pytest.mark.parametrize(("asked", "left"), [(None, 2), (0.3, 1)])
    def test_overlap(self, tmp_path: Path, asked: Optional[float], left: int) -> None:
        boxes = [Box(0, 0, 40, 40, 0.9), Box(10, 0, 50, 40, 0.8)]  # IoU 0.6, not above it
        built, _ = build(known_model(tmp_path, "yolov8", boxes), nms_iou=asked)
        assert len(built.detect([np.zeros((64, 64, 3), np.uint8)])[0]) == left


class TestTemperature:
    @settings(deadline=None)
    @given(st.floats(0.001, 0.999), st.floats(0.05, 20.0))
    def test_a_threshold_there_and_back(self, score: float, temperature: float) -> None:
        raw = detector.untempered(score, temperature)
        assert 0.0 <= raw <= 1.0
        if 1e-6 < raw < 1 - 1e-6:
            back = detector._tempered(np.array([raw], np.float32), temperature)
            # Near 1 float32 has few steps left, and a small temperature spreads them.
            assert back[0] == pytest.approx(score, abs=2e-7 / (1 - raw) / temperature + 1e-5)

    @pytest.mark.filterwarnings("error")
    @pytest.mark.parametrize("temperature", [1e-3, 0.5, 1.0, 2.0, 1e6])
    def test_extremes_stay_probabilities(self, temperature: float) -> None:
        scores = np.array([0.0, 1e-30, 0.1, 0.5, 0.9, 1.0], np.float32)
        tempered = detector._tempered(scores, temperature)
        assert tempered.dtype == np.float32
        assert (tempered >= 0).all()
        assert (tempered <= 1).all()
        assert (np.diff(tempered) >= 0).all()
        assert all(0 <= detector.untempered(s, temperature) <= 1 for s in (1e-9, 0.5, 0.9999, 1.0))

    def test_a_recipes_temperature_calibrates_scores_and_thresholds(self, tmp_path: Path) -> None:
        recipe = Recipe(
            name="m",
            file="m.onnx",
            head="yolox",
            classes=["head"],
            temperature=2.0,
            input=InputRecipe(width=64, height=64),
        )
        # σ(logit(0.9)/2) = 0.75; σ(logit(0.05)/2) ≈ 0.187; σ(logit(0.01)/2) ≈ 0.091.
        output = onnx_models.encode(
            "yolox",
            [Box(0, 0, 16, 16, 0.9), Box(32, 0, 48, 16, 0.05), Box(0, 32, 16, 48, 0.01)],
            64,
            64,
            1,
        )
        built = detector.OnnxDetector(
            FakeNetwork(output=output[None]),
            recipe,
            size=(64, 64),
            thresholds=detector.Thresholds(0.1, 0.5),
        )
        found = built.detect([np.zeros((64, 64, 3), np.uint8)])[0]
        np.testing.assert_allclose(found.scores, [0.75, 0.18660], atol=1e-4)


class TestFit:
    """Files, recipes and settings that do not fit together."""

    @pytest.mark.parametrize(
        "shape",
        [(), (3,), (3, 64, 64), (1, 64, 64, 3), (1, 1, 64, 64), (4, 3, 64, 64), (1, 3, 8, 64, 64)],
    )
    def test_an_input_that_is_no_picture(self, tmp_path: Path, shape) -> None:
        with pytest.raises(ModelError) as caught:
            create_with(tmp_path, FakeNetwork(input_shape=shape))
        assert "fake.onnx" in str(caught.value)
        assert str(list(shape)) in str(caught.value)
        assert "[1, 3, height, width]" in str(caught.value)

    def test_a_size_asked_for_against_a_fixed_one(self, tmp_path: Path) -> None:
        with pytest.raises(
            ConfigError, match="fixed input height of 64, but the size asked for is 96"
        ):
            create_with(tmp_path, FakeNetwork(), input_size=(64, 96))

    def test_a_recipes_size_against_a_fixed_one(self, tmp_path: Path) -> None:
        model = onnx_models.constant_model(tmp_path / "m.onnx", "yolox", [])
        onnx_models.write_recipe(model, "yolox", width=96, height=64)
        with pytest.raises(
            ModelError, match="fixed input width of 64, but its recipe 'test-model' says 96"
        ):
            build(model)

    def test_a_size_that_is_no_multiple(self, tmp_path: Path) -> None:
        network = FakeNetwork(("b", 3, "h", "w"), ("b", "n", 7))
        with pytest.raises(ConfigError, match="width 100 is no multiple of 32"):
            create_with(tmp_path, network, {"names": "['a', 'head']"}, input_size=(100, 64))

    def test_a_size_asked_for_where_the_model_leaves_it_open(self, tmp_path: Path) -> None:
        # 96×64 has 126 cells: the output was declared for just this size.
        network = FakeNetwork(("b", 3, "h", "w"), ("b", 126, 6), np.zeros((1, 126, 6), np.float32))
        built, recipe = create_with(tmp_path, network, input_size=(96, 64))
        assert (recipe.head, recipe.input.width, recipe.input.height) == ("yolox", 96, 64)
        built.detect([np.zeros((64, 96, 3), np.uint8)])
        assert network.fed[-1].shape == (1, 3, 64, 96)

    @pytest.mark.parametrize("classes", [["head"], ["head", "a", "b"]])
    def test_a_recipe_of_another_model(self, tmp_path: Path, classes: List[str]) -> None:
        model = onnx_models.constant_model(tmp_path / "m.onnx", "yolox", [], classes=2)
        onnx_models.write_recipe(model, "yolox", classes=classes, width=64, height=64)
        with pytest.raises(ModelError) as caught:
            build(model)
        for words in ("m.onnx", "[84, 7]", f"[84, {5 + len(classes)}]", "'yolox'", "64×64"):
            assert words in str(caught.value)

    def test_a_dynamic_output_is_tried_out(self, tmp_path: Path) -> None:
        model = onnx_models.answer_model(
            tmp_path / "m.onnx",
            np.zeros((85, 6), np.float32),
            open_axis=1,
        )
        onnx_models.write_recipe(model, "yolox", width=64, height=64)
        with pytest.raises(ModelError, match=r"\[85, 6\] per picture, .* expects \[84, 6\]"):
            build(model)

    def test_a_network_that_does_not_run_at_the_size(self, tmp_path: Path) -> None:
        class Fussy(FakeNetwork):
            def run(self, batch: np.ndarray) -> np.ndarray:
                raise EngineError("ONNX Runtime failed in fake.onnx: wrong reshape")

        network = Fussy(("b", 3, "h", "w"), ("b", "n", 7))
        with pytest.raises(EngineError, match=r"fake\.onnx"):
            create_with(tmp_path, network, {"names": "['a', 'head']"})

    def test_an_unknown_head(self, tmp_path: Path) -> None:
        model = onnx_models.constant_model(tmp_path / "m.onnx", "yolox", [])
        recipe = onnx_models.write_recipe(model, "yolox", width=64, height=64)
        recipe.write_text(recipe.read_text().replace("head: yolox", "head: yolo"))
        with pytest.raises(EdgecountError, match="'yolo' is not known: did you mean 'yolox'"):
            build(model)


@pytest.fixture(scope="module")
def path() -> Path:
    path = os.environ.get("EDGECOUNT_TEST_MODEL")
    if not path:
        pytest.skip("EDGECOUNT_TEST_MODEL names no yolox_nano_416_coco.onnx")
    return Path(path)


@pytest.fixture(scope="module")
def pictures() -> List[np.ndarray]:
    clip = os.environ.get("EDGECOUNT_VTEST")
    if not clip:
        pytest.skip("EDGECOUNT_VTEST names no vtest.avi")
    capture = cv2.VideoCapture(clip)
    frames = [capture.read()[1] for _ in range(200)]
    return frames[::40]


class TestRealModel:
    """YOLOX-nano against a float64 reading of its own output."""

    def test_recipe(self, path: Path) -> None:
        _, recipe = build(path)
        assert (recipe.head, recipe.wanted(), recipe.anchor) == ("yolox", (0,), "bottom")
        assert (recipe.input.color, recipe.input.scale, len(recipe.classes)) == ("bgr", 1.0, 80)

    def test_agrees_with_float64(self, path: Path, pictures: List[np.ndarray]) -> None:
        built, recipe = build(path)
        for picture in pictures:
            found = built.detect([picture])[0]
            output = built.network.run(built.network_input(picture))[0]
            boxes, scores = naive(output, picture.shape[1], picture.shape[0])
            order = keep(boxes, scores, recipe.nms_iou)
            assert len(found) == len(order) > 3
            np.testing.assert_allclose(found.boxes, boxes[order], atol=0.01)
            np.testing.assert_allclose(found.scores, scores[order], atol=1e-6)

    def test_is_the_same_from_run_to_run(self, path: Path, pictures: List[np.ndarray]) -> None:
        built, _ = build(path)
        once, again = (built.detect(pictures) for _ in range(2))
        for a, b in zip(once, again):
            np.testing.assert_array_equal(a.boxes, b.boxes)
            np.testing.assert_array_equal(a.scores, b.scores)


def naive(output: np.ndarray, width: int, height: int) -> Tuple[np.ndarray, np.ndarray]:
    """Persons of at least 0.1, in source pixels, unclipped: float64, a row at a time."""
    assert output.shape == (COCO_CELLS, 85)
    box = Letterbox.fit(width, height, 416, 416)
    along, down = width / box.scaled_width, height / box.scaled_height
    boxes, scores = [], []
    cells = [(x, y, s) for s in (8, 16, 32) for y in range(416 // s) for x in range(416 // s)]
    for (column, line, stride), row in zip(cells, output.astype(np.float64)):
        if row[4] * row[5] >= 0.1:
            x, y = (column + row[0]) * stride, (line + row[1]) * stride
            w, h = np.exp(row[2]) * stride, np.exp(row[3]) * stride
            corners = np.array([x - w / 2, y - h / 2, x + w / 2, y + h / 2])
            boxes.append(corners * [along, down, along, down])
            scores.append(row[4] * row[5])
    return np.array(boxes), np.array(scores)


def keep(boxes: np.ndarray, scores: np.ndarray, iou: float) -> List[int]:
    limits = np.array([768, 576, 768, 576])
    kept = nms.suppress(
        boxes.astype(np.float32), scores.astype(np.float32), np.zeros(len(boxes), np.int32), iou
    )
    boxes[:] = np.clip(boxes, 0, limits)
    return kept.tolist()


class TestTiles:
    """Frames of 100×64 in two tiles of 64×64: the right one begins at 36 and they share 28."""

    HOW = TileSettings(columns=2, rows=1, overlap=0.4375)
    FRAME = np.full((64, 100, 3), 200, np.uint8)

    def detect(self, left: Sequence[Box], right: Sequence[Box], **more: object) -> Detections:
        """What becomes of boxes that the network sees in the tiles."""
        outputs = [onnx_models.encode("yolov8", b, 64, 64, 1)[None] for b in (left, right)]
        recipe = Recipe(
            name="m",
            file="m.onnx",
            head="yolov8",
            classes=["head"],
            input=InputRecipe(width=64, height=64),
            **more,
        )
        built = detector.OnnxDetector(
            _Says(outputs), recipe, size=(64, 64), thresholds=detector.Thresholds(0.3, 0.6)
        )
        return built.detect_tiled(self.FRAME, self.HOW)

    def test_boxes_are_those_of_the_frame(self) -> None:
        found = self.detect([Box(8, 8, 20, 20, 0.7)], [Box(40, 16, 50, 30, 0.9)])
        np.testing.assert_allclose(found.boxes, [[76, 16, 86, 30], [8, 8, 20, 20]], atol=1e-3)
        np.testing.assert_allclose(found.scores, [0.9, 0.7], atol=1e-6)

    def test_a_box_beyond_the_frame_is_clipped_to_it(self) -> None:
        found = self.detect([Box(-6, 8, 10, 20)], [Box(54, 50, 70, 70)])
        np.testing.assert_allclose(
            sorted(found.boxes.tolist()), [[0, 8, 10, 20], [90, 50, 100, 64]], atol=1e-3
        )

    def test_a_head_that_both_tiles_see_is_one(self) -> None:
        found = self.detect([Box(44, 8, 56, 20, 0.7)], [Box(9, 8, 21, 20, 0.8)])
        np.testing.assert_allclose(found.boxes, [[45, 8, 57, 20]], atol=1e-3)
        np.testing.assert_allclose(found.scores, [0.8], atol=1e-6)

    def test_the_piece_that_an_inner_border_leaves_is_dropped_though_its_score_is_best(
        self,
    ) -> None:
        # A head at 58 … 70; the left tile ends at 64, and IoU does not make the two one.
        found = self.detect([Box(58, 8, 64, 20, 0.9)], [Box(22, 8, 34, 20, 0.6)])
        np.testing.assert_allclose(found.boxes, [[58, 8, 70, 20]], atol=1e-3)

    def test_a_head_that_the_frame_itself_cuts_stays(self) -> None:
        found = self.detect([Box(0, 8, 6, 20)], [Box(58, 8, 64, 20)])
        np.testing.assert_allclose(
            sorted(found.boxes.tolist()), [[0, 8, 6, 20], [94, 8, 100, 20]], atol=1e-3
        )

    def test_scores_are_calibrated(self) -> None:
        found = self.detect([Box(8, 8, 20, 20, 0.7)], [], temperature=0.5)
        odds = (0.7 / 0.3) ** 2
        np.testing.assert_allclose(found.scores, [odds / (1 + odds)], atol=1e-5)

    def test_nothing_in_any_tile(self) -> None:
        assert len(self.detect([], [])) == 0

    def test_each_tile_is_the_networks_input_as_a_picture_of_its_own(self) -> None:
        # The whole frame has another letterbox than the tiles, in the same buffer.
        network, how = FakeNetwork(), self.HOW.model_copy(update={"whole": True})
        recipe = Recipe(
            name="m",
            file="m.onnx",
            head="yolox",
            classes=["head"],
            input=InputRecipe(width=64, height=64, mean=(1.0, 2.0, 3.0)),
        )
        built = detector.OnnxDetector(
            network, recipe, size=(64, 64), thresholds=detector.Thresholds(0.3, 0.5)
        )
        for _ in range(2):
            built.detect_tiled(self.FRAME, how)
        parts = [tile.of(self.FRAME) for tile in cut(100, 64, how)]
        expected = [built.network_input(part) for part in parts]
        assert len(expected) == 3
        np.testing.assert_array_equal(np.concatenate(network.fed), np.concatenate(expected * 2))

    @settings(deadline=None, max_examples=25)
    @given(st.integers(30, 700), st.integers(30, 380))
    def test_a_head_is_found_once_wherever_it_is(self, x: int, y: int) -> None:
        how = TileSettings(columns=2, rows=2, overlap=0.3)
        picture = onnx_models.picture_with_spots([(x, y)], width=730, height=410)
        found = self._spots().detect_tiled(picture, how)
        centres = (found.boxes[:, :2] + found.boxes[:, 2:]) / 2
        np.testing.assert_allclose(centres, [(x, y)], atol=8)

    @staticmethod
    @lru_cache(maxsize=1)
    def _spots() -> detector.OnnxDetector:
        with TemporaryDirectory() as folder:
            model = onnx_models.spot_model(Path(folder) / "spots.onnx", "yolox")
            onnx_models.write_recipe(model, "yolox", width=416, height=416)
            return build(model)[0]


class _Says:
    """A network that gives these outputs, in turn."""

    input_shape: Tuple[object, ...] = (1, 3, 64, 64)
    output_shape: Tuple[object, ...] = (1, 5, 84)

    def __init__(self, outputs: Sequence[np.ndarray]) -> None:
        self._outputs = iter(outputs)

    def run(self, _batch: np.ndarray) -> np.ndarray:
        return next(self._outputs)
