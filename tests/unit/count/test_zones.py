import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

ACROSS = ((100, 500), (900, 500))


def test_entry_and_exit_carry_times_and_dwell(kit):
    scene = kit.Scene(zones=[kit.square()], fps=10)
    scene.walk({1: kit.straight((100, 500), (900, 500), 81)})
    entered, left = scene.events
    assert (entered.direction, left.direction) == ("entered", "left")
    assert entered.ts == pytest.approx(1003.0, abs=0.01)
    assert left.ts == pytest.approx(1005.0, abs=0.01)
    assert left.dwell_s == pytest.approx(2.0, abs=0.01)
    assert entered.dwell_s == 0.0


def test_a_runner_who_is_never_seen_inside_has_entered_and_left(kit):
    scene = kit.Scene(zones=[kit.square(settle_s=0.02)], fps=5)
    scene.walk({1: [(300, 500), (700, 500), (1100, 500)]})
    assert scene.finish() == [("hall", "entered"), ("hall", "left")]
    assert scene.events[1].dwell_s == pytest.approx(0.1, abs=0.001)


def test_a_visit_shorter_than_the_settling_time_does_not_count(kit):
    scene = kit.Scene(zones=[kit.square(settle_s=0.5)], fps=5)
    scene.walk({1: [(300, 500), (700, 500), (1100, 500)]})
    assert scene.finish() == []


def test_a_short_absence_is_no_exit(kit):
    inside, outside = (500, 500), (700, 500)
    scene = kit.Scene(zones=[kit.square(settle_s=0.5)], fps=10)
    scene.walk({1: [inside] * 20 + [outside] * 3 + [inside] * 20})
    assert scene.named() == [("hall", "entered")]


def test_who_is_lost_inside_leaves_when_last_seen(kit):
    scene = kit.Scene(zones=[kit.square()], fps=10)
    scene.walk({1: [(500, 500)] * 31})
    assert scene.finish() == [("hall", "entered"), ("hall", "left")]
    assert scene.events[1].ts == pytest.approx(1003.0)
    assert scene.events[1].dwell_s == pytest.approx(3.0)


def test_who_left_shortly_before_being_lost_left_at_the_border(kit):
    scene = kit.Scene(zones=[kit.square(settle_s=1.0)], fps=10)
    scene.walk({1: [(500, 500)] * 21 + [(700, 500)] * 3})
    scene.finish()
    assert scene.events[1].dwell_s == pytest.approx(2.05, abs=0.01)


def test_now_counts_heads_inside_and_those_just_lost(kit):
    scene = kit.Scene(zones=[kit.square()], fps=10)
    for _ in range(20):
        scene.step(kit.tracks_at({1: (500, 500), 2: (450, 450), 3: (900, 900)}))
    state = scene.counter.zones()["hall"]
    assert (state.now, state.entered, state.left) == (2, 2, 0)
    assert state.max_dwell_s == pytest.approx(1.9)
    scene.step(kit.tracks_at({1: (500, 500)}))
    assert scene.counter.zones()["hall"].now == 2
    for _ in range(20):
        scene.step(kit.tracks_at({1: (500, 500)}))
    assert scene.counter.zones()["hall"].now == 1


def test_a_tentative_head_is_not_in_a_zone(kit):
    scene = kit.Scene(zones=[kit.square()])
    for _ in range(50):
        scene.step(kit.tracks_at({1: (500, 500)}, confirmed=lambda _: False))
    assert scene.counter.zones()["hall"].now == 0
    assert scene.events == []


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(min_value=0, max_value=2**32 - 1), settle=st.sampled_from([0.0, 0.2, 1.0]))
def test_everybody_who_entered_has_left_in_the_end(kit, seed, settle):
    rng = np.random.default_rng(seed)
    steps = rng.normal(0, 60, (3, 60, 2)).cumsum(axis=1) + 500
    scene = kit.Scene(zones=[kit.square(settle_s=settle)], fps=10)
    scene.walk({n: [tuple(p) for p in path] for n, path in enumerate(steps.tolist())})
    scene.finish()
    for track in range(3):
        directions = [e.direction for e in scene.events if e.track == track]
        assert directions == ["entered", "left"] * (len(directions) // 2)
    assert all(e.dwell_s >= settle - 1e-5 for e in scene.events if e.direction == "left")


@settings(max_examples=40, deadline=None)
@given(x=st.floats(min_value=410, max_value=590), speed=st.floats(min_value=50, max_value=400))
def test_frame_rate_does_not_change_dwell(kit, x, speed):
    def dwell(fps):
        scene = kit.Scene(zones=[kit.square(settle_s=0.1)], fps=fps)
        frames = max(2, int(fps * 1000 / speed) + 1)
        scene.walk({1: [(x, k * speed / fps) for k in range(frames)]})
        scene.finish()
        assert scene.named() == [("hall", "entered"), ("hall", "left")]
        return scene.events[1].dwell_s

    assert dwell(5.0) == pytest.approx(200 / speed, abs=1e-6)
    assert dwell(30.0) == pytest.approx(200 / speed, abs=1e-6)
