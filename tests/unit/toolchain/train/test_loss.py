import math

import pytest

torch = pytest.importorskip("torch")

from edgecount.toolchain.train.dataset import IGNORE  # noqa: E402
from edgecount.toolchain.train.loss import complete_iou, detection_loss  # noqa: E402
from edgecount.toolchain.train.model import cells  # noqa: E402


def test_complete_iou_of_hand_worked_pairs():
    box = torch.tensor([0.0, 0, 10, 10])
    assert complete_iou(box, box) == pytest.approx(1.0)
    # moved by its own width: no overlap; centres 10 apart in a hull of 20 × 10
    assert complete_iou(box, torch.tensor([10.0, 0, 20, 10])) == pytest.approx(-100 / 500)
    # same centre, twice as wide: half the overlap, and a difference in shape
    v = 4 / math.pi**2 * (math.atan(1) - math.atan(2)) ** 2
    expected = 0.5 - v * v / (0.5 + v)
    wide = complete_iou(torch.tensor([0.0, 0, 10, 10]), torch.tensor([-5.0, 0, 15, 10]))
    assert wide == pytest.approx(expected, abs=1e-6)


def _loss(output, boxes, classes):
    centres, strides = cells(32, 32, torch.device("cpu"))
    return detection_loss(output, boxes, classes, centres, strides, box_weight=3.0)


def test_an_empty_picture_costs_the_sum_of_log_one_minus_score():
    output = torch.zeros(1, 5, 21)
    loss, parts = _loss(output, torch.zeros(1, 1, 4), torch.full((1, 1), -1))
    assert loss == pytest.approx(21 * math.log(2), rel=1e-5)
    assert parts["box"] == 0


def test_an_ignored_picture_costs_nothing():
    boxes = torch.tensor([[[0.0, 0, 32, 32]]])
    loss, _ = _loss(torch.zeros(1, 5, 21), boxes, torch.full((1, 1), IGNORE))
    assert loss == 0


def test_a_perfect_prediction_costs_less_than_a_moved_one_and_gradients_point_there():
    boxes = torch.tensor([[[4.0, 4, 28, 28]]])
    output = torch.full((1, 5, 21), -8.0)
    output[:, :4] = 0.01
    output[0, :4, 20] = 12 / 32  # the stride-32 cell at (16, 16)
    output[0, 4, 20] = 6.0
    moved = output.clone()
    moved[0, 0, 20] = 4 / 32
    moved.requires_grad_(True)
    good, _ = _loss(output, boxes, torch.zeros(1, 1).long())
    bad, _ = _loss(moved, boxes, torch.zeros(1, 1).long())
    assert good < bad
    bad.backward()
    assert moved.grad[0, 0, 20] < 0  # a larger left distance lowers the loss
