import pytest

torch = pytest.importorskip("torch")

from edgecount.toolchain.train.assign import assign, near_cells, pairwise_iou  # noqa: E402
from edgecount.toolchain.train.dataset import EMPTY, IGNORE  # noqa: E402
from edgecount.toolchain.train.model import cells  # noqa: E402


def _cells():
    return cells(32, 32, torch.device("cpu"))


def test_cells_lie_in_the_middle_of_their_squares_by_rising_stride():
    centres, strides = _cells()
    assert len(centres) == 16 + 4 + 1
    assert centres[0].tolist() == [4.0, 4.0]
    assert centres[1].tolist() == [12.0, 4.0]
    assert centres[-1].tolist() == [16.0, 16.0]
    assert strides.tolist() == [8.0] * 16 + [16.0] * 4 + [32.0]


def test_overlap_of_hand_worked_boxes():
    a = torch.tensor([[[0.0, 0, 10, 10], [0, 0, 4, 4]]])
    b = torch.tensor([[[5.0, 0, 15, 10], [20, 20, 30, 30]]])
    iou = pairwise_iou(a, b)[0]
    assert iou[0, 0] == pytest.approx(50 / 150)
    assert iou[0, 1] == 0
    assert iou[1, 0] == 0


def test_a_box_smaller_than_a_cell_still_has_a_cell():
    centres, strides = _cells()
    tiny = torch.tensor([[[7.0, 7.0, 9.0, 9.0]]])
    near = near_cells(tiny, centres, strides)[0, 0]
    # no centre of stride 8 is inside, but four are within 0.75 strides of (8, 8)
    assert near[:16].nonzero()[:, 0].tolist() == [0, 1, 4, 5]


def test_the_best_predicted_cell_gets_the_highest_target():
    centres, strides = _cells()
    box = torch.tensor([[[2.0, 2.0, 14.0, 14.0]]])
    predicted = torch.zeros(1, 21, 4)
    predicted[0, 0] = box[0, 0]  # cell (4, 4): exact
    predicted[0, 5] = torch.tensor([2.0, 2.0, 14.0, 8.0])  # cell (12, 12): half
    scores = torch.full((1, 21, 1), 0.5)
    found = assign(predicted, scores, box, torch.tensor([[0]]), centres, strides)
    assert found.positive[0].nonzero()[:, 0].tolist() == [0, 5]
    assert found.quality[0, 0] == pytest.approx(1.0)
    # metric √0.5 · 0.5⁴ against √0.5 · 1: the target falls by the same factor
    assert found.quality[0, 5] == pytest.approx(0.5**4)


def test_cells_of_ignored_regions_do_not_count_and_empty_slots_do_nothing():
    centres, strides = _cells()
    boxes = torch.tensor([[[0.0, 0, 8, 8], [24.0, 24, 32, 32]]])
    found = assign(
        torch.zeros(1, 21, 4),
        torch.full((1, 21, 1), 0.5),
        boxes,
        torch.tensor([[IGNORE, EMPTY]]),
        centres,
        strides,
    )
    assert not found.positive.any()
    assert found.counted[0, 0] == 0
    assert found.counted[0, 15] == 1


def test_a_cell_between_two_boxes_takes_the_one_it_predicts():
    centres, strides = _cells()
    boxes = torch.tensor([[[0.0, 0, 16, 16], [0.0, 0, 10, 10]]])
    predicted = boxes[:, 1:2].expand(1, 21, 4).contiguous()
    found = assign(
        predicted, torch.full((1, 21, 1), 0.5), boxes, torch.zeros(1, 2).long(), centres, strides
    )
    assert found.box[0, 0] == 1
