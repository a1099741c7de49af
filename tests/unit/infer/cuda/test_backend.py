"""The backend with its real kernels, emulated, against the CPU backend."""

from dataclasses import replace
from typing import Any, Callable, Dict, List

import cv2
import numpy as np
import pytest
from support.cuda_emulator.emulator import needs_compiler
from support.emulated_cuda import EmulatedCuda, HostNetwork
from support.fake_cuda import allocations, host_waits
from support.onnx_models import picture_with_spots, spot_model, write_recipe

from edgecount.config import Settings
from edgecount.errors import DeviceLostError, EngineError
from edgecount.infer.base import Backend
from edgecount.infer.cuda.backend import CudaBackend, CudaOptions
from edgecount.records import DeviceFrame, Frame, FrameInfo, Surface, Tracked
from edgecount.runtime import backends
from edgecount.runtime.plan import Plan, prepare

SIDE = 128
MASK = [[0.0, 0.0], [0.3, 0.0], [0.3, 0.4], [0.0, 0.4]]


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    needs_compiler()
    path = spot_model(
        tmp_path_factory.mktemp("model") / "spots.onnx", "ltrb", width=SIDE, height=SIDE
    )
    write_recipe(path, "ltrb", width=SIDE, height=SIDE)
    cameras = [
        {"name": name, "source": f"{name}.avi", "ignore": [MASK] if name == "gate" else []}
        for name in ("door", "gate", "hall")
    ]
    settings = {"model": {"path": str(path), "backend": "cpu", "threads": 1}, "cameras": cameras}
    return prepare(Settings.model_validate(settings), lambda *_: None)


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> EmulatedCuda:
    return EmulatedCuda(monkeypatch)


@pytest.fixture
def make(plan: Plan, cuda: EmulatedCuda) -> Callable[..., CudaBackend]:
    def made(**options: Any) -> CudaBackend:
        return build(plan, cuda, **options)

    return made


def build(
    plan: Plan,
    cuda: EmulatedCuda,
    timer: Any = lambda *_: None,
    detections: bool = False,
    **options: Any,
) -> CudaBackend:
    spec = replace(backends._spec(plan, timer), detections=detections)
    network = HostNetwork(cuda.calls, plan.model.detector.network, spec.size)
    return CudaBackend(
        spec,
        lambda *_: network,
        CudaOptions(**options),
        open_device=cuda.open,
        load=cuda.load,
    )


def scene(camera: str, index: int, width: int = 192, height: int = 160) -> Frame:
    """Two heads that walk, at other places for each camera."""
    start = {"door": 30, "gate": 45, "hall": 60}[camera]
    centers = [(start + 2 * index, 0.3 * height), (width - start - 2 * index, 0.75 * height)]
    image = picture_with_spots(centers, width, height, spot=round(24 * width / SIDE))
    return Frame(FrameInfo(camera, index, 0.0, 0.04 * index, width, height), image)


def batches() -> List[List[Frame]]:
    """Cameras come and go; one sends pictures of another size."""
    frames = []
    for i in range(9):
        names = ("door", "gate", "hall")[: 1 + i % 3]
        frames.append([scene(n, i, *((128, 96) if n == "hall" else (192, 160))) for n in names])
    return frames


def run(backend: Backend, frames: List[List[Frame]]) -> List[Tracked]:
    results = []
    for batch in frames:
        backend.submit(batch)
        found = backend.collect(30.0)
        assert found is not None
        results += found
    return results


def summary(results: List[Tracked]) -> List[Any]:
    return [
        (r.info.camera, r.info.index, r.tracks.ids.tolist(), r.tracks.confirmed.tolist())
        for r in results
    ]


@pytest.mark.parametrize(("integrated", "on_device"), [(False, True), (True, True), (False, False)])
def test_ids_and_boxes_are_the_cpu_backend_s(
    plan: Plan, monkeypatch: pytest.MonkeyPatch, integrated: bool, on_device: bool
) -> None:
    expected = run(backends.choose(plan, lambda *_: None).backend, batches())
    cuda = EmulatedCuda(monkeypatch, integrated=integrated)
    backend = build(plan, cuda, device_tracker=on_device)
    assert (backend._tracker is not None) == on_device
    found = run(backend, batches())
    assert sum(len(r.tracks) for r in expected) > 15
    assert summary(found) == summary(expected)
    for one, other in zip(found, expected):
        np.testing.assert_allclose(one.tracks.boxes, other.tracks.boxes, atol=0.05)


def test_the_network_runs_on_the_next_batch_size(
    make: Callable[..., CudaBackend], cuda: Any
) -> None:
    backend = make()
    assert backend.sizes == (1, 2, 3)
    assert backend.max_batch == 3
    network: Any = backend.network
    network.batches.clear()
    run(backend, batches()[:3])
    assert network.batches == [1, 2, 3]


def test_frames_are_processed_without_allocations_or_other_waits(
    make: Callable[..., CudaBackend], cuda: EmulatedCuda
) -> None:
    backend = make()
    cuda.calls.calls.clear()
    run(backend, batches())
    assert allocations(cuda.calls.calls) == 0
    assert host_waits(cuda.calls.calls) == [("cuEventSynchronize", 9)]


def test_everything_taken_is_in_the_budget(make: Callable[..., CudaBackend]) -> None:
    backend = make()
    held = backend.memory()
    assert held["slots"] > 3 * 3 * 1920 * 1080 * 3
    assert held["kernels"] > 0
    with pytest.raises(EngineError, match="while frames are processed"):
        backend.device.allocate(1)


def test_a_device_that_is_too_small_is_refused_with_numbers(plan: Plan, cuda: EmulatedCuda) -> None:
    with pytest.raises(EngineError, match=r"slots needs .* MiB, but only .* left \(5% of"):
        build(plan, cuda, memory_share=0.05)
    assert not cuda.calls.memory, "what was taken is freed"


def test_larger_pictures_find_room_once(
    make: Callable[..., CudaBackend], cuda: EmulatedCuda
) -> None:
    backend = make()
    large = [
        [Frame(FrameInfo(n, i, 0.0, 0.04 * i, 4000, 2200), np.full((2200, 4000, 3), 16, np.uint8))]
        for i in range(6)
        for n in ("door",)
    ]
    cuda.calls.calls.clear()
    run(backend, large)
    assert allocations(cuda.calls.calls) == 3 * 2, "each slot once, pinned and on the device"


def test_results_carry_detections_where_they_are_asked_for(
    make: Callable[..., CudaBackend],
) -> None:
    assert len(run(make(), [[scene("door", 0)]])[0].detections) == 0, "they stay on the device"
    backend = make(detections=True)
    assert backend._tracker is not None
    found = run(backend, [[scene("door", 0)]])
    assert len(found[0].detections) == 2
    assert found[0].detections.scores.min() > 0.4


def test_a_frame_on_the_device_is_not_copied(
    plan: Plan, make: Callable[..., CudaBackend], cuda: EmulatedCuda
) -> None:
    backend = make()
    first = scene("door", 0)
    yuv = cv2.cvtColor(first.image, cv2.COLOR_BGR2YUV_I420)
    height, width = first.image.shape[:2]
    memory = backend_memory(yuv, width, height)
    surface = Surface(0, memory.ctypes.data, memory[height:].ctypes.data, width, memory)

    def refuse(*_: Any) -> Any:
        raise AssertionError("a picture came to the host")

    device_frame = DeviceFrame(first.info, surface, refuse)
    before = len(cuda.calls.find("upload"))
    found = run(backend, [[device_frame]])
    assert len(cuda.calls.find("upload")) == before + 1, "only what is known of the picture"
    expected = run(make(), [[first]])
    assert summary(found) == summary(expected)
    np.testing.assert_allclose(found[0].tracks.boxes, expected[0].tracks.boxes, atol=1.5)


def backend_memory(yuv: Any, width: int, height: int) -> Any:
    memory = np.empty((height * 3 // 2 + 1, width), np.uint8)
    quarter = width * height // 4
    planes = yuv.reshape(-1)[width * height :]
    memory[:height] = yuv[:height]
    chroma = memory[height : height * 3 // 2].reshape(-1)
    chroma[0::2], chroma[1::2] = planes[:quarter], planes[quarter:]
    return memory


def test_stages_are_timed(plan: Plan, cuda: EmulatedCuda) -> None:
    told: Dict[str, List[float]] = {}
    backend = build(plan, cuda, lambda stage, s: told.setdefault(stage, []).append(s))
    run(backend, batches()[:2])
    assert set(told) == {"preprocess", "infer", "post"}
    assert all(len(t) == 2 and min(t) > 0 for t in told.values())


@pytest.mark.parametrize("on_device", [True, False])
def test_a_reset_camera_starts_anew_and_others_go_on(
    make: Callable[..., CudaBackend], on_device: bool
) -> None:
    backend = make(device_tracker=on_device)
    run(backend, [[scene("door", i), scene("gate", i)] for i in range(3)])
    backend.reset("door")
    door, gate = run(backend, [[scene("door", 3), scene("gate", 3)]])
    assert door.tracks.ids.tolist() == [3, 4]
    assert not door.tracks.confirmed.any()
    assert gate.tracks.ids.max() < 3


def test_a_lost_device_s_context_is_destroyed(
    make: Callable[..., CudaBackend], cuda: EmulatedCuda
) -> None:
    backend = make()
    backend.submit([scene("door", 0)])
    cuda.calls.fail["cuEventSynchronize"] = 700
    with pytest.raises(DeviceLostError):
        backend.collect(1.0)
    network: Any = backend.network
    backend.close()
    backend.close()
    assert network.closed
    assert cuda.calls.calls["cuDevicePrimaryCtxReset"] == 1


def test_an_intact_device_s_context_is_left_to_others(
    make: Callable[..., CudaBackend], cuda: EmulatedCuda
) -> None:
    backend = make()
    backend.close()
    backend.close()
    assert cuda.calls.calls["cuDevicePrimaryCtxReset"] == 0
    assert cuda.calls.calls["cuDevicePrimaryCtxRelease"] == 1
    assert not cuda.calls.memory


TILES: Dict[str, Any] = {
    "door": {"columns": 2, "rows": 2, "overlap": 0.3},
    "hall": {"columns": 2, "rows": 1, "overlap": 0.3, "whole": True},
}


@pytest.fixture(scope="module")
def tiled(plan: Plan) -> Plan:
    settings = plan.settings.model_dump(mode="json", by_alias=True, exclude_unset=True)
    for camera in settings["cameras"]:
        if camera["name"] in TILES:
            camera["tiles"] = TILES[camera["name"]]
    return prepare(Settings.model_validate(settings), lambda *_: None)


class TestTiles:
    """Frames of two cameras in tiles, beside those of one that is not cut."""

    @staticmethod
    def frames() -> List[List[Frame]]:
        """One, two and three cameras, so that parts of frames change places in the batch."""
        together = [("door",), ("gate", "hall"), ("door", "gate", "hall"), ("hall", "door")]
        return [
            [scene(n, i, *((128, 96) if n == "hall" else (192, 160))) for n in together[i % 4]]
            for i in range(9)
        ]

    @pytest.mark.parametrize(
        ("integrated", "on_device"), [(False, True), (True, True), (False, False)]
    )
    def test_ids_and_boxes_are_the_cpu_backend_s(
        self, tiled: Plan, monkeypatch: pytest.MonkeyPatch, integrated: bool, on_device: bool
    ) -> None:
        cpu = backends.choose(tiled, lambda *_: None).backend
        expected = run(cpu, self.frames())
        cpu.close()
        cuda = EmulatedCuda(monkeypatch, integrated=integrated)
        backend = build(tiled, cuda, device_tracker=on_device)
        found = run(backend, self.frames())
        assert sum(len(r.tracks) for r in expected) > 15
        assert summary(found) == summary(expected)
        for one, other in zip(found, expected):
            np.testing.assert_allclose(one.tracks.boxes, other.tracks.boxes, atol=0.5)

    def test_a_batch_is_as_large_as_all_its_tiles(self, tiled: Plan, cuda: EmulatedCuda) -> None:
        backend = build(tiled, cuda)
        network: Any = backend.network
        assert backend.sizes == (1, 2, 4, 8)
        assert backend.max_batch == 3  # 4 + 1 + 3 pictures
        network.batches.clear()
        run(backend, self.frames()[:3])
        assert network.batches == [4, 4, 8]

    def test_fewer_frames_share_a_batch_where_it_is_small(
        self, tiled: Plan, cuda: EmulatedCuda
    ) -> None:
        assert build(tiled, cuda, max_batch=7).max_batch == 2
        assert build(tiled, cuda, max_batch=2).max_batch == 1

    def test_a_network_that_takes_less_than_a_frame_is_refused(
        self, tiled: Plan, cuda: EmulatedCuda
    ) -> None:
        with pytest.raises(EngineError, match=r"'door' is 4 pictures .* takes 1 at once"):
            build(tiled, cuda, sizes=(1,))

    def test_a_frame_is_uploaded_once_and_nothing_is_allocated(
        self, tiled: Plan, cuda: EmulatedCuda
    ) -> None:
        backend = build(tiled, cuda)
        before = len(cuda.calls.find("upload"))
        cuda.calls.calls.clear()
        run(backend, self.frames()[:4])
        assert allocations(cuda.calls.calls) == 0
        uploads = len(cuda.calls.find("upload")) - before
        assert uploads == 8 + 4, "each frame, and notes for each batch"

    def test_a_frame_on_the_device_is_cut_where_it_is(
        self, tiled: Plan, cuda: EmulatedCuda
    ) -> None:
        first = scene("door", 0)
        yuv = cv2.cvtColor(first.image, cv2.COLOR_BGR2YUV_I420)
        height, width = first.image.shape[:2]
        memory = backend_memory(yuv, width, height)
        surface = Surface(0, memory.ctypes.data, memory[height:].ctypes.data, width, memory)
        device_frame = DeviceFrame(first.info, surface, lambda *_: first.image)
        found = run(build(tiled, cuda), [[device_frame]])
        expected = run(build(tiled, cuda), [[first]])
        assert len(found[0].tracks) > 1
        assert summary(found) == summary(expected)
        np.testing.assert_allclose(found[0].tracks.boxes, expected[0].tracks.boxes, atol=1.5)
