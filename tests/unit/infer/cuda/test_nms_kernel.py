"""The NMS kernel, emulated on a CPU, against the detector's own decoding and NMS."""

from typing import Any, List, Optional, Sequence, Tuple

import numpy as np
import pytest
from support import nms_cases
from support.cuda_emulator import emulator
from support.nms_run import NmsRun, check

from edgecount.config import Point, TileSettings
from edgecount.errors import ModelError
from edgecount.infer.cuda.postprocess import KERNELS
from edgecount.infer.detector import Thresholds
from edgecount.infer.letterbox import Letterbox
from edgecount.infer.recipe import Recipe
from edgecount.records import Detections

SMALL = (96, 64)
LARGE = (320, 320)
SOURCES = [(1920, 1080), (64, 48), (720, 1280), (96, 64)]
THRESHOLDS = Thresholds(0.1, 0.6)
MASKS: List[Sequence[Sequence[Point]]] = [
    [],
    [[(0.1, 0.1), (0.6, 0.15), (0.5, 0.8)], [(0.5, 0.5), (1.0, 0.5), (1.0, 1.0), (0.5, 1.0)]],
]
ULPS = 16


@pytest.fixture(scope="module")
def device() -> emulator.Device:
    return emulator.Device()


def load(device: emulator.Device, name: str, defines: Any) -> emulator.Module:
    return device.compile(name, KERNELS, defines)


def run_of(
    device: emulator.Device,
    recipe: Recipe,
    size: Tuple[int, int],
    outputs: Sequence[np.ndarray],
    *,
    seed: int = 0,
    most: int = 1024,
    thresholds: Thresholds = THRESHOLDS,
    tiles: bool = False,
) -> NmsRun:
    return NmsRun(
        device,
        device.stream(seed),
        recipe,
        size,
        outputs,
        thresholds=thresholds,
        masks=MASKS,
        most=most,
        tiles=tiles,
        load=load,
    )


def compare(
    device: emulator.Device,
    recipe: Recipe,
    size: Tuple[int, int],
    outputs: Sequence[np.ndarray],
    *,
    ulps: int = ULPS,
    thresholds: Thresholds = THRESHOLDS,
    cameras: Optional[Sequence[int]] = None,
    seed: int = 0,
) -> List[Detections]:
    boxes = [Letterbox.fit(*SOURCES[i % len(SOURCES)], *size) for i in range(len(outputs))]
    cameras = cameras or [0] * len(outputs)
    kernel = run_of(device, recipe, size, outputs, seed=seed, thresholds=thresholds)
    results = kernel.run(boxes, cameras)
    for output, box, camera, found in zip(outputs, boxes, cameras, results):
        masks = MASKS[camera]
        check(found, nms_cases.expected(recipe, size, thresholds, output, box, masks), ulps)
    for again, first in zip(kernel.run(boxes, cameras), results):
        check(again, first, 0)  # the scratch memory is as before
    return results


@pytest.mark.parametrize("head", nms_cases.HEADS)
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("classes", [1, 3])
def test_every_head_decodes_as_its_reference(
    device: emulator.Device, head: str, dtype: Any, classes: int
) -> None:
    random = np.random.default_rng(classes)
    recipe = nms_cases.recipe(head, SMALL, classes)
    outputs = [nms_cases.output(recipe, SMALL, n, random).astype(dtype) for n in (9, 0, 40)]
    results = compare(device, recipe, SMALL, outputs, cameras=[0, 1, 1])
    assert len(results[0]) > 3
    assert len(results[1]) == 0


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_more_candidates_than_top_k(device: emulator.Device, seed: int) -> None:
    random = np.random.default_rng(seed)
    recipe = nms_cases.recipe("yolov5", LARGE)
    outputs = [nms_cases.output(recipe, LARGE, n, random, ties=t) for n, t in ((700, 0), (900, 1))]
    results = compare(device, recipe, LARGE, outputs, ulps=0, seed=seed)
    assert all(len(r) > 100 for r in results)


@pytest.mark.parametrize("levels", [1, 7, 1 << 20])
@pytest.mark.parametrize("count", [1, 64, 65, 2047, 2048, 2049, 2500])
def test_the_best_of_boxes_that_all_stay(device: emulator.Device, levels: int, count: int) -> None:
    """Nothing overlaps, so that one candidate too few, too many or misplaced shows."""
    random = np.random.default_rng(count)
    recipe = nms_cases.recipe("yolov5", LARGE)
    output = np.zeros((nms_cases.rows_of(recipe, LARGE), 6), np.float32)
    at = np.sort(random.permutation(len(output))[:count])
    place = random.permutation(2500)[:count]
    scores = np.ceil(random.uniform(0, levels, count)) / levels * 0.8 + 0.15
    output[at] = np.column_stack(
        [place % 50 * 6 + 5, place // 50 * 6 + 5, *np.full((2, count), 4), np.ones(count), scores]
    )
    box = Letterbox.fit(*LARGE, *LARGE)
    found = run_of(device, recipe, LARGE, [output], most=2048).run([box], [0])[0]
    assert len(found) == min(count, 2048)
    check(found, nms_cases.expected(recipe, LARGE, THRESHOLDS, output, box), 0)


def test_identical_to_the_reference_where_the_boxes_are_given(device: emulator.Device) -> None:
    random = np.random.default_rng(5)
    recipe = nms_cases.recipe("end2end", LARGE, 3)
    outputs = [nms_cases.output(recipe, LARGE, n, random, ties=bool(n % 2)) for n in (3, 50, 51)]
    compare(device, recipe, LARGE, outputs, ulps=0, cameras=[1, 0, 1])


@pytest.mark.parametrize("count", [1, 31, 32, 33, 63, 64, 65, 255, 256, 257, 300])
def test_a_chain_in_which_every_box_depends_on_the_one_before(
    device: emulator.Device, count: int
) -> None:
    """Each overlaps only its neighbours, so every second one stays."""
    recipe = nms_cases.recipe("end2end", LARGE)
    output = np.zeros((300, 6), np.float32)
    x = np.arange(count)
    output[:count] = np.column_stack([x, 0 * x, x + 3.0, 0 * x + 4.0, 0.9 - x * 1e-3, 0 * x])
    found = compare(device, recipe, LARGE, [output], ulps=0, thresholds=Thresholds(0.1, 0.4))
    assert len(found[0]) == -(-count // 2)


def test_numbers_of_a_broken_network_are_dropped(device: emulator.Device) -> None:
    random = np.random.default_rng(8)
    for head in nms_cases.HEADS:
        recipe = nms_cases.recipe(head, SMALL, 3)
        output = nms_cases.output(recipe, SMALL, 30, random)
        broken = random.choice(output.size, output.size // 8, replace=False)
        output.reshape(-1)[broken] = random.choice(
            np.array([np.nan, np.inf, -np.inf, 1e30, -5, 0], np.float32), len(broken)
        )
        compare(device, recipe, SMALL, [output])


@pytest.mark.parametrize("temperature", [0.6, 1.7])
@pytest.mark.parametrize("anchor", ["center", "bottom"])
def test_temperature_and_anchor(device: emulator.Device, temperature: float, anchor: str) -> None:
    random = np.random.default_rng(11)
    recipe = nms_cases.recipe("yolov8", SMALL, temperature=temperature, anchor=anchor)
    outputs = [nms_cases.output(recipe, SMALL, 25, random) for _ in range(2)]
    # A score near 1 amplifies the rounding of its logit.
    compare(device, recipe, SMALL, outputs, ulps=256, cameras=[1, 1])


def test_the_weakest_go_where_there_is_no_room(device: emulator.Device) -> None:
    random = np.random.default_rng(12)
    recipe = nms_cases.recipe("yolov8", SMALL)
    output = nms_cases.output(recipe, SMALL, 40, random)
    box = Letterbox.fit(*SOURCES[0], *SMALL)
    found = run_of(device, recipe, SMALL, [output], most=5).run([box], [0])[0]
    wanted = nms_cases.expected(recipe, SMALL, THRESHOLDS, output, box)
    assert len(wanted) > 5
    check(found, Detections(wanted.boxes[:5], wanted.scores[:5], wanted.classes[:5]), ULPS)


def test_an_unknown_head_names_those_that_are_known(device: emulator.Device) -> None:
    recipe = nms_cases.recipe("yolox", SMALL).model_copy(update={"head": "detr"})
    with pytest.raises(ModelError, match=r"detr.*no CUDA decoder.*yolox"):
        run_of(device, recipe, SMALL, [np.zeros((10, 6), np.float32)])


class TestTiles:
    """Frames in tiles beside whole ones, against the detector's own tiles."""

    FRAMES = (
        ((640, 360), TileSettings(columns=2, rows=2, overlap=0.25)),
        ((300, 200), None),
        ((400, 300), TileSettings(columns=2, rows=1, overlap=0.3, whole=True)),
    )
    CAMERAS = (1, 1, 0)

    @staticmethod
    def outputs(recipe, size, heads, ties=False, seed=0):
        random = np.random.default_rng(seed)
        return [nms_cases.output(recipe, size, heads, random, ties=ties) for _ in range(8)]

    def check_all(self, kernel, recipe, size, outputs, ulps):
        kernel.describe_cut(size, self.FRAMES, self.CAMERAS)
        found, at = kernel.results(), 0
        for ((frame, how), camera), seen in zip(zip(self.FRAMES, self.CAMERAS), found):
            mine = outputs[at : at + (1 if how is None else how.pictures)]
            at += len(mine)
            if how is None:
                box = Letterbox.fit(*frame, *size)
                wanted = nms_cases.expected(recipe, size, THRESHOLDS, mine[0], box, MASKS[camera])
            else:
                wanted = nms_cases.expected_in_tiles(
                    recipe, size, THRESHOLDS, mine, frame, how, MASKS[camera]
                )
            check(seen, wanted, ulps)
        assert [len(none) for none in found[len(self.FRAMES) :]] == [0] * 5
        return found

    @pytest.mark.parametrize("head", nms_cases.HEADS)
    def test_each_head(self, device, head):
        recipe = nms_cases.recipe(head, SMALL, temperature=0.7)
        outputs = self.outputs(recipe, SMALL, 12)
        kernel = run_of(device, recipe, SMALL, outputs, tiles=True)
        found = self.check_all(kernel, recipe, SMALL, outputs, ULPS)
        assert min(len(f) for f in found[:3]) > 3
        kernel.close()

    @pytest.mark.parametrize("seed", range(4))
    def test_ties_go_by_tile_and_then_by_row_in_any_order_of_blocks(self, device, seed):
        recipe = nms_cases.recipe("ltrb", SMALL, classes=3)
        outputs = self.outputs(recipe, SMALL, 20, ties=True, seed=seed)
        kernel = run_of(device, recipe, SMALL, outputs, seed=seed, tiles=True)
        self.check_all(kernel, recipe, SMALL, outputs, ULPS)
        kernel.close()

    def test_more_candidates_than_fit(self, device):
        recipe = nms_cases.recipe("yolov8", LARGE)
        outputs = self.outputs(recipe, LARGE, 300)
        kernel = run_of(device, recipe, LARGE, outputs, tiles=True)
        self.check_all(kernel, recipe, LARGE, outputs, ULPS)
        kernel.close()

    def test_again_with_other_frames_nothing_is_left_of_the_last_ones(self, device):
        recipe = nms_cases.recipe("yolox", SMALL)
        outputs = self.outputs(recipe, SMALL, 12)
        kernel = run_of(device, recipe, SMALL, outputs, tiles=True)
        first = self.check_all(kernel, recipe, SMALL, outputs, ULPS)
        kernel.describe_cut(SMALL, [((100, 80), None)] * 8, [0] * 8)
        assert all(len(found) for found in kernel.results())
        again = self.check_all(kernel, recipe, SMALL, outputs, ULPS)
        for one, other in zip(first, again):
            np.testing.assert_array_equal(one.boxes, other.boxes)
        kernel.close()
