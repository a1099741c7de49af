"""What every head decoder must do; run on each file of edgecount/infer/heads."""

from typing import Tuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support import onnx_models

from edgecount import discovery
from edgecount.infer.detector import OnnxDetector, Thresholds
from edgecount.infer.heads.base import Candidates, Head, HeadSpec
from edgecount.infer.recipe import HEADS_PACKAGE, InputRecipe, Recipe

WIDTH, HEIGHT = 96, 64
THRESHOLD = 0.25
HEADS = discovery.names(HEADS_PACKAGE)
pytestmark = pytest.mark.filterwarnings("error")  # a warning per frame would flood the log
every_head = pytest.mark.parametrize("name", HEADS)


def head_of(name: str, classes: int = 3, wanted: Tuple[int, ...] = (0, 2)) -> Head:
    module = discovery.load(HEADS_PACKAGE, name, "head")
    head: Head = module.create(HeadSpec(classes, wanted, onnx_models.STRIDES))
    return head


def output_shape(head: Head) -> Tuple[int, ...]:
    return tuple(100 if n < 0 else n for n in head.expected_shape(WIDTH, HEIGHT))


def decode(head: Head, output: np.ndarray) -> Candidates:
    return head.decode(output, WIDTH, HEIGHT, THRESHOLD)


def random_output(name: str, seed: int, classes: int = 3) -> np.ndarray:
    """Numbers as such a network says them: scores where scores are, sizes where sizes are."""
    random = np.random.default_rng(seed)
    shape = output_shape(head_of(name, classes))
    if name == "end2end":
        output = random.uniform(0, 60, shape)
        output[:, 4] = random.uniform(0, 1, shape[0])
        output[:, 5] = random.integers(0, classes, shape[0])
    elif name in ("yolov8", "ltrb"):
        output = random.uniform(0.1, 4, shape)
        output[4:] = random.uniform(0, 1, output[4:].shape)
        if name == "ltrb":
            output[4:] = random.normal(-2, 2, output[4:].shape)
    else:
        output = random.uniform(0.1, 3, shape)
        output[:, 4:] = random.uniform(0, 1, output[:, 4:].shape)
    return output.astype(np.float32)


@every_head
def test_every_head_has_a_test_model(name: str) -> None:
    assert name in onnx_models.LAYOUTS


@every_head
def test_expected_shape_is_the_shape_of_the_layout(name: str) -> None:
    written = onnx_models.encode(name, (), WIDTH, HEIGHT, classes=3)
    assert output_shape(head_of(name)) == written.shape


@every_head
def test_nothing_above_the_threshold_gives_empty_arrays(name: str) -> None:
    empty = onnx_models.encode(name, (), WIDTH, HEIGHT, classes=3)
    found = decode(head_of(name), empty)
    assert found.boxes.shape == (0, 4)
    assert found.scores.shape == (0,)
    assert found.classes.shape == (0,)
    assert (found.boxes.dtype, found.scores.dtype) == (np.float32, np.float32)
    assert found.classes.dtype == np.int32


@every_head
@pytest.mark.parametrize("wanted", [(0,), (2,), (0, 2), (0, 1, 2)])
def test_dtypes_and_wanted_classes(name: str, wanted: Tuple[int, ...]) -> None:
    found = decode(head_of(name, wanted=wanted), random_output(name, seed=3))
    assert len(found.scores) > 0
    assert found.boxes.shape == (len(found.scores), 4)
    assert (found.boxes.dtype, found.scores.dtype) == (np.float32, np.float32)
    assert found.classes.dtype == np.int32
    assert set(found.classes) <= set(wanted)
    assert found.scores.min() >= THRESHOLD - 1e-6


@every_head
def test_decoding_leaves_the_output_alone(name: str) -> None:
    output = random_output(name, seed=5)
    before = output.copy()
    decode(head_of(name), output)
    np.testing.assert_array_equal(output, before)


@every_head
@pytest.mark.parametrize("wanted", [(0,), (1, 2)])
@pytest.mark.parametrize("seed", range(5))
def test_agrees_with_a_float64_loop(name: str, wanted: Tuple[int, ...], seed: int) -> None:
    output = random_output(name, seed)
    found = decode(head_of(name, wanted=wanted), output)
    boxes, scores, classes = naive_decode(name, output, wanted)
    np.testing.assert_array_equal(found.classes, classes)
    np.testing.assert_allclose(found.scores, scores, atol=1e-6)
    np.testing.assert_allclose(found.boxes, boxes, atol=1e-3)


@every_head
@settings(deadline=None, max_examples=40)
@given(data=st.data())
def test_broken_numbers_neither_raise_nor_reach_the_user(name: str, data: st.DataObject) -> None:
    output = random_output(name, seed=data.draw(st.integers(0, 20)))
    broken = st.sampled_from([np.nan, np.inf, -np.inf, 3e38, -3e38, 1e20])
    for _ in range(data.draw(st.integers(1, 30))):
        where = tuple(data.draw(st.integers(0, n - 1)) for n in output.shape)
        output[where] = data.draw(broken)
    found = run_detector(name, output)
    assert np.isfinite(found.boxes).all()
    assert np.isfinite(found.scores).all()
    assert (found.boxes[:, 2:] > found.boxes[:, :2]).all()
    assert (found.boxes >= 0).all()
    assert (found.boxes <= [WIDTH, HEIGHT, WIDTH, HEIGHT]).all()


@every_head
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_an_output_of_nothing_but_broken_numbers_is_empty(name: str, value: float) -> None:
    found = run_detector(name, np.full(output_shape(head_of(name)), value, np.float32))
    assert len(found) == 0


@every_head
@pytest.mark.parametrize("broken", [np.nan, np.inf, 1e30, -1e30])
def test_one_broken_box_does_not_suppress_the_others(name: str, broken: float) -> None:
    good, bad = onnx_models.Box(20, 20, 40, 44, 0.8), onnx_models.Box(60, 30, 80, 50, 0.9)
    output = onnx_models.encode(name, [good, bad], WIDTH, HEIGHT, classes=3)
    alone = onnx_models.encode(name, [good], WIDTH, HEIGHT, classes=3)
    if name == "end2end":
        output[1, :4] = broken
    else:
        numbers = np.s_[:4] if name in ("yolov8", "ltrb") else np.s_[:, :4]
        output[numbers][output[numbers] != alone[numbers]] = broken
    found = run_detector(name, output)
    np.testing.assert_allclose(found.boxes, [good[:4]], atol=1e-3)


def run_detector(name: str, output: np.ndarray):
    recipe = Recipe(
        name="test",
        file="test.onnx",
        head=name,
        classes=["head", "a", "b"],
        counted=["head", "b"],
        low_threshold=THRESHOLD,
        input=InputRecipe(width=WIDTH, height=HEIGHT),
    )
    detector = OnnxDetector(
        ConstantNetwork(output),
        recipe,
        size=(WIDTH, HEIGHT),
        thresholds=Thresholds(THRESHOLD, 0.6),
    )
    return detector.detect([np.zeros((HEIGHT, WIDTH, 3), np.uint8)])[0]


class ConstantNetwork:
    """Says the same for every picture."""

    input_shape: Tuple[object, ...] = (1, 3, HEIGHT, WIDTH)

    def __init__(self, output: np.ndarray) -> None:
        self._output = output[None]
        self.output_shape: Tuple[object, ...] = self._output.shape

    def run(self, batch: np.ndarray) -> np.ndarray:
        return self._output


def naive_decode(name: str, output: np.ndarray, wanted: Tuple[int, ...]):
    """The definition of each layout, one cell at a time, in float64."""
    rows = (output.T if name in ("yolov8", "ltrb") else output).astype(np.float64)
    grid = [
        (x, y, s)
        for s in onnx_models.STRIDES
        for y in range(HEIGHT // s)
        for x in range(WIDTH // s)
    ]
    boxes, scores, classes = [], [], []
    for i, row in enumerate(rows):
        column, line, stride = grid[i % len(grid)]
        score, label = naive_score(name, row, wanted)
        if score < THRESHOLD:
            continue
        if name == "end2end":
            box = row[:4]
        elif name == "ltrb":
            x, y = column + 0.5, line + 0.5
            box = np.array([x - row[0], y - row[1], x + row[2], y + row[3]]) * stride
        else:
            x, y, w, h = row[:4]
            if name == "yolox":
                x, y = (column + x) * stride, (line + y) * stride
                w, h = np.exp(w) * stride, np.exp(h) * stride
            box = np.array([x - w / 2, y - h / 2, x + w / 2, y + h / 2])
        boxes.append(box)
        scores.append(score)
        classes.append(label)
    return np.reshape(boxes, (-1, 4)), np.array(scores), np.array(classes)


def naive_score(name: str, row: np.ndarray, wanted: Tuple[int, ...]) -> Tuple[float, int]:
    if name == "end2end":
        return (row[4] if int(row[5]) in wanted else 0.0), int(row[5])
    offset = 5 if name in ("yolox", "yolov5") else 4
    label = max(wanted, key=lambda c: row[offset + c])
    score = row[offset + label]
    if name == "ltrb":
        return 1 / (1 + np.exp(-score)), label
    return (score * row[4] if offset == 5 else score), label
