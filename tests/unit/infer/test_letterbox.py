import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecount.infer.letterbox import Letterbox

FILL = 114.0
sides = st.integers(1, 300)
input_sides = st.sampled_from([32, 64, 96, 160])


def bilinear(image: np.ndarray, width: int, height: int) -> np.ndarray:
    """(height, width, 3) float64; pixel centres at half coordinates, the border repeated."""

    def taps(source: int, target: int):
        at = (np.arange(target) + 0.5) * source / target - 0.5
        low = np.floor(at)
        indices = np.clip(np.stack([low, low + 1]).astype(int), 0, source - 1)
        return indices, at - low

    (top, bottom), down = taps(image.shape[0], height)
    (left, right), along = taps(image.shape[1], width)
    picture = image.astype(np.float64)
    down, along = down[:, None, None], along[None, :, None]
    rows = picture[top] * (1 - down) + picture[bottom] * down
    return rows[:, left] * (1 - along) + rows[:, right] * along


def apply(image: np.ndarray, width: int, height: int, swap_rb: bool = False):
    box = Letterbox.fit(image.shape[1], image.shape[0], width, height)
    out = np.full((3, height, width), np.nan, np.float32)
    box.apply(image, out, FILL, swap_rb)
    return box, out


@settings(deadline=None, max_examples=150)
@given(
    width=sides, height=sides, to_w=input_sides, to_h=input_sides, seed=st.integers(0, 2**32 - 1)
)
def test_pixels_agree_with_a_float64_reference(
    width: int, height: int, to_w: int, to_h: int, seed: int
) -> None:
    image = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    box, out = apply(image, to_w, to_h)
    expected = bilinear(image, box.scaled_width, box.scaled_height)
    picture = out[:, : box.scaled_height, : box.scaled_width].transpose(1, 2, 0)
    assert np.abs(picture - expected).max() <= 1.0
    assert (out[:, box.scaled_height :] == FILL).all()
    assert (out[:, :, box.scaled_width :] == FILL).all()


@settings(deadline=None)
@given(width=st.integers(1, 8000), height=st.integers(1, 8000), to_w=input_sides, to_h=input_sides)
def test_the_picture_fits_keeps_its_shape_and_touches_a_side(
    width: int, height: int, to_w: int, to_h: int
) -> None:
    box = Letterbox.fit(width, height, to_w, to_h)
    assert 1 <= box.scaled_width <= to_w
    assert 1 <= box.scaled_height <= to_h
    assert box.scaled_width == to_w or box.scaled_height == to_h
    scale = min(to_w / width, to_h / height)
    assert abs(box.scaled_width - width * scale) <= 0.5 or box.scaled_width == 1
    assert abs(box.scaled_height - height * scale) <= 0.5 or box.scaled_height == 1


@settings(deadline=None)
@given(
    width=st.integers(1, 4000),
    height=st.integers(1, 4000),
    to_w=input_sides,
    to_h=input_sides,
    corners=st.lists(st.floats(0, 1), min_size=4, max_size=4),
)
def test_boxes_map_back_within_a_hundredth_of_a_pixel(
    width: int, height: int, to_w: int, to_h: int, corners
) -> None:
    box = Letterbox.fit(width, height, to_w, to_h)
    source = np.array(corners) * [width, height, width, height]
    fed = source * (np.array([box.scaled_width, box.scaled_height] * 2) / ([width, height] * 2))
    back = box.to_source(fed[None].astype(np.float32))
    assert back.dtype == np.float32
    np.testing.assert_allclose(back[0], source, atol=0.01)


def test_boxes_are_clipped_to_the_picture() -> None:
    box = Letterbox.fit(200, 100, 64, 64)
    beyond = np.array([[-5, -5, 70, 70], [0, 40, 10, 60]], np.float32)
    np.testing.assert_array_equal(
        box.to_source(beyond), np.array([[0, 0, 200, 100], [0, 100, 31.25, 100]], np.float32)
    )


def test_no_boxes_map_to_no_boxes() -> None:
    assert Letterbox.fit(200, 100, 64, 64).to_source(np.zeros((0, 4), np.float32)).shape == (0, 4)


@pytest.mark.parametrize(("swap_rb", "order"), [(False, [10, 20, 30]), (True, [30, 20, 10])])
def test_order_of_the_planes(swap_rb: bool, order) -> None:
    image = np.full((32, 32, 3), [10, 20, 30], np.uint8)
    _, out = apply(image, 32, 32, swap_rb)
    np.testing.assert_array_equal(out[:, 5, 5], order)


def test_a_picture_of_the_right_size_is_not_resampled() -> None:
    image = np.random.default_rng(0).integers(0, 256, (64, 96, 3), dtype=np.uint8)
    _, out = apply(image, 96, 64)
    np.testing.assert_array_equal(out, image.transpose(2, 0, 1).astype(np.float32))


def test_a_cropped_view_is_taken_like_a_copy() -> None:
    whole = np.random.default_rng(0).integers(0, 256, (120, 160, 3), dtype=np.uint8)
    view = whole[10:100, 20:140]
    np.testing.assert_array_equal(apply(view, 64, 64)[1], apply(view.copy(), 64, 64)[1])
