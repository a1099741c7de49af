import numpy as np
import pytest
from support import engines
from support.cuda_emulator import emulator
from support.fake_cuda import FakeCuda

from edgecount.errors import ModelError
from edgecount.infer.cuda.driver import Device
from edgecount.infer.heads import end2end
from edgecount.infer.heads.base import HeadSpec
from edgecount.infer.tensorrt import efficient_nms, loader
from edgecount.infer.tensorrt.efficient_nms import RowsKernel
from edgecount.infer.tensorrt.executor import TensorRTNetwork
from edgecount.infer.tensorrt.flavours import TensorSpec

SIZE = (engines.SIDE, engines.SIDE)
DETECTIONS = np.array(
    [[1, 2, 11, 12, 0.9, 0], [3, 4, 9, 14, 0.5, 1], [9, 9, 9, 9, 0.4, 0]], np.float32
)


def spec(name, shape, dtype=np.float32):
    return TensorSpec(name, False, np.dtype(dtype), shape)


FOUR = [
    spec("num_detections", (1, 1), np.int32),
    spec("detection_boxes", (1, 100, 4)),
    spec("detection_scores", (1, 100)),
    spec("detection_classes", (1, 100), np.int32),
]


def test_the_outputs_are_known_by_shape_and_type_whatever_their_names():
    for outputs in (FOUR, FOUR[::-1]):
        found = efficient_nms.find(outputs)
        assert found is not None
        assert found.names == tuple(t.name for t in FOUR)
        assert found.most == 100


@pytest.mark.parametrize(
    "outputs",
    [
        FOUR[:3],
        [FOUR[0], FOUR[1], FOUR[2], spec("labels", (1, 100))],
        [FOUR[0], FOUR[1], FOUR[2], spec("labels", (1, 99), np.int32)],
        [FOUR[0], spec("boxes", (1, -1, 4)), FOUR[2], FOUR[3]],
        [spec("output", (1, 84, 8400))],
    ],
)
def test_other_outputs_are_not(outputs):
    assert efficient_nms.find(outputs) is None


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("seed", [0, 1])
def test_the_kernel_makes_the_rows_of_its_reference(batch, seed):
    emulator.needs_compiler()
    most = 100
    random = np.random.default_rng(batch)
    boxes = random.random((batch, most, 4), np.float32)
    scores = random.random((batch, most), np.float32)
    classes = random.integers(0, 80, (batch, most), np.int32)
    count = np.array([[0], [most], [37]], np.int32)[-batch:]
    device = emulator.Device()
    arrays = [device.array(a) for a in (count, boxes, scores, classes)]
    target = device.array(np.full((batch, most, 6), np.nan, np.float32))
    kernel = RowsKernel(
        device, most, lambda d, name, defines: d.compile(name, ["efficient_nms_rows"], defines)
    )
    kernel.launch(device.stream(seed), batch, [a.pointer for a in arrays], target.pointer)
    made = target.view((batch, most, 6), np.float32)
    np.testing.assert_array_equal(made, efficient_nms.rows(count, boxes, scores, classes))


@pytest.mark.parametrize("flavour", engines.FLAVOURS)
def test_such_an_engine_runs_as_an_end_to_end_detector(tmp_path, flavour):
    calls = FakeCuda()
    device = Device.open(0, calls)
    path = engines.write(tmp_path / "a.engine", engines.efficient_nms(DETECTIONS, 2), flavour)
    loaded = loader.load(path, engines.tensorrt(flavour, calls))
    head = end2end.create(HeadSpec(2, (0, 1), (8, 16, 32)))
    network = TensorRTNetwork(
        device, loaded, SIZE, expected=head.expected_shape(*SIZE), convert=engines.RowsOnHost
    )
    assert network.output_shape(1) == (1, 3, 6)
    stream = device.stream()
    picture = device.pinned(4 * 3 * engines.SIDE**2)
    rows = device.pinned(4 * 3 * 6)
    picture.array[...] = 0
    for _ in range(3):
        rows.array[...] = 255
        network.enqueue(stream, 1, picture.pointer, rows.pointer, None)
        stream.synchronize()
        output = rows.array.view(np.float32).reshape(3, 6)
        found = head.decode(output, *SIZE, 0.1)
        np.testing.assert_allclose(found.boxes, DETECTIONS[:2, :4])
        np.testing.assert_allclose(found.scores, DETECTIONS[:2, 4])
        assert found.classes.tolist() == [0, 1]
    assert calls.calls["cuGraphLaunch"] == 2


def test_its_rows_do_not_fit_another_head(tmp_path):
    calls = FakeCuda()
    path = engines.write(tmp_path / "a.engine", engines.efficient_nms(DETECTIONS, 2), "10.3")
    loaded = loader.load(path, engines.tensorrt("10.3", calls))
    with pytest.raises(ModelError, match="recipe's head expects"):
        TensorRTNetwork(
            Device.open(0, calls), loaded, SIZE, expected=(6, 84), convert=engines.RowsOnHost
        )
