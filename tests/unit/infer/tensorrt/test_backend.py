"""TensorRT in the service's place: fake TensorRT, real pipeline, emulated kernels."""

import hashlib
import threading
import time
from dataclasses import replace
from typing import Any, Callable, List, Optional, Sequence

import numpy as np
import onnx
import pytest
from support import engines, fake_tensorrt
from support.cuda_emulator.emulator import needs_compiler
from support.emulated_cuda import EmulatedCuda
from support.onnx_models import picture_with_spots, spot_model, write_recipe

from edgecount.config import Settings, TileSettings
from edgecount.errors import EngineError, ModelError
from edgecount.infer.base import Backend, BackendSpec
from edgecount.infer.cuda.backend import CudaBackend, CudaOptions
from edgecount.infer.switching import SwitchingBackend
from edgecount.infer.tensorrt.backend import Surroundings, create, key_of
from edgecount.infer.tensorrt.cache import EngineCache
from edgecount.infer.tensorrt.choice import wanted_key
from edgecount.infer.tensorrt.device import DeviceFacts
from edgecount.infer.tensorrt.keeper import Outcome
from edgecount.infer.tensorrt.manifest import BuildKey, Manifest
from edgecount.records import Frame, FrameInfo, Tracked
from edgecount.runtime import backends
from edgecount.runtime.plan import Plan, prepare

SIDE = 96
L4 = DeviceFacts("L4", (8, 9), "580", "13.0", False)


@pytest.fixture(scope="module")
def plan(tmp_path_factory: pytest.TempPathFactory) -> Plan:
    needs_compiler()
    return plan_for(tmp_path_factory.mktemp("model") / "spots.onnx", cameras=("door",))


def plan_for(path: Any, cameras: Sequence[str], dynamic: bool = False) -> Plan:
    spot_model(path, "ltrb", width=SIDE, height=SIDE, dynamic=dynamic)
    write_recipe(path, "ltrb", width=SIDE, height=SIDE)
    settings = {
        "model": {"path": str(path), "backend": "cpu", "threads": 1},
        "cameras": [{"name": name, "source": f"{name}.avi"} for name in cameras],
    }
    return prepare(Settings.model_validate(settings), lambda *_: None)


class Workshop:
    """A machine with a GPU, a cache, and a build that takes until ``finish``."""

    def __init__(self, monkeypatch: Any, folder: Any, plan: Plan, flavour: str = "10.3") -> None:
        self.cuda = EmulatedCuda(monkeypatch)
        self.cache = EngineCache(folder)
        self.plan = plan
        self.flavour = flavour
        self.trt = engines.tensorrt(flavour, self.cuda.calls)
        self.commands: List[Sequence[str]] = []
        self.finished = threading.Event()
        self.stopped = False
        self.device_tracker = False  # its kernel is slow to emulate
        self.around = Surroundings(
            lambda: self.trt, lambda: L4, lambda: self.cache, self.start, self.pipeline
        )
        self.spec = backends._spec(plan, lambda *_: None)

    def create(self, **changes: Any) -> Backend:
        return create(replace(self.spec, **changes), self.around)

    def publish(self, fail: Optional[str] = None, key: Optional[BuildKey] = None) -> None:
        """What a build leaves behind."""
        extra = {"fail": fail} if fail else {}
        data = fake_tensorrt.plan(onnx.load(str(self.plan.model.path)), self.flavour, **extra)
        manifest = Manifest(
            key=key or key_of(self.spec, self.trt, L4),
            engine_sha256=hashlib.sha256(data).hexdigest(),
            engine_bytes=len(data),
            built_at="2026-11-24T10:00:00+00:00",
            build_seconds=4.0,
            workspace_used=1,
            layers_of="engine",
            edgecount="0",
        )
        self.cache.publish(manifest, data)

    def start(self, command: Sequence[str]) -> "Workshop":
        self.commands.append(command)
        return self

    def poll(self) -> Optional[Outcome]:
        return Outcome() if self.finished.is_set() else None

    def stop(self) -> None:
        self.stopped = True

    def pipeline(self, spec: BackendSpec, make_network: Any, **more: Any) -> CudaBackend:
        return CudaBackend(
            spec,
            make_network,
            CudaOptions(device_tracker=self.device_tracker),
            open_device=self.cuda.open,
            load=self.cuda.load,
            **more,
        )


@pytest.fixture
def workshop(monkeypatch: Any, tmp_path: Any, plan: Plan) -> Callable[..., Workshop]:
    return lambda flavour="10.3": Workshop(monkeypatch, tmp_path / "cache", plan, flavour)


def frames(count: int, start: int = 0) -> List[Frame]:
    """Two heads that walk."""
    made = []
    for index in range(start, start + count):
        centers = [(40 + 2 * index, 40.0), (150 - 2 * index, 110.0)]
        image = picture_with_spots(centers, 192, 160, spot=48)
        info = FrameInfo("door", index, 0.0, 0.04 * index, 192, 160)
        made.append(Frame(info, image))
    return made


def run(backend: Backend, given: Sequence[Frame]) -> List[Tracked]:
    results = []
    for frame in given:
        backend.submit([frame])
        found = backend.collect(30.0)
        assert found is not None
        results += found
    return results


def wait(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + 20.0
    while not condition():
        assert time.monotonic() < deadline, "it does not happen"
        time.sleep(0.01)


@pytest.mark.parametrize("flavour", engines.FLAVOURS)
def test_a_cached_engine_counts_as_the_cpu_does(workshop, plan, flavour):
    shop = workshop(flavour)
    shop.publish()
    backend = shop.create()
    assert not isinstance(backend, SwitchingBackend)
    assert (backend.name.split()[0], backend.precision) == (
        "tensorrt-rtx" if flavour == "rtx" else "tensorrt",
        "fp16",
    )
    assert shop.commands == []
    expected = run(backends._cpu(plan, shop.spec), frames(8))
    found = run(backend, frames(8))
    assert sum(len(r.tracks) for r in expected) >= 14
    assert sum(len(r.tracks) for r in found) >= 14
    for one, other in zip(found, expected):
        assert one.tracks.ids.tolist() == other.tracks.ids.tolist()
        np.testing.assert_allclose(one.tracks.boxes, other.tracks.boxes, atol=0.05)
    backend.close()


def test_results_carry_detections_where_they_are_asked_for_whoever_counts(workshop):
    shop = workshop()
    shop.device_tracker = True
    backend = shop.create(detections=True)
    interim = run(backend, frames(1))
    shop.publish()
    shop.finished.set()
    wait(lambda: backend._offered is not None)
    taken_over = run(backend, frames(1, start=1))
    assert backend._engine.backend._tracker is not None
    assert [len(r.detections) for r in interim + taken_over] == [2, 2]
    backend.close()
    cached = shop.create(detections=True)
    assert [len(r.detections) for r in run(cached, frames(2))] == [2, 2]
    cached.close()
    unasked = shop.create()
    assert [len(r.detections) for r in run(unasked, frames(1))] == [0]
    unasked.close()


def test_it_is_ready_within_two_seconds_of_a_cached_engine(workshop):
    shop = workshop()
    shop.publish()
    shop.create().close()  # the emulator compiles its kernels once
    begun = time.perf_counter()
    backend = shop.create()
    assert time.perf_counter() - begun < 2.0
    backend.close()


def test_a_missing_engine_is_built_while_the_cpu_counts_and_nobody_is_counted_twice(workshop):
    shop = workshop()
    backend = shop.create()
    assert backend.name == "onnxruntime-cpu"
    assert "no engine yet" in str(backend.interim)
    before = run(backend, frames(6))
    assert shop.commands[0][3:5] == ["build", str(shop.plan.model.path)]
    shop.publish()
    shop.finished.set()
    wait(lambda: backend._offered is not None)
    after = run(backend, frames(6, start=6))
    assert backend.name == "tensorrt 10.3"
    assert backend.interim is None
    ids = [r.tracks.ids.tolist() for r in before[-1:] + after]
    assert ids == [[1, 2]] * 7
    assert all(r.tracks.confirmed.all() for r in after)
    backend.close()


def test_an_engine_that_fails_when_it_counts_gives_way_to_what_counted_before(workshop):
    shop = workshop()
    backend = shop.create()
    before = run(backend, frames(4))
    shop.publish()
    shop.finished.set()
    wait(lambda: backend._offered is not None)
    network = backend._offered.backend.network
    network._run = None

    def broken(*_: Any) -> None:
        raise EngineError("Cuda failure: misaligned address")

    backend._offered.backend.pipeline.submit = broken
    after = run(backend, frames(4, start=4))
    assert backend.name == "onnxruntime-cpu"
    assert "misaligned" in str(backend.interim)
    assert [r.info.index for r in before + after] == list(range(8))
    backend.close()


def test_an_engine_that_cannot_run_is_never_switched_to(workshop):
    shop = workshop()
    backend = shop.create()
    shop.publish(fail="Cask convolution execution")
    shop.finished.set()
    wait(lambda: "Cask" in str(backend.interim))
    run(backend, frames(2))
    assert backend.name == "onnxruntime-cpu"
    backend.close()


def test_of_int8_and_fp16_the_one_that_was_measured_to_be_faster_counts(workshop, plan):
    shop = workshop()
    int8 = plan.model.path.with_name("spots.int8.onnx")
    int8.write_bytes(plan.model.path.read_bytes())
    try:
        first = key_of(shop.spec, shop.trt, L4, shop.cache)
        assert first.precision == "int8"
        backend = shop.create()
        command = shop.commands[0]
        assert command[command.index("--precision") + 1] == "auto"
        other = wanted_key(
            shop.spec.path,
            shop.spec.recipe,
            shop.trt.version,
            L4,
            asked="fp16",
            profile=first.profile,
        )
        shop.publish(key=first)
        shop.publish(key=other)
        shop.cache.store_verdict({first: 2.0, other: 1.5})
        shop.finished.set()
        wait(lambda: backend._offered is not None)
        run(backend, frames(2))
        assert (backend.name, backend.precision) == ("tensorrt 10.3", "fp16")
        backend.close()
    finally:
        int8.unlink()


def older_engine_counts(shop: Workshop) -> SwitchingBackend:
    """The engine of another driver counts while one for this driver is built."""
    shop.publish(key=key_of(shop.spec, shop.trt, L4).model_copy(update={"driver": "570"}))
    backend = shop.create()
    assert isinstance(backend, SwitchingBackend)
    assert backend.name == "tensorrt 10.3"
    return backend


@pytest.mark.parametrize(("room_for", "takes_over"), [(1.5, False), (2.5, True)])
def test_two_engines_at_a_time_share_one_budget(workshop, room_for, takes_over):
    shop = workshop()
    backend = older_engine_counts(shop)
    run(backend, frames(2))
    first = backend._engine.backend
    held = sum(first.memory().values())
    shop.cuda.calls._size = int(room_for * held / 0.7)
    shop.publish()
    shop.finished.set()
    wait(lambda: backend._offered is not None or "device memory" in str(backend.interim))
    run(backend, frames(2, start=2))
    assert (backend._engine.backend is not first) == takes_over
    if takes_over:
        assert sum(backend._engine.backend.memory().values()) < 1.5 * held
    else:
        assert "the pipeline that counts now" in backend.interim
        assert "it takes over at the next start" in backend.interim
    backend.close()


def test_a_pipeline_that_is_closed_holds_no_memory(workshop):
    shop = workshop()
    shop.publish()
    backend = shop.create()
    assert sum(backend.memory().values()) > 0
    backend.close()
    assert backend.memory() == {}


def test_closing_ends_the_build(workshop):
    shop = workshop()
    shop.create().close()
    assert shop.stopped


def test_a_damaged_engine_is_built_again(workshop):
    shop = workshop()
    shop.publish()
    entry = shop.cache.lookup(key_of(shop.spec, shop.trt, L4)).entry
    data = bytearray(entry.engine.read_bytes())
    data[-1] ^= 1
    entry.engine.write_bytes(bytes(data))
    backend = shop.create()
    assert backend.name == "onnxruntime-cpu"
    assert "is damaged" in str(backend.interim)
    assert len(shop.commands) == 1
    backend.close()


def test_an_engine_file_of_the_users_own_is_run_as_it_is(workshop, tmp_path):
    shop = workshop("8.6")
    engine = engines.write(tmp_path / "own.engine", onnx.load(str(shop.plan.model.path)), "8.6")
    backend = shop.create(path=engine)
    assert backend.name == "tensorrt 8.6"
    assert len(run(backend, frames(3))) == 3
    assert shop.commands == []
    backend.close()


def test_an_engine_of_another_model_is_refused(workshop, tmp_path):
    shop = workshop()
    engine = engines.write(tmp_path / "other.engine", engines.network(), "10.3")
    with pytest.raises(ModelError, match=r"takes inputs of \[1, 3, 32, 32\]"):
        shop.create(path=engine)


def test_without_a_gpu_or_where_it_has_no_kernels_another_backend_counts(workshop):
    shop = workshop("rtx")
    none = DeviceFacts("none", None, "none", "none", False)
    hopper = DeviceFacts("H100", (9, 0), "580", "13.0", False)
    with pytest.raises(EngineError, match="no GPU with a driver"):
        create(shop.spec, replace(shop.around, facts=lambda: none))
    with pytest.raises(EngineError, match=r"no kernels for this GPU \(SM 9\.0\)"):
        create(shop.spec, replace(shop.around, facts=lambda: hopper))


def test_the_engine_is_for_as_many_cameras_as_there_are_where_the_file_allows_it(tmp_path):
    trt = engines.tensorrt("10.3")
    names = tuple(f"c{n}" for n in range(11))
    for dynamic, cameras, most in ((True, 3, 3), (True, 11, 8), (True, 1, 1), (False, 3, 1)):
        plan = plan_for(tmp_path / f"m{dynamic}{cameras}.onnx", names[:cameras], dynamic)
        key = key_of(backends._spec(plan, lambda *_: None), trt, L4)
        assert key.profile.min == (1, 3, SIDE, SIDE)
        assert key.profile.max == key.profile.opt == (most, 3, SIDE, SIDE)
        assert key.precision == "fp16"


@pytest.mark.parametrize(("dynamic", "most"), [(True, 5), (False, None)])
def test_the_engine_is_for_all_tiles_of_a_frame_or_none_is_built(tmp_path, dynamic, most):
    trt = engines.tensorrt("10.3")
    plan = plan_for(tmp_path / "m.onnx", ("high", "door"), dynamic)
    spec = backends._spec(plan, lambda *_: None)
    four = replace(spec.cameras[0], tiles=TileSettings(columns=2, rows=2))
    spec = replace(spec, cameras=(four, spec.cameras[1]))
    if most is None:
        with pytest.raises(EngineError, match=r"'high' is 4 pictures .* takes 1 at once"):
            key_of(spec, trt, L4)
    else:
        assert key_of(spec, trt, L4).profile.max == (most, 3, SIDE, SIDE)
