"""Whether heads are large enough for the model, and what is advised."""

import re

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from support.onnx_models import spot_model, write_recipe

from edgecount.config import CameraSettings, ModelSettings, TileSettings
from edgecount.infer import detector, tiles
from edgecount.infer.onnxruntime import open_network
from edgecount.runtime.sight import Sight, picture_size

OPEN = Sight("head-n", (416, 416), 12.0, 32)
FIXED = Sight("head-n", (416, 416), 12.0, None)
HD = (1920, 1080)


def camera(head, **more):
    return CameraSettings(name="door", source="rtsp://camera/", head_px=head, **more)


def test_heads_that_are_large_enough_are_no_warning():
    assert OPEN.warnings(camera(56), HD) == []  # 12.1 px of 416 / 1920


def test_without_an_expected_size_there_is_nothing_to_say():
    assert OPEN.warnings(camera(None), HD) == []


def test_a_warning_has_all_numbers_and_both_remedies():
    (warning,) = OPEN.warnings(camera(24), HD)
    for words in ("'door'", "24 px", "1920×1080", "5.2 px", "416×416", "'head-n'", "12 px"):
        assert words in warning
    assert "tiles: 3x2 (13.5 px, 6 runs" in warning
    assert "model.input_size: [960, 544] (12.0 px, 3.0 × the work" in warning


def test_an_input_of_fixed_size_is_not_to_be_changed():
    (warning,) = FIXED.warnings(camera(24), HD)
    assert "tiles: 3x2" in warning
    assert "input_size" not in warning


def test_where_nothing_helps_the_camera_must_move():
    (warning,) = OPEN.warnings(camera(2), (3840, 2160))
    assert "nearer" in warning
    assert "tiles:" not in warning


@given(st.floats(3.0, 60.0), st.integers(200, 4000), st.integers(200, 4000))
def test_what_is_advised_is_enough(head, width, height):
    picture = (width, height)
    for warning in OPEN.warnings(camera(head), picture):
        advised = re.search(r"tiles: (\d+x\d+)", warning)
        if advised:
            found = TileSettings.model_validate(advised.group(1))
            assert head * tiles.scale(picture, OPEN.size, found) >= OPEN.smallest
        size = re.search(r"input_size: \[(\d+), (\d+)\]", warning)
        if size:
            chosen = int(size.group(1)), int(size.group(2))
            assert head * tiles.scale(picture, chosen, None) >= OPEN.smallest * (1 - 1e-9)
            assert all(side % 32 == 0 for side in chosen)
        assert OPEN.warnings(camera(head, tiles=advised and advised.group(1)), picture) == [] or (
            advised is None or "overlap" in OPEN.warnings(camera(head, tiles=found), picture)[0]
        )


class TestTiles:
    def test_a_tiled_camera_is_judged_by_its_tiles(self):
        assert OPEN.warnings(camera(32, tiles="2x2"), HD) == []
        (warning,) = OPEN.warnings(camera(24, tiles="2x2"), HD)
        assert "9.3 px of a tile" in warning
        assert "instead of tiles" in warning

    def test_heads_larger_than_the_overlap_want_the_whole_frame(self):
        (warning,) = OPEN.warnings(camera(130, tiles="2x2"), HD)
        assert "130 px" in warning
        assert "120 px" in warning
        assert "whole: true" in warning

    def test_with_the_whole_frame_they_are_welcome(self):
        whole = {"columns": 2, "rows": 2, "whole": True}
        assert OPEN.warnings(camera(130, tiles=whole), HD) == []


class TestPictureSize:
    def test_what_is_given_counts(self):
        assert picture_size(camera(24, picture=[1280, 720])) == (1280, 720)

    def test_what_the_capture_is_asked_for(self):
        usb = CameraSettings(name="door", source="usb:0", capture={"width": 640, "height": 480})
        assert picture_size(usb) == (640, 480)

    def test_a_folder_of_pictures_tells(self, tmp_path):
        cv2.imwrite(str(tmp_path / "a.png"), np.zeros((48, 64, 3), np.uint8))
        assert picture_size(CameraSettings(name="door", source=str(tmp_path))) == (64, 48)

    @pytest.mark.parametrize("source", ["rtsp://camera/", "usb:0", "nowhere.avi"])
    def test_others_are_not_known(self, source):
        assert picture_size(CameraSettings(name="door", source=source)) is None

    def test_an_unknown_size_is_said(self):
        (warning,) = OPEN.warnings(camera(24), None)
        for words in ("24 px", "12 px", "picture: [width, height]", "doctor"):
            assert words in warning


class TestOfAModel:
    @pytest.fixture
    def model(self, tmp_path):
        onnx = spot_model(tmp_path / "spots.onnx", "yolox")
        recipe = write_recipe(onnx, "yolox", width=416, height=416)
        return onnx, recipe

    def test_a_recipe_that_does_not_tell(self, model):
        assert Sight.of(*detector.create(ModelSettings(path=model[0]), open_network)) is None

    def test_a_fixed_input(self, model):
        onnx, recipe = model
        recipe.write_text(recipe.read_text() + "smallest_head_px: 12\n")
        sight = Sight.of(*detector.create(ModelSettings(path=onnx), open_network))
        assert sight == Sight("test-model", (416, 416), 12.0, None)

    def test_the_shipped_models_leave_their_size_open(self):
        sight = Sight.of(*detector.create(ModelSettings(name="head-n"), open_network))
        assert sight == Sight("head-n", (416, 416), 12.0, 32)
