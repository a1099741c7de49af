"""The two-stage tracker's behaviour, in scenes whose outcome is plain."""

from typing import Callable, List, Sequence, Set, Tuple

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from support.scenes import body, detections, head

from edgecount.records import Detections, Tracks
from edgecount.track import two_stage

DT = 0.04
Path = Callable[[float], Tuple[float, float]]


def tracker(**options: float) -> two_stage.TwoStageTracker:
    return two_stage.create(two_stage.Options(**options))


def follow(path: Path, fps: float, seconds: float, **options: float) -> List[Tracks]:
    """One head on a path given by time in seconds."""
    engine = tracker(**options)
    times = np.arange(round(seconds * fps)) / fps
    return [engine.update(detections([head(*path(t))]), 1 / fps) for t in times]


def confirmed_ids(outs: Sequence[Tracks]) -> Set[int]:
    return {int(i) for out in outs for i in out.ids[out.confirmed]}


def test_a_flash_is_never_confirmed() -> None:
    engine = tracker()
    outs = [engine.update(detections([head(100, 100)]), DT)]
    outs += [engine.update(Detections.empty(), DT) for _ in range(50)]
    assert outs[0].ids.tolist() == [1]
    assert not confirmed_ids(outs)
    assert [i for out in outs for i in out.ended.tolist()] == [1]


def test_flashes_at_random_places_are_never_confirmed() -> None:
    engine, random = tracker(), np.random.default_rng(0)
    outs = [engine.update(detections([head(*(random.random(2) * 8000))]), DT) for _ in range(100)]
    assert not confirmed_ids(outs)


def test_a_person_is_confirmed_by_the_third_frame() -> None:
    outs = follow(lambda t: (100 + 40 * t, 100), fps=25, seconds=0.2)
    assert outs[0].ids.tolist() == [1]
    assert outs[2].confirmed.all()


@pytest.mark.parametrize("fps", [5, 10, 15, 25, 30])
def test_a_walking_head_keeps_its_id_at_any_frame_rate(fps: float) -> None:
    outs = follow(lambda t: (100 + 60 * t, 200 + 20 * t), fps, seconds=8)
    assert confirmed_ids(outs) == {1}
    assert len(outs[-1]) == 1


@pytest.mark.parametrize("fps", [5, 10, 30])
def test_tracks_die_after_the_same_time_at_any_frame_rate(fps: float) -> None:
    engine = tracker(max_age=1.0)
    for _ in range(10):
        engine.update(detections([head(100, 100)]), 1 / fps)
    lived = 0
    while not len(engine.update(Detections.empty(), 1 / fps).ended):
        lived += 1
    assert lived / fps == pytest.approx(1.0, abs=0.01)


def test_a_runner_at_five_frames_per_second_is_one_person() -> None:
    # 2.9 m/s with heads of 30 px (0.25 m): 2.3 times its size between frames, no overlap
    outs = follow(lambda t: (20 + 350 * t, 300), fps=5, seconds=3)
    assert confirmed_ids(outs) == {1}
    assert outs[2].confirmed.all()


def test_a_fast_runner_at_five_frames_per_second_is_one_person() -> None:
    # 4.2 m/s: 3.4 times its size between frames, more than any gate of a walker
    outs = follow(lambda t: (20 + 510 * t, 300), fps=5, seconds=3)
    assert confirmed_ids(outs) == {1}
    assert outs[2].confirmed.all()


def test_nobody_is_looked_for_further_than_a_runner_gets() -> None:
    outs = follow(lambda t: (20 + 800 * t, 300), fps=5, seconds=3)  # 6.7 m/s
    assert not confirmed_ids(outs)


def test_a_walker_who_stops_between_two_distant_frames_keeps_the_id() -> None:
    def walk_and_stop(t: float) -> Tuple[float, float]:
        return 100 + 140 * min(t, 2), 200  # at 1.2 m/s: nearly a head from frame to frame

    assert confirmed_ids(follow(walk_and_stop, fps=5, seconds=4)) == {1}
    assert len(confirmed_ids(follow(walk_and_stop, 5, 4, max_cost_apart=0.7))) > 1


@given(seed=st.integers(0, 10_000))
@settings(max_examples=10, deadline=None)
def test_what_is_for_distant_frames_changes_nothing_at_25_per_second(seed: int) -> None:
    random = np.random.default_rng(seed)
    people, speed = random.random((20, 2)) * 500, random.normal(0, 80, (20, 2))
    one, other = tracker(), tracker(top_speed=1e-3, max_cost_apart=0.7)
    for _ in range(20):
        people = people + speed * DT
        found = people[random.random(20) < 0.9]
        seen = detections([head(x, y) for x, y in found])
        np.testing.assert_array_equal(one.update(seen, DT).ids, other.update(seen, DT).ids)


def test_the_same_id_comes_back_after_an_occlusion() -> None:
    engine = tracker()
    ids = []
    for f in range(60):
        hidden = 25 <= f < 45  # 0.8 s
        seen = Detections.empty() if hidden else detections([body(100 + 4 * f, 300)])
        ids.append(engine.update(seen, DT).ids.tolist())
    assert ids[-1] == ids[0] == [1]


def test_two_people_who_cross_keep_their_ids() -> None:
    engine = tracker()
    first = last = Tracks.empty()
    for f in range(80):
        a, b = body(100 + 5 * f, 300), body(500 - 5 * f, 330)
        last = engine.update(detections([a, b]), DT)
        first = first if len(first) else last
    assert first.ids.tolist() == last.ids.tolist() == [1, 2]
    assert first.boxes[0, 0] < first.boxes[1, 0]
    assert last.boxes[0, 0] > last.boxes[1, 0]


def test_low_detections_keep_a_track_but_start_none() -> None:
    engine = tracker(high=0.5)
    for _ in range(5):
        engine.update(detections([head(100, 100)]), DT)
    for _ in range(20):
        out = engine.update(detections([head(100, 100), head(400, 400)], [0.2, 0.2]), DT)
    assert out.ids.tolist() == [1]


def test_scores_below_low_are_ignored() -> None:
    engine = tracker(low=0.3)
    for _ in range(5):
        engine.update(detections([head(100, 100)]), DT)
    out = engine.update(detections([head(100, 100)], [0.29]), DT)
    assert out.scores.tolist() in ([], [0.0])


def test_a_steady_track_coasts_shortly_with_score_zero() -> None:
    engine = tracker(coast=0.2, coast_rate=0.1)
    for f in range(20):
        engine.update(detections([head(100 + 2 * f, 100)]), DT)
    outs = [engine.update(Detections.empty(), DT) for _ in range(10)]
    assert [len(out) for out in outs] == [1] * 5 + [0] * 5
    assert outs[0].scores.tolist() == [0.0]
    assert outs[4].boxes[0, 0] > outs[0].boxes[0, 0], "it goes on as it went"


def test_a_track_that_is_often_missed_does_not_coast() -> None:
    engine = tracker(coast=0.2)
    for f in range(40):
        seen = detections([head(100, 100)]) if f % 3 == 0 else Detections.empty()
        out = engine.update(seen, DT)
        assert f < 10 or len(out) == (f % 3 == 0)


def test_without_coasting_only_matched_tracks_are_given_out() -> None:
    engine = tracker(coast=0.0)
    for _ in range(20):
        engine.update(detections([head(100, 100)]), DT)
    assert len(engine.update(Detections.empty(), DT)) == 0


def test_boxes_are_smoother_than_the_detections() -> None:
    random = np.random.default_rng(1)
    raw, smooth = [], []
    engine = tracker()
    for f in range(200):
        centre = np.array([100 + 2 * f, 200])
        noisy = centre + random.normal(0, 1.5, 2)
        out = engine.update(detections([head(*noisy)]), DT)
        raw.append(np.abs(noisy - centre).mean())
        smooth.append(np.abs((out.boxes[0, :2] + out.boxes[0, 2:]) / 2 - centre).mean())
    assert np.mean(smooth[20:]) < 0.75 * np.mean(raw[20:])


def test_of_two_equal_detections_the_first_wins() -> None:
    engine = tracker()
    for _ in range(3):
        engine.update(detections([head(100, 100)]), DT)
    out = engine.update(detections([head(96, 100), head(104, 100)]), DT)
    assert out.boxes[0, 0] < 85, "track 1 took the left one, which came first"


@given(seed=st.integers(0, 1000))
@settings(max_examples=20, deadline=None)
def test_the_order_of_detections_does_not_matter_to_known_tracks(seed: int) -> None:
    random = np.random.default_rng(seed)
    people = random.random((12, 2)) * 600
    first, second = tracker(), tracker()
    start = detections([head(x, y) for x, y in people])
    for engine in (first, second):
        engine.update(start, DT)
        engine.update(start, DT)
    for _ in range(5):
        people = people + random.normal(0, 2, people.shape)
        seen = detections([head(x, y) for x, y in people])
        order = random.permutation(len(people))
        mixed = Detections(seen.boxes[order], seen.scores[order], seen.classes[order])
        a, b = first.update(seen, DT), second.update(mixed, DT)
        np.testing.assert_array_equal(a.ids, b.ids)
        np.testing.assert_array_equal(a.boxes, b.boxes)


def test_a_shaking_camera_does_not_make_new_people() -> None:
    engine, random = tracker(), np.random.default_rng(4)
    people = [(x, y) for x in (100, 300, 500) for y in (200, 400)]
    outs = []
    for _ in range(60):
        dx, dy = random.normal(0, 6, 2)
        outs.append(engine.update(detections([body(x + dx, y + dy) for x, y in people]), DT))
    assert len(confirmed_ids(outs)) == len(people)


def test_a_gap_longer_than_max_age_ends_all_tracks_before_matching() -> None:
    engine = tracker()
    for _ in range(5):
        engine.update(detections([head(100, 100)]), DT)
    out = engine.update(detections([head(100, 100)]), 60.0)
    assert out.ended.tolist() == [1]
    assert out.ids.tolist() == [2]
    assert not out.confirmed.any()


def test_more_tracks_than_the_first_capacity() -> None:
    engine = tracker()
    grid = [head(40 * i, 40 * j) for i in range(20) for j in range(20)]
    for _ in range(3):
        out = engine.update(detections(grid), DT)
    assert out.ids.tolist() == list(range(1, 401))
    assert out.confirmed.all()


def test_what_a_good_score_is_depends_on_the_detector() -> None:
    """A box of 0.6 starts a track beside people of 0.6, and none beside people of 0.95."""

    def born(usual: float) -> int:
        engine = tracker()
        people = [head(100 * i, 100) for i in range(1, 6)]
        for _ in range(100):
            engine.update(detections(people, [usual] * 5), DT)
        return len(engine.update(detections([*people, head(300, 500)], [usual] * 5 + [0.6]), DT))

    assert born(0.6) == 6
    assert born(0.95) == 5
