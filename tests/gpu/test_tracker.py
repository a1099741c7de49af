"""The tracker's kernel on a GPU: the same as the CPU's tracker, bit for bit, on fresh scenes."""

import numpy as np
import pytest
from support.tracker_run import TrackerRun, assert_same, compare, crowd

from edgecount.infer.cuda.driver import Device, Stream
from edgecount.track import two_stage
from edgecount.track.two_stage import Options

pytestmark = pytest.mark.gpu

DT = 0.04


@pytest.fixture
def seed() -> int:
    seed = int(np.random.SeedSequence().generate_state(1)[0])
    print("seed", seed)  # shown where the test fails
    return seed


@pytest.mark.parametrize(
    ("people", "area", "frames"),
    [(0, 100.0, 5), (10, 300.0, 300), (60, 300.0, 200), (250, 900.0, 200), (900, 2500.0, 60)],
)
def test_crowds_are_tracked_alike(
    device: Device, stream: Stream, seed: int, people: int, area: float, frames: int
) -> None:
    run = TrackerRun(device, stream)
    compare(run, crowd(frames, people, seed, area=area, false=20), [DT] * frames)
    run.close()


def test_any_options_and_time_steps(device: Device, stream: Stream, seed: int) -> None:
    for part in range(10):
        random = np.random.default_rng([seed, part])
        options = Options(
            high=random.uniform(0.1, 0.9),
            high_share=random.choice([0.0, 0.3]),
            coast=random.choice([0.0, 0.5]),
            gate=random.uniform(0.5, 6),
            max_cost=random.uniform(0.1, 1.0),
            max_cost_low=1.0,
        )
        run = TrackerRun(device, stream, [options])
        dts = random.choice([0.0, -1.0, 1e-6, 0.04, 0.3, 2.5, float("inf"), float("nan")], 50)
        compare(run, crowd(50, 30, seed + part, area=300.0), dts.tolist())
        run.close()


def test_everybody_in_one_place(device: Device, stream: Stream, seed: int) -> None:
    run = TrackerRun(device, stream)
    compare(run, crowd(20, 90, seed, area=40.0), [DT] * 20)
    run.close()


def test_64_cameras_in_one_launch(device: Device, stream: Stream, seed: int) -> None:
    cameras = [Options(high=0.3 + 0.005 * i) for i in range(64)]
    scenes = [crowd(40, 3 * i, seed + i, area=600.0) for i in range(64)]
    run, references = TrackerRun(device, stream, cameras), [two_stage.create(o) for o in cameras]
    random = np.random.default_rng(seed)
    for number in range(40):
        order = random.permutation(64).tolist()
        if number == 20:
            run.tracker.reset(stream, 7)
            references[7].reset()
        outs = run.update([scenes[c][number] for c in order], [DT] * 64, order)
        for c, got in zip(order, outs):
            expected = references[c].update(scenes[c][number], DT)
            assert_same(got, expected, f"camera {c}, frame {number}")
    run.close()


def test_sanitizer(device: Device, stream: Stream) -> None:
    """Short and of every kind; run under compute-sanitizer."""
    cameras = [Options(), Options(max_age=0.1), Options(high=0.6)]
    scenes = [crowd(6, 40, 1, area=250.0), crowd(6, 150, 2, area=500.0), crowd(6, 0, 3)]
    run, references = TrackerRun(device, stream, cameras), [two_stage.create(o) for o in cameras]
    for number in range(6):
        outs = run.update([scene[number] for scene in scenes], [DT] * 3)
        for c, got in enumerate(outs):
            assert_same(got, references[c].update(scenes[c][number], DT), f"camera {c}")
    run.close()
