"""The distance to a finished network's output, and training that shrinks it."""

import math

import pytest

torch = pytest.importorskip("torch")

from edgecount.toolchain.train.loss import detection_loss  # noqa: E402
from edgecount.toolchain.train.model import cells  # noqa: E402
from edgecount.toolchain.train.taught import Master, inside_any, output_distance  # noqa: E402

CELLS = 64 + 16 + 4  # of a picture of 64 pixels


def test_equal_outputs_are_no_distance_apart():
    torch.manual_seed(0)
    output = torch.rand(2, 5, CELLS) * 4
    assert float(output_distance(output, output, (64, 64), 3.0)) == pytest.approx(0, abs=1e-4)
    moved = output.clone()
    moved[:, 4] += 2
    assert float(output_distance(moved, output, (64, 64), 3.0)) > 0.1


def test_the_distance_by_hand():
    """One sure cell whose score is missed: ln 2 against 0, over a total of one."""
    wanted = torch.ones(1, 5, CELLS)
    wanted[:, 4] = -40.0
    wanted[0, 4, 7] = 40.0
    output = wanted.clone()
    output[0, 4, 7] = 0.0
    assert float(output_distance(output, wanted, (64, 64), 3.0)) == pytest.approx(math.log(2))
    ignored = torch.ones(1, CELLS)
    ignored[0, 7] = 0
    assert float(output_distance(output, wanted, (64, 64), 3.0, ignored)) == pytest.approx(0)


def test_boxes_count_by_the_masters_score():
    wanted = torch.ones(1, 5, CELLS)
    wanted[:, 4] = -40.0
    elsewhere = wanted.clone()
    elsewhere[:, :4] = 2.0
    assert float(output_distance(elsewhere, wanted, (64, 64), 3.0)) == pytest.approx(0, abs=1e-6)
    wanted[0, 4, 7] = elsewhere[0, 4, 7] = 40.0
    # the wanted box is a quarter of the given one, concentric and of the same shape
    assert float(output_distance(elsewhere, wanted, (64, 64), 3.0)) == pytest.approx(3 * 0.75)


def test_what_the_master_sees_clearly_is_no_mistake_unless_it_was_painted():
    wanted = torch.full((1, 5, CELLS), -10.0)
    wanted[0, 4, 3] = wanted[0, 4, 5] = 1.0  # 0.73
    wanted[0, 4, 4] = 0.0  # 0.5
    certain = torch.zeros(1, CELLS, dtype=torch.bool)
    certain[0, 5] = True
    master = Master(torch.nn.Identity(), forgive_above=0.6)
    assert master.forgives(wanted, certain)[0].nonzero()[:, 0].tolist() == [3]
    assert Master(torch.nn.Identity()).forgives(wanted, certain) is None


def test_forgiven_cells_leave_the_score_loss_and_labelled_ones_stay():
    centres, strides = cells(64, 64, torch.device("cpu"))
    output = torch.ones(1, 5, CELLS)
    output[:, 4] = -4.0
    output[0, 4, 60] = 3.0  # a head that nobody labelled
    boxes = torch.tensor([[[4.0, 4, 20, 20]]])
    classes = torch.zeros(1, 1, dtype=torch.int64)
    everything = torch.ones(1, CELLS, dtype=torch.bool)
    one = torch.zeros(1, CELLS, dtype=torch.bool)
    one[0, 60] = True
    given = (output, boxes, classes, centres, strides, 3.0)
    strict, lenient, open_handed = (
        float(detection_loss(*given, forgiven)[1]["score"]) for forgiven in (None, one, everything)
    )
    quality = 1.0  # the loss is divided by the summed qualities, at least 1
    expected = math.log(1 + math.exp(3.0)) / quality
    assert strict - lenient == pytest.approx(expected, rel=0.01)
    assert 0 < open_handed < lenient


def test_points_inside_rectangles():
    rects = torch.tensor([[[0.0, 0, 10, 10], [0, 0, 0, 0]], [[20.0, 20, 30, 40], [0, 0, 0, 0]]])
    points = torch.tensor([[5.0, 5.0], [25.0, 35.0], [0.0, 0.0]])
    assert inside_any(rects, points).tolist() == [[True, False, False], [False, True, False]]
    assert not inside_any(rects[:, :0], points).any()
