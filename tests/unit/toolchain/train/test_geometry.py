import pytest

torch = pytest.importorskip("torch")

from edgecount.toolchain.train import colour, geometry  # noqa: E402
from edgecount.toolchain.train.augment import make_batch  # noqa: E402
from edgecount.toolchain.train.dataset import EMPTY, load_pictures  # noqa: E402
from edgecount.toolchain.train.recipe import AugmentSpec  # noqa: E402
from edgecount.toolchain.yolo_files import find_pairs  # noqa: E402


def test_a_box_turned_by_a_right_angle_swaps_its_sides():
    forward = geometry.linear_map(
        torch.tensor([[2.0]]), torch.ones(1, 1), torch.full((1, 1), torch.pi / 2), torch.ones(1, 1)
    )
    offset = torch.tensor([[[0.0, 0, 100, 100]]])
    box = torch.tensor([[[[-3.0, -5, 3, 5]]]])
    moved = geometry.move_boxes(box, forward, offset)[0, 0, 0]
    torch.testing.assert_close(moved, torch.tensor([90.0, 94, 110, 106]))


def test_inverse_undoes_the_map():
    forward = geometry.linear_map(*(torch.tensor([v]) for v in (1.7, 1.2, 0.6, -1.0)))
    torch.testing.assert_close(geometry.invert(forward) @ forward, torch.eye(2)[None])


def test_boxes_follow_their_pixels(drawn):
    """The light discs stay in their boxes whatever zoom, turn and mosaic is drawn."""
    data = load_pictures(find_pairs(drawn(6)), 128, 1, torch.device("cpu"))
    torch.manual_seed(3)
    spec = AugmentSpec(paste=0.0, colour=0.0, degrade=0.0)
    calm = torch.zeros(())
    tiles = geometry.draw_tiles(data, spec, 16, 128, calm)
    plain = torch.zeros(16, dtype=torch.bool)
    patches = geometry.draw_patches(data, spec, plain, 128, calm)
    power = torch.ones(patches.heads.shape)
    slot = geometry.which_slot(tiles, patches.slots, power, power * 0, power * 2, 128)
    images = geometry.render(data, geometry.join(tiles, patches.slots), slot)
    boxes, classes = geometry.gather_boxes(data, tiles, patches, plain, 128, 64)
    checked = 0
    for image, rows, kinds in zip(images, boxes, classes):
        inside = torch.zeros(128, 128, dtype=torch.bool)
        for box, kind in zip(rows, kinds):
            if kind != EMPTY:
                x1, y1, x2, y2 = (int(v) for v in box.round())
                inside[max(0, y1 - 2) : y2 + 3, max(0, x1 - 2) : x2 + 3] = True
                checked += 1
        light = image.mean(0) > 150
        assert (light & ~inside).sum() <= 0.02 * max(1, int(light.sum())) + 6
    assert checked > 20


def test_a_batch_has_fixed_shapes_and_sane_values(drawn):
    data = load_pictures(find_pairs(drawn(4)), 128, 1, torch.device("cpu"))
    data.set_spots(torch.tensor([1]), torch.tensor([[5.0, 5, 25, 25]]), 0.5)
    torch.manual_seed(1)
    batch = make_batch(data, AugmentSpec(paste=0.9), 6, 160, 40, torch.zeros(()))
    images, boxes, classes = batch.images, batch.boxes, batch.classes
    assert images.shape == (6, 3, 160, 160)
    assert boxes.shape == (6, 40, 4)
    assert classes.shape == (6, 40)
    assert images.isfinite().all()
    assert images.min() >= 0
    assert images.max() <= 255
    real = boxes[classes >= 0]
    assert (real[:, 2:] > real[:, :2]).all()


def test_a_calm_batch_has_few_mosaics_and_keeps_its_colours(drawn):
    data = load_pictures(find_pairs(drawn(6)), 128, 1, torch.device("cpu"))
    torch.manual_seed(2)
    spec = AugmentSpec()
    single = [
        float(
            (geometry.draw_tiles(data, spec, 400, 128, torch.tensor(calm)).rect[:, 0, 2] == 128)
            .float()
            .mean()
        )
        for calm in (0.0, 1.0)
    ]
    assert single[0] == pytest.approx(0.4, abs=0.08)
    assert single[1] == pytest.approx(0.88, abs=0.06)
    matrix = colour._colour_matrix(400, spec.colour, torch.ones(()), torch.device("cpu"))
    natural = (matrix - torch.eye(3)).abs().flatten(1).amax(1) < 0.02
    assert float(natural.float().mean()) > 0.5


def test_bare_ground_has_no_heads_but_pasted_ones(drawn):
    data = load_pictures(find_pairs(drawn(6)), 128, 1, torch.device("cpu"))
    torch.manual_seed(2)
    bare = make_batch(data, AugmentSpec(plain=1.0, paste=0.0), 6, 128, 40, torch.zeros(()))
    assert (bare.classes == EMPTY).all()
    pasted = make_batch(data, AugmentSpec(plain=1.0, paste=0.6), 6, 128, 40, torch.zeros(()))
    assert (pasted.classes >= 0).any()
    assert (pasted.negatives[..., 2] > pasted.negatives[..., 0]).any()


def test_a_cone_stands_on_a_base():
    rect = torch.zeros(1, 9, 4)
    tiles = geometry.Slots(torch.zeros(1, 9), rect, rect, rect)
    patch = torch.tensor([[[10.0, 10, 50, 60]]])
    patches = geometry.Slots(torch.zeros(1, 1), patch, patch, patch)
    power, taper, base = (torch.full((1, 1), v) for v in (6.0, 0.8, 0.7))
    shown = geometry.which_slot(tiles, patches, power, taper, base, 64)[0] == geometry.TILES
    widths = shown.sum(1)
    assert widths[14] < 15 < widths[40] < widths[55]
    assert widths[55] >= 38
