"""The tracker's kernel, on the emulator, against the CPU's tracker: the same, bit for bit."""

import os
from dataclasses import replace
from pathlib import Path
from typing import Any, Callable, List, Mapping, Optional, Sequence

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs
from support.cuda_emulator import emulator
from support.scenes import detections, head
from support.tracker_run import TrackerRun, assert_same, compare, crowd

from edgecount.infer.cuda.tracker import KERNELS, MOST_NEIGHBOURS, MOST_TRACKS
from edgecount.records import Detections
from edgecount.toolchain import simulate
from edgecount.toolchain.evaluate import track
from edgecount.toolchain.evaluate.simulated_detections import Simulation
from edgecount.track import two_stage
from edgecount.track.two_stage import Options

DT = 0.04
Make = Callable[..., TrackerRun]


@pytest.fixture(scope="module")
def make() -> Make:
    """A tracker on the emulator; ``seed`` shuffles the order in which threads run."""
    device = emulator.Device()

    def load(_: Any, name: str, defines: Optional[Mapping[str, object]] = None) -> Any:
        return device.compile(name, KERNELS, defines)

    def made(cameras: Sequence[Options] = (Options(),), seed: int = 0) -> TrackerRun:
        return TrackerRun(device, device.stream(seed), cameras, load)

    return made


@given(
    seed=st.integers(0, 100_000),
    people=st.integers(0, 60),
    area=st.sampled_from([150.0, 400.0, 1200.0]),
    dt=st.sampled_from([0.033, 0.04, 0.17, 0.2]),
)
@settings(max_examples=15, deadline=None)
def test_crowds_are_tracked_alike(
    make: Make, seed: int, people: int, area: float, dt: float
) -> None:
    compare(make(seed=seed), crowd(15, people, seed, area=area), [dt] * 15)


@given(seed=st.integers(0, 100_000))
@settings(max_examples=12, deadline=None)
def test_any_options_and_time_steps(make: Make, seed: int) -> None:
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
        max_cost_apart=random.uniform(0.1, 1.0),
        top_speed=random.uniform(0.1, 9.0),
        confirm_evidence=random.choice([0.1, 1.0, 3.0]),
    )
    dts = random.choice([0.0, -1.0, 1e-6, 0.04, 0.3, 2.5, float("inf"), float("nan")], 20)
    compare(make([options], seed=seed), crowd(20, 25, seed, area=300.0), dts.tolist())


def test_everybody_in_one_place(make: Make) -> None:
    """One component in which everything goes with everything."""
    compare(make(), crowd(5, 90, 5, area=40.0), [DT] * 5)


def test_equal_boxes_go_to_lower_indices(make: Make) -> None:
    grid = detections([head(20 * i, 20 * j) for i in range(8) for j in range(8)])
    twice = Detections(
        np.repeat(grid.boxes, 2, axis=0), np.repeat(grid.scores, 2), np.repeat(grid.classes, 2)
    )
    compare(make(), [grid] * 4 + [twice] * 2 + [grid] * 3, [DT] * 9)


def test_levels_learn_and_forget(make: Make) -> None:
    """More than 8,192 scores of confirmed tracks: the histogram is halved."""
    compare(make(), crowd(70, 200, 9, area=6000.0), [DT] * 70)


def test_tracks_die_and_move_up(make: Make) -> None:
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
def test_boxes_that_are_none_are_ignored(make: Make, box: Sequence[float]) -> None:
    seen = detections([box, head(100, 100), box, head(300, 100)], [0.95, 0.9, 0.8, 0.7])
    outs = compare(make(), [seen] * 3, [DT] * 3)
    assert outs[-1].ids.tolist() == [1, 2]


def test_a_score_that_is_no_number_is_ignored(make: Make) -> None:
    compare(make(), [detections([head(100, 100)], [float("nan")])] * 2, [DT] * 2)


def test_cameras_are_independent_and_in_any_order(make: Make) -> None:
    options = [Options(), Options(high=0.6), Options(coast=0.0), Options(max_age=0.3)]
    scenes = [crowd(15, 20 + 5 * i, 40 + i) for i in range(4)]
    references = [two_stage.create(o) for o in options]
    run, random = make(options, seed=3), np.random.default_rng(0)
    for number in range(15):
        chosen: List[int] = random.permutation(4)[: random.integers(1, 5)].tolist()
        frames = [scenes[c][number] for c in chosen]
        dts = random.uniform(0.03, 0.3, len(chosen)).tolist()
        for c, frame, dt, got in zip(chosen, frames, dts, run.update(frames, dts, chosen)):
            assert_same(got, references[c].update(frame, dt), f"camera {c}, frame {number}")


def test_a_picture_without_camera_is_not_tracked(make: Make) -> None:
    run, seen = make(), detections([head(100, 100)])
    assert len(run.update([seen], [DT], [-1])[0]) == 0
    assert run.update([seen], [DT])[0].ids.tolist() == [1]


def test_reset_forgets_one_camera_and_uses_no_id_again(make: Make) -> None:
    run = make([Options(), Options()])
    references = [two_stage.create(Options()), two_stage.create(Options())]
    for number, seen in enumerate(crowd(12, 15, 1)):
        if number == 6:
            run.tracker.reset(run.stream, 1)
            references[1].reset()
        for got, reference in zip(run.update([seen] * 2, [DT] * 2), references):
            assert_same(got, reference.update(seen, DT), f"frame {number}")


def test_as_many_tracks_as_there_is_room_for(make: Make) -> None:
    grid = detections([head(60 * i, 60 * j) for i in range(32) for j in range(32)])
    outs = compare(make(), [grid] * 2, [DT] * 2)
    assert len(outs[-1]) == MOST_TRACKS


def test_newcomers_wait_where_there_is_no_room_and_the_rest_goes_on(make: Make) -> None:
    run = make()
    grid = [head(60 * i, 60 * j) for i in range(32) for j in range(33)]
    run.update([detections(grid[:MOST_TRACKS])], [DT])
    with capture_logs() as logs:
        (tracks,) = run.update([detections(grid[-64:])], [0.0])
    assert [(e["event"], "1024 people" in e["reason"]) for e in logs] == [("tracker_full", True)]
    assert len(tracks) == MOST_TRACKS
    assert tracks.ids.max() == MOST_TRACKS


def test_the_best_are_looked_at_where_too_many_are_in_one_reach(make: Make) -> None:
    run = make()
    run.update([detections([head(100, 100)])], [DT])
    with capture_logs() as logs:
        (tracks,) = run.update([detections([head(100, 100)] * (MOST_NEIGHBOURS + 1))], [DT])
    assert [(e["event"], "best 128" in e["reason"]) for e in logs] == [("tracker_full", True)]
    assert tracks.ids[0] == 1


def test_the_best_is_among_those_looked_at_wherever_it_stands(make: Make) -> None:
    run = make()
    run.update([detections([head(104, 100)])], [DT])
    others = [head(100, 100)] * MOST_NEIGHBOURS
    (tracks,) = run.update([detections([head(104, 100), *others])], [DT])
    assert tracks.ids[0] == 1
    assert tracks.boxes[0, 0] > head(102, 100)[0]


@pytest.mark.parametrize("scenario", simulate.SCENARIOS, ids=lambda s: s.name)
def test_simulated_scenes(make: Make, scenario: simulate.Scenario) -> None:
    scene = simulate.simulate(replace(scenario, seconds=18.0))
    frames = [scene.detections.detections(n + 1) for n in range(scene.info.length)][-150:]
    compare(make(), frames, [1 / scenario.fps] * len(frames))


@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", ["MOT15", "HT21"])
def test_real_scenes(make: Make, name: str) -> None:
    """Every frame of MOT15's public detections, and of HT21's crowds with errors put in."""
    root = os.environ.get("EDGECOUNT_MOT_DIR")
    if not root:
        pytest.skip("EDGECOUNT_MOT_DIR is not set")
    for sample in track.load(Path(root) / name, Simulation() if name == "HT21" else None):
        frames = [sample.detections.detections(n + 1) for n in range(sample.info.length)]
        compare(make(), frames, [1 / sample.info.fps] * len(frames))
