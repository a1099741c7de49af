"""Where tiles lie, and which of them answers for a head."""

from typing import List, Tuple

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from edgecount.config import TileSettings
from edgecount.infer import tiles
from edgecount.infer.heads.base import Candidates
from edgecount.infer.tiles import Tile, cut

SHAPES = st.tuples(st.integers(1, 4), st.integers(1, 4)).filter(lambda n: n[0] * n[1] > 1)
OVERLAPS = st.floats(0.02, 0.5)
SIDES = st.integers(8, 4000)


def settings_of(shape: Tuple[int, int], overlap: float, whole: bool = False) -> TileSettings:
    return TileSettings(columns=shape[0], rows=shape[1], overlap=overlap, whole=whole)


def holds(tile: Tile, box: Tuple[float, float, float, float]) -> bool:
    inside_x = tile.x <= box[0] and box[2] <= tile.x + tile.width
    return inside_x and tile.y <= box[1] and box[3] <= tile.y + tile.height


def candidates(boxes: List[Tuple[float, float, float, float]]) -> Candidates:
    return Candidates(
        np.array(boxes, np.float32).reshape(-1, 4),
        np.linspace(0.9, 0.5, len(boxes)).astype(np.float32),
        np.zeros(len(boxes), np.int32),
    )


def owned(tile: Tile, box: Tuple[float, float, float, float]) -> bool:
    """Whether a tile answers for a box that is given in pixels of the frame."""
    x1, y1, x2, y2 = box
    there = candidates([(x1 - tile.x, y1 - tile.y, x2 - tile.x, y2 - tile.y)])
    return len(tile.own(there).scores) == 1


@st.composite
def heads(draw, largest: float):
    """A cut frame, and a head in it of at most ``largest`` times the overlap."""
    width, height = draw(SIDES), draw(SIDES)
    how = settings_of(draw(SHAPES), draw(OVERLAPS))
    shared = tiles.overlap(width, height, how)
    side = min(largest * shared, width, height) * draw(st.floats(0.0, 1.0))
    assume(side >= 1.0)
    x, y = draw(st.floats(0.0, width - side)), draw(st.floats(0.0, height - side))
    return cut(width, height, how), (x, y, x + side, y + side)


@given(SIDES, SIDES, SHAPES, OVERLAPS)
def test_tiles_of_one_size_cover_the_frame_and_no_more(width, height, shape, overlap):
    found = cut(width, height, settings_of(shape, overlap))
    assert len(found) == shape[0] * shape[1]
    assert len({(t.width, t.height) for t in found}) == 1
    seen = np.zeros((height, width), np.bool_)
    for tile in found:
        assert tile.x >= 0
        assert tile.y >= 0
        part = tile.of(seen)
        assert part.shape == (tile.height, tile.width)
        part[:] = True
    assert seen.all()


@given(SIDES, SIDES, SHAPES, OVERLAPS)
def test_neighbours_share_the_overlap_at_least(width, height, shape, overlap):
    found = cut(width, height, settings_of(shape, overlap))
    row, column = found[: shape[0]], found[:: shape[0]]
    for one, other in zip(row, row[1:]):
        assert one.x + one.width - other.x >= overlap * one.width
    for one, other in zip(column, column[1:]):
        assert one.y + one.height - other.y >= overlap * one.height


@given(SIDES, SIDES, SHAPES, OVERLAPS)
def test_no_smaller_tiles_would_do(width, height, shape, overlap):
    """A tile is the network's whole view: every pixel too many shrinks the heads in it."""
    tile = cut(width, height, settings_of(shape, overlap))[0]
    for size, length, count in ((tile.width, width, shape[0]), (tile.height, height, shape[1])):
        needed = length / (1 + (count - 1) * (1 - overlap))
        assert size <= needed + 2 * count + 2


@given(SIDES, SIDES, SHAPES, OVERLAPS)
def test_a_frame_in_nv12_can_be_cut(width, height, shape, overlap):
    for tile in cut(2 * width, 2 * height, settings_of(shape, overlap)):
        assert not (tile.x | tile.y | tile.width | tile.height) & 1


@given(heads(1.0))
def test_a_head_smaller_than_the_overlap_lies_wholly_in_a_tile_that_answers_for_it(case):
    found, head = case
    assert any(holds(tile, head) for tile in found)
    assert any(owned(tile, head) for tile in found)


@given(heads(2 * tiles.SEAM))
def test_who_answers_for_a_small_head_sees_all_of_it(case):
    found, head = case
    # A pixel's thousandth, for what is lost in float32.
    near = (head[0] + 1e-3, head[1] + 1e-3, head[2] - 1e-3, head[3] - 1e-3)
    assert all(holds(tile, near) for tile in found if owned(tile, head))


@given(heads(2 * tiles.SEAM))
def test_the_cut_piece_of_a_small_head_is_dropped(case):
    """What a tile sees of a head that its inner border cuts is clipped there."""
    found, head = case
    for tile in found:
        if holds(tile, head):
            continue
        piece = (
            max(head[0], tile.x),
            max(head[1], tile.y),
            min(head[2], tile.x + tile.width),
            min(head[3], tile.y + tile.height),
        )
        if piece[2] - piece[0] > 1e-2 and piece[3] - piece[1] > 1e-2:
            assert not owned(tile, piece)


@given(SIDES, OVERLAPS, st.floats(0.0, 1.0), st.floats(-0.124, 0.124))
def test_two_tiles_that_see_a_head_a_little_apart_do_not_both_drop_it(
    width, overlap, at, disagreement
):
    how = settings_of((2, 1), overlap)
    left, right = cut(width, 100, how)
    shift = disagreement * tiles.overlap(width, 100, how)
    x = at * width
    assert owned(left, (x + shift - 2, 40, x + shift + 2, 44)) or owned(
        right, (x - shift - 2, 40, x - shift + 2, 44)
    )


class TestWhole:
    HOW = TileSettings(columns=2, rows=2, overlap=0.25, whole=True)

    def test_it_comes_last_and_is_the_frame(self):
        *parts, whole = cut(700, 350, self.HOW)
        assert len(parts) == 4
        assert (whole.x, whole.y, whole.width, whole.height) == (0, 0, 700, 350)

    @pytest.mark.parametrize(
        ("part", "by_tiles", "by_whole"),
        [(0.4, True, False), (0.6, True, True), (1.0, True, True), (1.1, False, True)],
    )
    def test_large_heads_are_the_wholes_and_small_ones_the_tiles(self, part, by_tiles, by_whole):
        *parts, whole = cut(700, 350, self.HOW)
        side = part * tiles.overlap(700, 350, self.HOW)
        head = (10.0, 10.0, 10.0 + side, 10.0 + side)
        assert owned(parts[0], head) == by_tiles
        assert owned(whole, head) == by_whole

    def test_an_axis_that_is_not_cut_limits_nothing(self):
        column, _, whole = cut(100, 1000, TileSettings(columns=1, rows=2, overlap=0.2, whole=True))
        wide = (0.0, 10.0, 99.0, 20.0)
        assert owned(column, wide)
        assert not owned(whole, wide)


def test_the_parts_of_a_frame_are_merged_in_the_order_of_the_tiles():
    merged = tiles.merge([candidates([(0, 0, 1, 1)]), candidates([]), candidates([(2, 2, 3, 3)])])
    assert merged.boxes.tolist() == [[0, 0, 1, 1], [2, 2, 3, 3]]
    assert merged.boxes.dtype == np.float32
    assert len(merged.scores) == len(merged.classes) == 2


@pytest.mark.parametrize(
    ("how", "expected"), [(None, 416 / 1920), (TileSettings(columns=2, rows=2), 416 / 1068)]
)
def test_the_scale_is_that_of_a_tile(how, expected):
    assert tiles.scale((1920, 1080), (416, 416), how) == pytest.approx(expected)
