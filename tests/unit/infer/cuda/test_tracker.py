"""The CUDA tracker, on the emulator, against the CPU's: the same, bit for bit."""

import os
from pathlib import Path
from typing import Any, List, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.cuda_emulator import emulator
from support.gpu_tracker import Bench, assert_same, compare
from support.scenes import detections, head

from edgecount.errors import EngineError
from edgecount.infer.cuda.tracker import Capacity, GpuTracker
from edgecount.records import Detections
from edgecount.toolchain import simulate
from edgecount.toolchain.evaluate import track
from edgecount.toolchain.evaluate.simulated_detections import Simulation
from edgecount.track import two_stage
from edgecount.track.two_stage import Options

DT = 0.04
THREADS = 64


@pytest.fixture(scope="module")
def device() -> emulator.Device:
    return emulator.Device()


@pytest.fixture(scope="module")
def module(device: emulator.Device) -> emulator.Module:
    return device.compile("tracker", ["track_frames"], {"THREADS": THREADS})


@pytest.fixture(scope="module")
def make(device: emulator.Device, module: emulator.Module) -> Any:
    def made(
        cameras: Sequence[Options] = (Options(),),
        capacity: Capacity = Capacity(256, 256),
        seed: int = 0,
        threads: int = THREADS,
    ) -> Bench:
        return Bench(device, device.stream(seed), cameras, capacity, module, threads)

    return made


def crowd(
    frames: int, people: int, seed: int, *, area: float = 800.0, false: int = 3
) -> List[Detections]:
    """People who walk at random, some of them unseen, with noise, weak and false boxes."""
    random = np.random.default_rng(seed)
    at, size = random.random((people, 2)) * area, random.uniform(15, 45, people)
    speed = random.normal(0, 60, (people, 2))
    scene = []
    for _ in range(frames):
        at = at + speed * DT
        seen = random.random(people) < 0.9
        noisy = at[seen] + random.normal(0, 2, (int(seen.sum()), 2)) + random.normal(0, 2, 2)
        extra = random.random((random.integers(0, false + 1), 2)) * area
        sizes = np.concatenate((size[seen], np.full(len(extra), 30.0)))
        boxes = [head(x, y, s) for (x, y), s in zip(np.vstack((noisy, extra)), sizes)]
        scores = np.sort(random.uniform(0.05, 1, len(boxes)))[::-1]
        classes = random.integers(0, 3, len(boxes)).astype(np.int32)
        found = detections(boxes, scores.tolist())
        scene.append(Detections(found.boxes, found.scores, classes))
    return scene


@given(
    seed=st.integers(0, 100_000),
    people=st.integers(0, 60),
    area=st.sampled_from([150.0, 400.0, 1200.0]),
    dt=st.sampled_from([0.033, 0.04, 0.2]),
)
@settings(max_examples=25, deadline=None)
def test_crowds_are_tracked_alike(
    make: Any, seed: int, people: int, area: float, dt: float
) -> None:
    compare(make(seed=seed), crowd(20, people, seed, area=area), [dt] * 20)


@given(seed=st.integers(0, 100_000))
@settings(max_examples=10, deadline=None)
def test_any_options_and_time_steps(make: Any, seed: int) -> None:
    random = np.random.default_rng(seed)
    options = Options(
        low=random.choice([0.0, 0.2]),
        high=random.uniform(0.1, 0.9),
        high_share=random.choice([0.0, 0.3]),
        coast=random.choice([0.0, 0.5]),
        coast_rate=random.uniform(0, 1),
        gate=random.uniform(0.5, 6),
        novice_cost=random.uniform(0, 0.5),
        max_cost=random.uniform(0.1, 1.0),
        max_cost_low=1.0,
        confirm_evidence=random.choice([0.1, 1.0, 3.0]),
    )
    dts = random.choice([0.0, -1.0, 1e-6, 0.04, 0.3, 2.5, float("inf"), float("nan")], 25)
    compare(make([options], seed=seed), crowd(25, 25, seed, area=300.0), dts.tolist())


def test_everybody_in_one_place(make: Any) -> None:
    """One component with rows of more pairs than are kept."""
    frames = crowd(6, 90, 5, area=40.0)
    assert max(len(f) for f in frames) > 64
    compare(make(), frames, [DT] * 6)


def test_equal_boxes_go_to_lower_indices(make: Any) -> None:
    grid = detections([head(20 * i, 20 * j) for i in range(8) for j in range(8)])
    twice = Detections(
        np.repeat(grid.boxes, 2, axis=0), np.repeat(grid.scores, 2), np.repeat(grid.classes, 2)
    )
    compare(make(), [grid] * 4 + [twice] * 2 + [grid] * 3, [DT] * 9)


def test_levels_learn_and_forget(make: Any) -> None:
    """More than 8,192 scores of confirmed tracks: the histogram is halved."""
    frames = crowd(70, 200, 9, area=6000.0)
    compare(make(capacity=Capacity(512, 256)), frames, [DT] * 70)


def test_tracks_die_and_move_up(make: Any) -> None:
    frames = crowd(30, 40, 3)
    frames[8:12] = [Detections.empty()] * 4
    frames[20:23] = [Detections.empty()] * 3
    dts = [DT] * 30
    dts[15] = 1.5
    outs = compare(make(), frames, dts)
    assert sum(len(out.ended) for out in outs) > 20


@pytest.mark.parametrize(
    "box", [(np.nan, 0, 9, 9), (0, 0, np.inf, 9), (5, 5, 5, 9), (0, 0, 1e30, 1e30)]
)
def test_boxes_that_are_none_are_ignored(make: Any, box: Sequence[float]) -> None:
    seen = detections([box, head(100, 100), box, head(300, 100)], [0.95, 0.9, 0.8, 0.7])
    outs = compare(make(), [seen] * 3, [DT] * 3)
    assert outs[-1].ids.tolist() == [1, 2]


def test_a_score_that_is_no_number_is_ignored(make: Any) -> None:
    compare(make(), [detections([head(100, 100)], [float("nan")])] * 2, [DT] * 2)


def test_cameras_are_independent_and_in_any_order(make: Any) -> None:
    options = [Options(), Options(high=0.6), Options(coast=0.0), Options(max_age=0.3)]
    scenes = [crowd(15, 20 + 5 * i, 40 + i) for i in range(4)]
    references = [two_stage.create(o) for o in options]
    bench = make(options, seed=3)
    random = np.random.default_rng(0)
    for number in range(15):
        chosen = random.permutation(4)[: random.integers(1, 5)]
        frames = [scenes[c][number] for c in chosen]
        dts = random.uniform(0.03, 0.3, len(chosen)).tolist()
        results = bench.update(frames, dts, chosen.tolist())
        for c, frame, dt, result in zip(chosen, frames, dts, results):
            assert_same(result.tracks, references[c].update(frame, dt), f"camera {c}")


def test_a_picture_without_camera_is_not_tracked(make: Any) -> None:
    bench = make()
    seen = detections([head(100, 100)])
    results = bench.update([seen], [DT], [-1])
    assert len(results[0].tracks) == 0
    assert bench.update([seen], [DT])[0].tracks.ids.tolist() == [1]


def test_reset_forgets_one_camera_and_uses_no_id_again(make: Any) -> None:
    bench = make([Options(), Options()])
    references = [two_stage.create(Options()), two_stage.create(Options())]
    for number, seen in enumerate(crowd(12, 15, 1)):
        if number == 6:
            bench.tracker.reset(bench.stream, 1)
            references[1].reset()
        for result, reference in zip(bench.update([seen] * 2, [DT] * 2), references):
            assert_same(result.tracks, reference.update(seen, DT), f"frame {number}")


def test_births_beyond_the_capacity_are_told(make: Any) -> None:
    bench = make(capacity=Capacity(32, 64))
    seen = detections([head(60 * i, 60 * j) for i in range(8) for j in range(5)])
    result = bench.update([seen], [DT])[0]
    assert result.tracks.ids.tolist() == list(range(1, 33))
    assert result.dropped == 8
    again = bench.update([seen], [DT])[0]
    assert again.tracks.ids.tolist() == list(range(1, 33))
    assert again.dropped == 8


def test_detections_fill_the_record(make: Any) -> None:
    grid = detections([head(60 * i, 60 * j) for i in range(16) for j in range(16)])
    outs = compare(make(), [grid] * 3, [DT] * 3)
    assert len(outs[-1]) == 256


@pytest.mark.parametrize("threads", [32, 256])
def test_the_number_of_threads_does_not_matter(
    device: emulator.Device, make: Any, threads: int
) -> None:
    compare(make(threads=threads, seed=2), crowd(8, 90, 8, area=500.0), [DT] * 8)


@pytest.mark.parametrize("capacity", [Capacity(100, 64), Capacity(64, 4096), Capacity(0, 64)])
def test_a_capacity_that_is_none_is_refused(make: Any, capacity: Capacity) -> None:
    with pytest.raises(EngineError, match="multiple of 32"):
        make(capacity=capacity)


def test_too_little_shared_memory_is_refused(
    device: emulator.Device, module: emulator.Module, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = device.properties._replace(shared_bytes=48 * 1024)
    monkeypatch.setattr(device, "properties", small)
    with pytest.raises(EngineError, match="shared memory"):
        GpuTracker(device, device.stream(), [Options()], batch=1, module=module)
    made = GpuTracker(
        device, device.stream(), [Options()], batch=1, capacity=Capacity(512, 512), module=module
    )
    made.close()


def test_a_camera_that_is_none_cannot_be_reset(make: Any) -> None:
    bench = make()
    with pytest.raises(IndexError, match="no number 1"):
        bench.tracker.reset(bench.stream, 1)


@pytest.mark.parametrize("scenario", simulate.SCENARIOS, ids=lambda s: s.name)
def test_simulated_scenes(make: Any, scenario: simulate.Scenario) -> None:
    scene = simulate.simulate(scenario)
    frames = [scene.detections.detections(n) for n in range(1, min(scenario.frames, 400) + 1)]
    compare(make(), frames, [1 / scenario.fps] * len(frames))


@pytest.mark.parametrize("name", ["MOT15", "HT21"])
def test_real_scenes(make: Any, name: str) -> None:
    """Every frame of MOT15's public detections, and of HT21's crowds with some left out."""
    root = os.environ.get("EDGECOUNT_MOT_DIR")
    if not root:
        pytest.skip("EDGECOUNT_MOT_DIR is not set")
    simulation = Simulation() if name == "HT21" else None
    for sample in track.load(Path(root) / name, simulation):
        frames = [sample.detections.detections(n + 1) for n in range(sample.info.length)]
        compare(make(capacity=Capacity(512, 512)), frames, [1 / sample.info.fps] * len(frames))
