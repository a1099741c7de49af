"""The kernels on a GPU, on fresh random inputs, against their references."""

from typing import Any, List, Sequence

import numpy as np
import pytest
from support import nms_cases
from support.nms_run import NmsRun, check
from support.pictures import Picture, PreprocessRun, expected, picture

from edgecount.config import Point, TileSettings
from edgecount.infer.cuda.driver import Device, Stream
from edgecount.infer.detector import Thresholds
from edgecount.infer.letterbox import Letterbox
from edgecount.infer.recipe import InputRecipe

pytestmark = pytest.mark.gpu

THRESHOLDS = Thresholds(0.1, 0.6)
SIZE = (640, 640)
SOURCES = [(1920, 1080), (640, 480), (720, 1280), (3840, 2160)]
MASKS: List[Sequence[Sequence[Point]]] = [
    [],
    [[(0.1, 0.1), (0.6, 0.15), (0.5, 0.8)], [(0.5, 0.5), (1.0, 0.5), (1.0, 1.0), (0.5, 1.0)]],
]
# exp() of CUDA is good to 2 units in the last place, and half a box is subtracted from it.
ULPS = 16


@pytest.fixture
def random() -> np.random.Generator:
    seed = np.random.SeedSequence()
    print("seed", seed.entropy)  # shown where the test fails
    return np.random.default_rng(seed)


def run_and_compare(
    device: Device, stream: Stream, head: str, outputs: List[np.ndarray], classes: int, ulps: int
) -> None:
    recipe = nms_cases.recipe(head, SIZE, classes)
    boxes = [Letterbox.fit(*SOURCES[i % len(SOURCES)], *SIZE) for i in range(len(outputs))]
    cameras = [i % len(MASKS) for i in range(len(outputs))]
    nms = NmsRun(device, stream, recipe, SIZE, outputs, thresholds=THRESHOLDS, masks=MASKS)
    for _ in range(2):  # the second time on what the first left in the scratch memory
        results = nms.run(boxes, cameras)
        for output, box, camera, found in zip(outputs, boxes, cameras, results):
            wanted = nms_cases.expected(recipe, SIZE, THRESHOLDS, output, box, MASKS[camera])
            check(found, wanted, ulps)


@pytest.mark.parametrize("head", nms_cases.HEADS)
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("classes", [1, 3])
def test_every_head(
    device: Device, stream: Stream, random: np.random.Generator, head: str, dtype: Any, classes: int
) -> None:
    recipe = nms_cases.recipe(head, SIZE, classes)
    outputs = [
        nms_cases.output(recipe, SIZE, heads, random).astype(dtype)
        for heads in (0, 1, 20, 150, 300, 1000)
    ]
    run_and_compare(device, stream, head, outputs, classes, ULPS)


@pytest.mark.parametrize("batch", [1, 2, 8, 32])
def test_identical_where_the_boxes_are_given(
    device: Device, stream: Stream, random: np.random.Generator, batch: int
) -> None:
    recipe = nms_cases.recipe("yolov5", SIZE)
    heads = [int(n) for n in random.integers(1, 1500, batch)]
    outputs = [nms_cases.output(recipe, SIZE, n, random, ties=bool(n % 2)) for n in heads]
    run_and_compare(device, stream, "yolov5", outputs, 1, 0)


@pytest.mark.parametrize(("head", "ulps"), [("yolov5", 0), ("ltrb", ULPS)])
def test_frames_in_tiles_beside_whole_ones(
    device: Device, stream: Stream, random: np.random.Generator, head: str, ulps: int
) -> None:
    four = TileSettings(columns=2, rows=2, whole=True)
    frames = [((1920, 1080), four), ((640, 480), None), ((1280, 720), four)]
    recipe = nms_cases.recipe(head, SIZE)
    outputs = [
        nms_cases.output(recipe, SIZE, int(n), random, ties=bool(n % 2))
        for n in random.integers(1, 400, 11)
    ]
    nms = NmsRun(
        device, stream, recipe, SIZE, outputs, thresholds=THRESHOLDS, masks=MASKS, tiles=True
    )
    nms.describe_cut(SIZE, frames, [1, 1, 0])
    for _ in range(2):
        first, whole, second, *none = nms.results()
        box = Letterbox.fit(640, 480, *SIZE)
        check(whole, nms_cases.expected(recipe, SIZE, THRESHOLDS, outputs[5], box, MASKS[1]), ulps)
        for found, mine, frame, masks in (
            (first, outputs[:5], (1920, 1080), MASKS[1]),
            (second, outputs[6:], (1280, 720), MASKS[0]),
        ):
            wanted = nms_cases.expected_in_tiles(recipe, SIZE, THRESHOLDS, mine, frame, four, masks)
            check(found, wanted, ulps)
        assert not any(len(found) for found in none)
    nms.close()


def mixed(random: np.random.Generator, count: int) -> List[Picture]:
    sizes = [(1920, 1080), (1280, 720), (333, 517), (640, 640), (2560, 1440)]
    layouts = ["bgr", "nv12"]
    made = []
    for i in range(count):
        width, height = sizes[i % len(sizes)]
        layout = layouts[i % 2] if not (width | height) & 1 else "bgr"
        standard = "bt709" if i % 4 == 3 else "bt601"
        made.append(picture(width, height, layout, random, standard=standard))  # type: ignore[arg-type]
    return made


@pytest.mark.parametrize("dtype", [np.float32, np.float16])
@pytest.mark.parametrize("variant", [(1, 4), (2, 2), (4, 1)])
def test_pictures_of_many_sizes(
    device: Device, stream: Stream, random: np.random.Generator, dtype: Any, variant: Any
) -> None:
    input_ = InputRecipe(
        width=640, height=640, color="rgb", scale=1 / 255, mean=(5.0, 6.0, 7.0), pad=114.0
    )
    pictures = mixed(random, 7)
    run = PreprocessRun(
        device, stream, pictures, input_, dtype, pixels=variant[0], steps=variant[1]
    )
    levels = np.abs(run.run().astype(np.float32) - expected(pictures, input_)) / input_.scale
    rounding = 0.0 if dtype == np.float32 else 0.13  # of half precision near 1, in levels
    assert levels.max() <= 1.001 + rounding
    run.close()


def test_int8_input(device: Device, stream: Stream, random: np.random.Generator) -> None:
    input_ = InputRecipe(width=640, height=640)
    pictures = [picture(640, 640, "bgr", random), picture(640, 640, "nv12", random)]
    run = PreprocessRun(device, stream, pictures, input_, np.int8, step=2.0)
    assert (run.run() == np.clip(np.rint(expected(pictures, input_) / 2), -128, 127)).all()
    run.close()


def test_small_for_the_sanitizer(
    device: Device, stream: Stream, random: np.random.Generator
) -> None:
    """Every kernel once, on little data: compute-sanitizer is a hundred times slower."""
    for head in ("ltrb", "yolov5"):
        recipe = nms_cases.recipe(head, SIZE, 3)
        outputs = [nms_cases.output(recipe, SIZE, heads, random) for heads in (0, 60, 600)]
        run_and_compare(device, stream, head, outputs, 3, ULPS)
    input_ = InputRecipe(width=160, height=160)
    pictures = [picture(311, 97, "bgr", random), picture(300, 200, "nv12", random)]
    run = PreprocessRun(device, stream, pictures, input_, np.float16)
    assert np.abs(run.run().astype(np.float32) - expected(pictures, input_)).max() <= 1.1
    run.close()
