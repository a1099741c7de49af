import numpy as np
import pytest
from support import engines
from support.fake_cuda import FakeCuda, allocations

from edgecount.errors import DeviceLostError, EngineError, ModelError
from edgecount.infer.cuda.driver import Device
from edgecount.infer.tensorrt import loader
from edgecount.infer.tensorrt.executor import TensorRTNetwork

SIZE = (engines.SIDE, engines.SIDE)
CELLS = 16


class Rig:
    """An engine in a fake TensorRT on a fake device, and buffers for it."""

    def __init__(self, tmp_path, flavour, model, *, network=None, **plan):
        self.calls = FakeCuda()
        self.device = Device.open(0, self.calls)
        self.trt = engines.tensorrt(flavour, self.calls)
        self.model = model
        path = engines.write(tmp_path / "net.engine", model, flavour, **plan)
        self.loaded = loader.load(path, self.trt)
        self.network = TensorRTNetwork(self.device, self.loaded, SIZE, **(network or {}))
        self.stream = self.device.stream()

    def buffers(self, batch, seed=0):
        """Addresses of an input full of numbers and of an output, and both as arrays."""
        shape = (batch, 3, *SIZE[::-1])
        given = self._array(shape, self.network.input_dtype)
        given[1][...] = np.random.default_rng(seed).random(shape)
        made = self._array(self.network.output_shape(batch), self.network.output_dtype)
        return given, made

    def run(self, given, made, consumed=None, stream=None):
        batch = given[1].shape[0]
        made[1][...] = np.nan
        self.network.enqueue(stream or self.stream, batch, given[0], made[0], consumed)
        (stream or self.stream).synchronize()
        np.testing.assert_array_equal(made[1], engines.answer(self.model, given[1]))

    @property
    def graphs(self):
        """Graphs launched so far."""
        return self.calls.calls["cuGraphLaunch"]

    def names(self):
        return [call[0] for call in self.trt.module.calls]

    def _array(self, shape, dtype):
        buffer = self.device.pinned(int(np.prod(shape)) * np.dtype(dtype).itemsize)
        return buffer.pointer, buffer.array.view(dtype).reshape(shape)


@pytest.mark.parametrize("flavour", engines.FLAVOURS)
@pytest.mark.parametrize("half", [False, True], ids=["fp32", "fp16"])
def test_the_engine_answers_what_onnx_runtime_answers(tmp_path, flavour, half):
    rig = Rig(tmp_path, flavour, engines.network(half=half))
    assert rig.network.output_shape(1) == (1, CELLS, engines.COLUMNS)
    assert rig.network.precision == ("fp16" if half else "fp32")
    assert rig.network.input_dtype == (np.float16 if half else np.float32)
    given, made = rig.buffers(1)
    for seed in range(4):  # plain, plain and captured, replayed, replayed
        given[1][...] = np.random.default_rng(seed).random(given[1].shape)
        rig.run(given, made)
    assert rig.graphs == 3


@pytest.mark.parametrize("flavour", engines.FLAVOURS)
def test_every_batch_of_the_profile_runs(tmp_path, flavour):
    model = engines.network(dynamic=True)
    rig = Rig(tmp_path, flavour, model, profiles=[engines.profile(3)])
    assert rig.network.max_batch == 3
    for batch in (1, 2, 3, 2, 1):
        given, made = rig.buffers(batch, seed=batch)
        for _ in range(3):
            rig.run(given, made)
    with pytest.raises(EngineError, match=r"takes 1 to 3 picture\(s\), not 4"):
        rig.network.output_shape(4)


def test_calls_of_an_indexed_engine(tmp_path):
    rig = Rig(tmp_path, "8.2", engines.network())
    given, made = rig.buffers(1)
    rig.run(given, made)
    addresses = (given[0], made[0])
    assert rig.trt.module.calls == [
        ("init_libnvinfer_plugins",),
        ("create_execution_context",),
        ("set_binding_shape", 0, (1, 3, 32, 32)),  # to ask for the outputs' shapes
        ("set_binding_shape", 0, (1, 3, 32, 32)),
        ("execute_async_v2", addresses, rig.stream.handle),
    ]


@pytest.mark.parametrize("flavour", ["8.6", "10.3", "11.0", "rtx"])
def test_calls_of_a_named_engine(tmp_path, flavour):
    rig = Rig(tmp_path, flavour, engines.network())
    given, made = rig.buffers(1)
    rig.run(given, made)
    calls = [c for c in rig.trt.module.calls if c[0] != "set_device_memory"]
    shape = ("set_input_shape", "images", (1, 3, 32, 32))
    assert calls[-5:] == [
        shape,
        shape,
        ("set_tensor_address", "images", given[0]),
        ("set_tensor_address", "output", made[0]),
        ("execute_async_v3", rig.stream.handle),
    ]


def test_only_addresses_that_changed_are_set_again(tmp_path):
    rig = Rig(tmp_path, "10.3", engines.network(), network={"graphs": False, "contexts": 1})
    given, made = rig.buffers(1)
    other = rig.buffers(1, seed=5)[1]
    rig.run(given, made)
    before = len(rig.trt.module.calls)
    rig.run(given, made)
    rig.run(given, other)
    assert rig.trt.module.calls[before:] == [
        ("execute_async_v3", rig.stream.handle),
        ("set_input_shape", "images", (1, 3, 32, 32)),
        ("set_tensor_address", "output", other[0]),
        ("execute_async_v3", rig.stream.handle),
    ]


def test_contexts_of_one_stream_share_the_memory_they_work_in(tmp_path):
    rig = Rig(tmp_path, "10.3", engines.network(), memory=1 << 20)
    for seed in range(3):
        given, made = rig.buffers(1, seed)
        rig.run(given, made)
    calls = rig.trt.module.calls
    assert [c for c in calls if c[0] == "create_execution_context"] == [
        ("create_execution_context", "USER_MANAGED")
    ] * 3
    assert len({c[1] for c in calls if c[0] == "set_device_memory"}) == 1
    other = rig.device.stream()
    given, made = rig.buffers(1)
    rig.run(given, made, stream=other)
    assert len({c[1] for c in calls if c[0] == "set_device_memory"}) == 2


@pytest.mark.parametrize("flavour", engines.FLAVOURS)
def test_streams_of_several_cameras_have_contexts_of_their_own(tmp_path, flavour):
    rig = Rig(tmp_path, flavour, engines.network())
    streams = [rig.device.stream() for _ in range(3)]
    buffers = [rig.buffers(1, seed) for seed in range(3)]
    for _ in range(3):
        for stream, (given, made) in zip(streams, buffers):
            rig.run(given, made, stream=stream)
    assert rig.names().count("create_execution_context") == 3


@pytest.mark.parametrize("flavour", ["8.2", "8.6"])
def test_before_tensorrt_10_each_context_of_an_open_engine_has_its_own_profile(tmp_path, flavour):
    model = engines.network(dynamic=True)
    rig = Rig(tmp_path, flavour, model, profiles=[engines.profile(2)] * 2)
    buffers = [rig.buffers(1, 1), rig.buffers(2, 2), rig.buffers(2, 3)]
    for _ in range(3):
        for given, made in buffers:
            rig.run(given, made)
    assert rig.names().count("create_execution_context") == 2
    assert ("set_optimization_profile_async", 1) in rig.trt.module.calls
    assert rig.network.recordable(2)
    assert not rig.network.recordable(3)


@pytest.mark.parametrize("flavour", ["8.2", "8.6"])
def test_more_streams_than_profiles_are_refused(tmp_path, flavour):
    model = engines.network(dynamic=True)
    rig = Rig(tmp_path, flavour, model, profiles=[engines.profile(1)])
    given, made = rig.buffers(1)
    rig.run(given, made)
    with pytest.raises(EngineError, match="cannot run on more than 1 stream"):
        rig.run(given, made, stream=rig.device.stream())


def enqueue(rig, given, made):
    rig.network.enqueue(rig.stream, 1, given[0], made[0], None)


def waits(rig):
    return rig.calls.calls["cuStreamSynchronize"]


def test_a_graph_is_captured_again_when_buffers_change_and_contexts_are_few(tmp_path):
    rig = Rig(tmp_path, "10.3", engines.network(), network={"contexts": 1})
    first, second = rig.buffers(1, 1), rig.buffers(1, 2)
    for _ in range(3):
        enqueue(rig, *first)
    assert (rig.graphs, waits(rig)) == (2, 0)
    enqueue(rig, *second)  # a context that a graph belongs to is only changed when it is at rest
    assert (rig.graphs, waits(rig)) == (2, 1)
    enqueue(rig, *second)
    assert rig.graphs == 3
    for given, made in (first, second):
        rig.run(given, made)


def test_alternating_buffers_with_one_context_never_wait(tmp_path):
    rig = Rig(tmp_path, "10.3", engines.network(), network={"contexts": 1})
    buffers = rig.buffers(1, 1), rig.buffers(1, 2)
    for _ in range(3):
        for given, made in buffers:
            enqueue(rig, given, made)
    assert (rig.graphs, waits(rig)) == (0, 0)


def test_where_a_capture_fails_runs_are_enqueued_one_by_one(tmp_path):
    rig = Rig(tmp_path, "10.3", engines.network())
    rig.calls.fail["cuGraphInstantiate"] = 900
    given, made = rig.buffers(1)
    for _ in range(4):
        rig.run(given, made)
    assert rig.graphs == 0
    assert rig.names().count("execute_async_v3") == 5  # one more, in the capture that failed


def test_rtx_is_asked_before_a_capture(tmp_path):
    rig = Rig(tmp_path, "rtx", engines.network(), not_capturable=True)
    given, made = rig.buffers(1)
    for _ in range(3):
        rig.run(given, made)
    assert rig.graphs == 0


@pytest.mark.parametrize("flavour", engines.FLAVOURS)
def test_the_consumed_event_is_tensorrts_in_plain_runs_and_follows_a_graph(tmp_path, flavour):
    rig = Rig(tmp_path, flavour, engines.network())
    event = rig.device.event()
    given, made = rig.buffers(1)
    rig.run(given, made, consumed=event)
    assert rig.trt.module.consumed == [event.handle]
    assert rig.calls.find("record") == []
    for _ in range(2):
        rig.run(given, made, consumed=event)
    assert rig.trt.module.consumed == [event.handle]
    assert [w.what for w in rig.calls.work[1:]] == ["tensorrt", "record"] * 2


@pytest.mark.parametrize("flavour", engines.FLAVOURS)
def test_a_run_that_fails_says_tensorrts_reason(tmp_path, flavour):
    rig = Rig(tmp_path, flavour, engines.network(), fail="Cask (Cask convolution execution)")
    given, made = rig.buffers(1)
    with pytest.raises(EngineError, match=r"net\.engine: a run failed: Cask \(Cask"):
        rig.run(given, made)


def test_a_lost_device_is_told_from_a_failed_run(tmp_path):
    rig = Rig(tmp_path, "10.3", engines.network(), fail="Cuda Runtime (an illegal access)")
    rig.calls.fail["cuStreamSynchronize"] = 700
    given, made = rig.buffers(1)
    with pytest.raises(DeviceLostError):
        rig.run(given, made)


def test_the_output_that_the_head_decodes_is_taken_of_several(tmp_path):
    network = {"expected": (CELLS, engines.COLUMNS)}
    rig = Rig(tmp_path, "10.3", engines.network(extra=True), network=network)
    given, made = rig.buffers(1)
    assert made[1].shape == (1, CELLS, engines.COLUMNS)
    for _ in range(3):
        rig.run(given, made)


def test_an_output_that_the_head_does_not_decode_is_refused(tmp_path):
    with pytest.raises(ModelError, match=r"output \[1, 16, 6\], but its recipe's head expects"):
        Rig(tmp_path, "10.3", engines.network(), network={"expected": (3549, 6)})


@pytest.mark.parametrize("flavour", engines.FLAVOURS)
def test_an_engine_for_another_size_is_refused(tmp_path, flavour):
    path = engines.write(tmp_path / "a.engine", engines.network(), flavour)
    loaded = loader.load(path, engines.tensorrt(flavour))
    device = Device.open(0, FakeCuda())
    with pytest.raises(ModelError, match=r"takes inputs of \[1, 3, 32, 32\], but \[1, 3, 48, 64\]"):
        TensorRTNetwork(device, loaded, (64, 48))


def test_an_engine_for_full_batches_only_is_refused(tmp_path):
    model = engines.network(dynamic=True)
    with pytest.raises(ModelError, match=r"--min 1x3x"):
        Rig(tmp_path, "10.3", model, profiles=[engines.profile(4, least=4)])


def test_closing_frees_everything_and_may_be_done_twice(tmp_path):
    rig = Rig(tmp_path, "10.3", engines.network(extra=True))
    given, made = rig.buffers(1)
    network = TensorRTNetwork(rig.device, rig.loaded, SIZE, expected=(CELLS, 6))
    before = len(rig.calls.memory)
    for _ in range(3):
        network.enqueue(rig.stream, 1, given[0], made[0], None)
    rig.stream.synchronize()
    assert len(rig.calls.memory) > before
    network.close()
    network.close()
    assert len(rig.calls.memory) == before
    assert rig.calls.calls["cuGraphExecDestroy"] == 1
    with pytest.raises(EngineError, match="is closed"):
        network.enqueue(rig.stream, 1, given[0], made[0], None)


def test_nothing_is_allocated_once_each_pair_of_buffers_has_run(tmp_path):
    rig = Rig(tmp_path, "10.3", engines.network(extra=True), network={"graphs": False})
    given, made = rig.buffers(1)
    made[1][...] = 0
    enqueue(rig, given, made)
    before = allocations(rig.calls.calls)
    for _ in range(5):
        enqueue(rig, given, made)
    assert allocations(rig.calls.calls) == before
