"""The order of everything, on a driver that runs work as late as it may."""

import ctypes
import threading
from typing import AbstractSet, Any, Callable, Dict, List, Sequence

import numpy as np
import pytest
from support.fake_cuda import FakeCuda, allocations, host_waits

from edgecount.errors import DeviceLostError, EngineError
from edgecount.infer.cuda.driver import Device, Stream
from edgecount.infer.cuda.pictures import Found, Picture
from edgecount.infer.cuda.pipeline import PARTS, Pipeline, Streams
from edgecount.records import FrameInfo, Tracks

_LONG = 8


def picture(number: int) -> Picture:
    info = FrameInfo("door", number, 0.0, 0.1 * number, 4, 4)
    return Picture(info, 0, 0.1, "bgr", 12, "pinned", 0)


class Adding:
    """A slot whose network adds 1000 and whose tracker adds 1, with all the copies."""

    def __init__(self, number: int, device: Device, calls: FakeCuda) -> None:
        self.number = number
        self._calls = calls
        self._there, self._back = (device.pinned(8 * _LONG) for _ in range(2))
        self._input, self._middle, self._output = (device.allocate(8 * _LONG) for _ in range(3))

    def upload(self, stream: Stream, job: Sequence[Picture]) -> None:
        self._there.array.view(np.int64)[: len(job)] = [p.info.index for p in job]
        stream.upload(self._input.pointer, self._there.pointer, 8 * len(job))

    def prepare(self, stream: Stream, batch: int) -> None:
        self._kernel(stream, "prepare", batch, self._input.pointer, self._input.pointer, 0)

    def pictures(self, job: Sequence[Picture]) -> int:
        return len(job)

    def padded(self, batch: int) -> int:
        return batch

    def infer(self, stream: Stream, batch: int) -> None:
        self._kernel(stream, "infer", batch, self._input.pointer, self._middle.pointer, 1000)

    def post(self, stream: Stream, batch: int) -> None:
        self._kernel(stream, "post", batch, self._middle.pointer, self._output.pointer, 1)
        stream.download(self._back.pointer, self._output.pointer, 8 * batch)

    def results(self, job: Sequence[Picture]) -> List[Found]:
        numbers = self._back.array.view(np.int64)[: len(job)].copy()
        empty = Tracks.empty()
        return [Found(Tracks(numbers[i : i + 1], *_rest(empty))) for i in range(len(job))]

    def output(self, stream: Stream, batch: int) -> Any:
        stream.synchronize()
        return np.ctypeslib.as_array(
            (ctypes.c_int64 * batch).from_address(self._middle.pointer)
        ).copy()

    def rehearse(self, batch: int) -> Sequence[Picture]:
        return [picture(-1)] * batch

    def _kernel(
        self, stream: Stream, name: str, batch: int, source: int, target: int, plus: int
    ) -> None:
        def run() -> None:
            numbers = np.ctypeslib.as_array((ctypes.c_int64 * batch).from_address(source))
            result = numbers + plus
            ctypes.memmove(target, result.ctypes.data, 8 * batch)

        self._calls.enqueue(stream.handle, f"{name} {self.number}", run)


def _rest(empty: Tracks) -> Any:
    return empty.boxes, empty.scores, empty.classes, empty.confirmed, empty.ended


@pytest.fixture
def calls() -> FakeCuda:
    return FakeCuda()


@pytest.fixture
def make(calls: FakeCuda) -> Callable[..., Pipeline]:
    def made(**options: Any) -> Pipeline:
        device = Device.open(0, calls)
        options.setdefault("batches", (1, 2))
        pipeline = Pipeline(device, Streams(device), lambda n: Adding(n, device, calls), **options)
        calls.work_before = len(calls.work)  # type: ignore[attr-defined]
        calls.calls.clear()
        return pipeline

    return made


def numbers(pipeline: Pipeline) -> List[int]:
    finished = pipeline.collect(0.0)
    assert finished is not None
    return [int(f.tracks.ids[0]) for f in finished.results]


def running(calls: FakeCuda) -> List[Any]:
    return calls.work[calls.work_before :]  # type: ignore[attr-defined]


@pytest.mark.parametrize("graphs", [PARTS, {"post"}, frozenset()])
def test_results_come_back_in_order(
    make: Callable[..., Pipeline], graphs: AbstractSet[str]
) -> None:
    pipeline = make(graphs=graphs)
    assert pipeline.graphs == graphs
    found = []
    for n in range(20):
        pipeline.submit([picture(n)] if n % 2 else [picture(n), picture(100 + n)])
        if n >= 2:
            found.append(numbers(pipeline))
    found += [numbers(pipeline), numbers(pipeline)]
    assert found == [[n + 1001] if n % 2 else [n + 1001, n + 1101] for n in range(20)]
    assert pipeline.collect(0.0) is None


@pytest.mark.parametrize("graphs", [PARTS, frozenset()])
def test_the_host_waits_once_for_each_result_and_takes_no_memory(
    make: Callable[..., Pipeline], calls: FakeCuda, graphs: AbstractSet[str]
) -> None:
    pipeline = make(graphs=graphs)
    for n in range(50):
        pipeline.submit([picture(n)])
        if n >= 2:
            pipeline.collect(0.0)
    assert host_waits(calls.calls) == [("cuEventSynchronize", 48)]
    assert allocations(calls.calls) == 0
    assert calls.calls["cuEventCreate"] == calls.calls["cuGraphInstantiate"] == 0


def test_the_end_of_a_lone_batch_is_watched_for_where_it_is_near(
    make: Callable[..., Pipeline], calls: FakeCuda
) -> None:
    calls.tick_ms = 0.001
    pipeline = make()
    pipeline.submit([picture(0)])
    numbers(pipeline)  # tells how long post takes
    calls.calls.clear()
    pipeline.submit([picture(1)])
    assert numbers(pipeline) == [1002]
    assert host_waits(calls.calls) == [("cuEventSynchronize", 2)]
    assert calls.calls["cuEventQuery"] >= 1, "the host sleeps until the network is done"


@pytest.mark.parametrize(
    ("tick_ms", "others", "spin"), [(0.1, 0, False), (0.001, 1, False), (0.001, 0, True)]
)
def test_elsewhere_the_host_sleeps_or_spins_to_the_end(
    make: Callable[..., Pipeline], calls: FakeCuda, tick_ms: float, others: int, spin: bool
) -> None:
    calls.tick_ms = tick_ms
    pipeline = make(spin=spin)
    pipeline.submit([picture(0)])
    numbers(pipeline)
    calls.calls.clear()
    for n in range(1 + others):
        pipeline.submit([picture(n)])
    assert numbers(pipeline) == [1001]
    assert host_waits(calls.calls) == [("cuEventSynchronize", 1)]
    assert calls.calls["cuEventQuery"] == 0


def test_parts_of_a_batch_follow_each_other_and_batches_overlap(
    make: Callable[..., Pipeline], calls: FakeCuda
) -> None:
    pipeline = make()
    for n in range(3):
        pipeline.submit([picture(n)])
    parts: Dict[str, Any] = {w.what: w for w in running(calls)}
    for slot in range(3):
        prepare, infer, post = (parts[f"{p} {slot}"] for p in ("prepare", "infer", "post"))
        assert calls.before(prepare, infer)
        assert calls.before(infer, post)
        assert len({prepare.stream, infer.stream, post.stream}) == 3
    # Nothing holds the next batch's preparation back, nor the next inference for the post.
    assert not calls.before(parts["infer 0"], parts["prepare 1"])
    assert not calls.before(parts["post 0"], parts["infer 1"])
    assert not calls.before(parts["prepare 1"], parts["infer 0"])
    # Each camera's tracker must see its frames in order.
    assert calls.before(parts["post 0"], parts["post 1"])


@pytest.mark.parametrize("slots", [3, 4])
def test_a_slot_is_used_again_only_after_its_result(
    make: Callable[..., Pipeline], calls: FakeCuda, slots: int
) -> None:
    pipeline = make(slots=slots)
    assert pipeline.depth == slots
    for n in range(40):
        pipeline.submit([picture(n)])
        if n >= slots - 1:
            pipeline.collect(0.0)
    work = running(calls)
    for slot in range(slots):
        downloads = _downloads_after(work, f"post {slot}")
        uploads = _uploads_before(work, f"prepare {slot}")
        assert len(uploads) == 40 // slots + (slot < 40 % slots)
        for over, again in zip(downloads, uploads[1:]):
            assert calls.before(over, again)


def _downloads_after(work: List[Any], post: str) -> List[Any]:
    streams = {w.stream for w in work if w.what == post}
    mine = [w for w in work if w.stream in streams]
    return [mine[i + 1] for i, w in enumerate(mine) if w.what == post]


def _uploads_before(work: List[Any], prepare: str) -> List[Any]:
    streams = {w.stream for w in work if w.what == prepare}
    mine = [w for w in work if w.stream in streams]
    return [
        next(u for u in reversed(mine[:i]) if u.what == "upload")
        for i, w in enumerate(mine)
        if w.what == prepare
    ]


def test_times_are_those_of_batches_that_were_submitted_traced(
    make: Callable[..., Pipeline],
) -> None:
    pipeline = make()
    pipeline.submit([picture(0)])
    pipeline.traced = True
    pipeline.submit([picture(1)])
    pipeline.traced = False
    first, second = pipeline.collect(0.0), pipeline.collect(0.0)
    assert first is not None
    assert first.times is None
    assert second is not None
    assert second.times is not None
    assert list(second.times) == sorted(second.times)


def test_submit_waits_while_all_slots_are_in_flight(make: Callable[..., Pipeline]) -> None:
    pipeline = make()
    for n in range(3):
        pipeline.submit([picture(n)])
    fourth = threading.Thread(target=pipeline.submit, args=([picture(3)],), daemon=True)
    fourth.start()
    fourth.join(0.1)
    assert fourth.is_alive()
    assert numbers(pipeline) == [1001]
    fourth.join(5.0)
    assert not fourth.is_alive()
    assert [numbers(pipeline) for _ in range(3)] == [[1002], [1003], [1004]]


def test_stations_are_timed_on_the_device(make: Callable[..., Pipeline]) -> None:
    pipeline = make()
    pipeline.submit([picture(0)])
    plain = pipeline.collect(0.0)
    assert plain is not None
    assert plain.times is None
    assert min(plain.durations) > 0
    pipeline.traced = True
    pipeline.submit([picture(0)])
    finished = pipeline.collect(0.0)
    assert finished is not None
    assert finished.times is not None
    assert list(finished.times) == sorted(finished.times)
    assert finished.times.finished > finished.times.begun > 0


def test_without_capture_everything_is_enqueued(
    make: Callable[..., Pipeline], calls: FakeCuda
) -> None:
    calls.fail["cuGraphInstantiate"] = 900
    pipeline = make()
    assert not pipeline.graphs
    pipeline.submit([picture(1)])
    assert numbers(pipeline) == [1002]
    assert not calls._graphs


def test_a_graph_that_gives_other_numbers_is_not_used(
    calls: FakeCuda, monkeypatch: pytest.MonkeyPatch
) -> None:
    launch = FakeCuda.cuGraphLaunch

    def spoilt(self: FakeCuda, hGraphExec: int, hStream: int) -> Any:  # noqa: N803
        launch(self, hGraphExec, hStream)
        for slot in slots:
            memory = slot._middle.pointer
            self.enqueue(hStream, "spoil", lambda m=memory: ctypes.memset(m, 1, 8))  # type: ignore[misc]
        return (0,)

    monkeypatch.setattr(FakeCuda, "cuGraphLaunch", spoilt)
    device = Device.open(0, calls)
    slots = [Adding(n, device, calls) for n in range(3)]
    pipeline = Pipeline(device, Streams(device), lambda n: slots[n], batches=(1,))
    assert pipeline.graphs == {"post"}


def test_a_batch_that_cannot_be_enqueued_leaves_the_ring_whole(
    make: Callable[..., Pipeline], calls: FakeCuda
) -> None:
    pipeline = make(graphs=())
    for n in range(5):
        calls.fail["cuMemcpyHtoDAsync"] = 2
        with pytest.raises(EngineError, match="copying to the device"):
            pipeline.submit([picture(n)])
        calls.fail.clear()
        pipeline.submit([picture(n)])
        assert numbers(pipeline) == [n + 1001]


def test_a_batch_that_fails_is_gone_and_the_next_succeeds(
    make: Callable[..., Pipeline], calls: FakeCuda
) -> None:
    pipeline = make()
    for _ in range(4):
        pipeline.submit([picture(0)])
        calls.fail["cuEventSynchronize"] = 2
        with pytest.raises(EngineError, match="waiting for the device"):
            pipeline.collect(0.0)
        calls.fail.clear()
    pipeline.submit([picture(1)])
    assert numbers(pipeline) == [1002]


def test_a_lost_device_is_told_apart(make: Callable[..., Pipeline], calls: FakeCuda) -> None:
    pipeline = make()
    pipeline.submit([picture(0)])
    calls.fail["cuEventSynchronize"] = 700
    with pytest.raises(DeviceLostError):
        pipeline.collect(0.0)
    calls.fail["cuGraphLaunch"] = 719
    with pytest.raises(DeviceLostError):
        pipeline.submit([picture(1)])


def test_a_closed_pipeline_refuses_a_submit_that_waits(make: Callable[..., Pipeline]) -> None:
    pipeline = make()
    for n in range(3):
        pipeline.submit([picture(n)])
    failures = []

    def submit() -> None:
        try:
            pipeline.submit([picture(3)])
        except EngineError as error:
            failures.append(str(error))

    waiting = threading.Thread(target=submit, daemon=True)
    waiting.start()
    pipeline.close()
    pipeline.close()
    waiting.join(5.0)
    assert failures == ["the CUDA pipeline is closed"]
