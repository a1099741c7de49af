"""How many pictures and frames share a batch."""

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from edgecount.config import TileSettings
from edgecount.errors import EngineError
from edgecount.infer.base import CameraSpec, frames_at_once, pictures_at_once
from edgecount.track import two_stage

SHAPES = st.sampled_from([None, (2, 1), (2, 2), (3, 2), (3, 3)])


def cameras(*shapes):
    return [
        CameraSpec(
            f"c{i}",
            "two_stage",
            two_stage.Options(),
            (),
            None if shape is None else TileSettings(columns=shape[0], rows=shape[1]),
        )
        for i, shape in enumerate(shapes)
    ]


@pytest.mark.parametrize(
    ("shapes", "limit", "pictures", "frames"),
    [
        ([], 8, 1, 1),
        ([None] * 3, 8, 3, 3),
        ([None] * 20, 8, 8, 8),
        ([(2, 2)], 8, 4, 1),
        ([(2, 2), None, (2, 1)], 8, 7, 3),
        ([(2, 2), (2, 2), (2, 2)], 8, 8, 2),
        ([(3, 3), None], 8, 9, 1),
    ],
)
def test_a_batch(shapes, limit, pictures, frames):
    assert pictures_at_once(cameras(*shapes), limit) == pictures
    assert frames_at_once(cameras(*shapes), pictures) == frames


@given(st.lists(SHAPES, min_size=1, max_size=6), st.integers(1, 12), st.data())
def test_whichever_frames_come_they_fit(shapes, limit, data):
    specs = cameras(*shapes)
    pictures = pictures_at_once(specs, limit)
    frames = min(frames_at_once(specs, pictures), len(specs))
    assume(frames >= 1)
    some = data.draw(st.permutations(specs))[:frames]
    assert sum(camera.pictures for camera in some) <= pictures


def test_a_frame_that_no_batch_holds_is_refused_with_the_camera_s_name():
    with pytest.raises(EngineError, match=r"'c1' is 6 pictures .* takes 4 at once.*backend: cpu"):
        frames_at_once(cameras((2, 2), (3, 2)), 4)
