"""Agreement of a form with FP32, on pictures with bright spots."""

from pathlib import Path
from typing import List, Tuple

import cv2
import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import numpy_helper
from support.capture import drawn_clip
from support.onnx_models import picture_with_spots, spot_model, write_recipe

from edgecount.errors import DatasetError
from edgecount.infer.recipe import Recipe, load
from edgecount.toolchain.quantize.agreement import (
    Pairs,
    Scene,
    agreement_of,
    spread,
    spread_frames,
)

SIDE = 96
FRAMES = [picture_with_spots(c, SIDE, SIDE) for c in ([(28, 28)], [(28, 68), (68, 28)])]


@pytest.fixture
def spots(tmp_path: Path) -> Tuple[onnx.ModelProto, Recipe]:
    path = spot_model(tmp_path / "spots.onnx", "ltrb", width=SIDE, height=SIDE)
    write_recipe(path, "ltrb", width=SIDE, height=SIDE)
    return onnx.load(str(path)), load(path.with_suffix(".recipe.yaml"))


def with_logits_moved(model: onnx.ModelProto, by: float) -> onnx.ModelProto:
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    stored = {i.name: i for i in copy.graph.initializer}
    offset = numpy_helper.to_array(stored["score_offset"])
    moved = np.asarray(offset + by, np.float32)
    stored["score_offset"].CopyFrom(numpy_helper.from_array(moved, "score_offset"))
    return copy


def test_the_model_agrees_with_itself(spots: Tuple[onnx.ModelProto, Recipe]) -> None:
    scene = Scene(*spots, FRAMES)
    assert (scene.images, scene.heads) == (2, 3)
    seen = scene(spots[0])
    assert (seen.f1, seen.apart, seen.heads) == (1.0, 0.0, 3)


def test_moved_logits_are_seen_as_such(spots: Tuple[onnx.ModelProto, Recipe]) -> None:
    seen = Scene(*spots, FRAMES)(with_logits_moved(spots[0], -0.25))
    assert seen.shift == pytest.approx(-0.25, abs=1e-3)
    assert seen.apart == pytest.approx(0.25, abs=1e-3)
    assert seen.f1 == 1.0


def test_a_blind_form_agrees_in_nothing(spots: Tuple[onnx.ModelProto, Recipe]) -> None:
    seen = Scene(*spots, FRAMES)(with_logits_moved(spots[0], -30.0))
    assert (seen.f1, seen.heads) == (0.0, 3)
    assert seen.shift < -5


def test_a_scene_without_heads_is_refused(spots: Tuple[onnx.ModelProto, Recipe]) -> None:
    with pytest.raises(DatasetError, match="sees nothing in the 1 frames"):
        Scene(*spots, [np.zeros((SIDE, SIDE, 3), np.uint8)])


def test_f1_counts_what_crosses_the_threshold() -> None:
    pairs = Pairs(np.float32([1.0, 1.0, -1.0]), np.float32([1.0, -1.0, 1.0]))
    seen = agreement_of(pairs, 0.0)
    assert (seen.f1, seen.apart, seen.shift) == (0.5, pytest.approx(4 / 3), 0.0)


@given(st.integers(0, 300), st.integers(1, 40))
def test_frames_are_spread_evenly(have: int, wanted: int) -> None:
    kept = spread((np.int64(i) for i in range(have)), wanted)  # type: ignore[misc]
    numbers: List[int] = [int(k) for k in kept]
    assert len(numbers) == min(have, wanted)
    steps = np.diff(numbers)
    assert numbers == sorted(set(numbers))
    assert not len(steps) or steps.max() <= 3 * max(1, have // wanted)


def test_frames_of_a_clip_and_of_a_folder(tmp_path: Path) -> None:
    clip = drawn_clip(tmp_path / "clip.avi", frames=20)
    assert len(spread_frames(str(clip), 5)) == 5
    cv2.imwrite(str(tmp_path / "one.png"), FRAMES[0])
    (only,) = spread_frames(str(tmp_path), 5)
    assert (only == FRAMES[0]).all()
