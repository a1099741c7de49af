import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

DOWN = ((500, 300), (500, 700))


def test_walking_down_over_a_line_from_left_to_right_is_in(kit):
    scene = kit.Scene([kit.line()])
    scene.walk({1: kit.straight(*DOWN, 60)})
    assert scene.finish() == [("door", "in")]


def test_walking_up_is_out(kit):
    scene = kit.Scene([kit.line()])
    scene.walk({1: kit.straight(DOWN[1], DOWN[0], 60)})
    assert scene.finish() == [("door", "out")]


def test_turning_the_line_around_turns_the_direction(kit):
    scene = kit.Scene([kit.line((1.0, 0.5), (0.0, 0.5))])
    scene.walk({1: kit.straight(*DOWN, 60)})
    assert scene.finish() == [("door", "out")]


def test_vertical_line_upwards_counts_left_to_right_as_in(kit):
    scene = kit.Scene([kit.line((0.5, 0.9), (0.5, 0.1))])
    scene.walk({1: kit.straight((300, 500), (700, 500), 60)})
    assert scene.finish() == [("door", "in")]


def test_passing_beside_the_end_of_a_line_does_not_count(kit):
    scene = kit.Scene([kit.line((0.6, 0.5), (0.9, 0.5))])
    scene.walk({1: kit.straight(*DOWN, 60)})
    assert scene.finish() == []


def test_one_step_over_the_line_counts_however_long(kit):
    scene = kit.Scene([kit.line(return_s=0.0)], fps=5)
    scene.walk({1: [(500, 10), (500, 990), (500, 995)]})
    assert scene.finish() == [("door", "in")]


def test_event_carries_the_time_of_the_crossing_not_of_the_decision(kit):
    scene = kit.Scene([kit.line(return_s=1.0)], fps=10)
    scene.walk({1: kit.straight((500, 405), (500, 895), 50)})
    (event,) = scene.events
    assert event.ts == pytest.approx(1000.95)
    assert event.frame == 20  # the first one that is a second later
    assert (event.kind, event.camera, event.track) == ("line", "cam", 1)


def test_jitter_on_the_line_counts_nothing(kit):
    rng = np.random.default_rng(0)
    scene = kit.Scene([kit.line()])
    scene.walk({1: [(500, 500 + float(rng.normal(0, 2))) for _ in range(1000)]})
    assert scene.finish() == []


def test_jitter_on_the_line_within_a_walk_counts_once(kit):
    rng = np.random.default_rng(1)
    wait = [(500, 500 + float(rng.normal(0, 2))) for _ in range(500)]
    scene = kit.Scene([kit.line()])
    scene.walk(
        {
            1: kit.straight((500, 300), (500, 495), 30)
            + wait
            + kit.straight((500, 505), (500, 700), 30)
        }
    )
    assert scene.finish() == [("door", "in")]


@pytest.mark.parametrize(
    ("away_s", "events"), [(0.8, []), (1.6, [("door", "in"), ("door", "out")])]
)
def test_coming_back_within_the_window_cancels(kit, away_s, events):
    frames = int(25 * away_s)
    path = (
        kit.straight((500, 300), (500, 499), 20)
        + [(500, 560)] * frames
        + kit.straight((500, 499), (500, 300), 20)
    )
    scene = kit.Scene([kit.line(return_s=1.2)])
    scene.walk({1: path})
    assert scene.finish() == events


def test_there_and_back_and_there_again_is_one_crossing(kit):
    path = (
        kit.straight((500, 300), (500, 520), 20)
        + kit.straight((500, 510), (500, 480), 5)
        + kit.straight((500, 490), (500, 700), 60)
    )
    scene = kit.Scene([kit.line()])
    scene.walk({1: path})
    assert scene.finish() == [("door", "in")]


def test_a_person_who_returns_later_is_counted_again(kit):
    there, back = kit.straight(*DOWN, 60), kit.straight(DOWN[1], DOWN[0], 60)
    scene = kit.Scene([kit.line()])
    scene.walk({1: there + back + there})
    assert scene.finish() == [("door", "in"), ("door", "out"), ("door", "in")]


def test_who_leaves_the_picture_right_behind_the_line_has_crossed(kit):
    scene = kit.Scene([kit.line((0.0, 0.99), (1.0, 0.99))])
    scene.walk({1: kit.straight((500, 800), (500, 992), 30)})
    assert scene.finish() == [("door", "in")]


def test_who_is_lost_after_jitter_across_the_line_has_not_crossed(kit):
    scene = kit.Scene([kit.line()])
    scene.walk({1: [(500, 498.0), (500, 497.5), (500, 502.0)]})
    assert scene.finish() == []


def test_standing_exactly_on_the_line_is_neither_side(kit):
    scene = kit.Scene([kit.line()])
    scene.walk({1: [(500, 300), (500, 500), (500, 500), (500, 300)]})
    assert scene.finish() == []
    through = kit.Scene([kit.line()])
    through.walk({1: [(500, 300), (500, 500), (500, 700)]})
    assert through.finish() == [("door", "in")]


coordinates = st.floats(min_value=0, max_value=1000, allow_nan=False, width=32)
paths = st.lists(st.tuples(coordinates, coordinates), min_size=2, max_size=40)
unit = st.floats(min_value=0.0625, max_value=0.9375, width=16)
segments = st.tuples(unit, unit, unit, unit).filter(
    lambda s: np.hypot(s[0] - s[2], s[1] - s[3]) > 0.1
)


def _signs(scene):
    return [e.direction for e in scene.events if e.kind == "line"]


def _run(kit, segment, path, **kwargs):
    scene = kit.Scene([kit.line(segment[:2], segment[2:])], **kwargs)
    scene.walk({1: path})
    scene.finish()
    return scene


@settings(max_examples=60, deadline=None)
@given(segment=segments, path=paths)
def test_reversing_the_line_swaps_in_and_out(kit, segment, path):
    swap = {"in": "out", "out": "in"}
    forward = _run(kit, segment, path)
    backward = _run(kit, segment[2:] + segment[:2], path)
    assert _signs(backward) == [swap[d] for d in _signs(forward)]


@settings(max_examples=60, deadline=None)
@given(segment=segments, path=paths)
def test_a_mirrored_scene_swaps_in_and_out(kit, segment, path):
    swap = {"in": "out", "out": "in"}
    mirrored = (1 - segment[0], segment[1], 1 - segment[2], segment[3])
    here = _run(kit, segment, path)
    there = _run(kit, mirrored, [(1000 - x, y) for x, y in path])
    assert _signs(there) == [swap[d] for d in _signs(here)]


@settings(max_examples=60, deadline=None)
@given(segment=segments, path=paths, scale=st.sampled_from([2, 4]))
def test_resolution_does_not_matter(kit, segment, path, scale):
    small = _run(kit, segment, path)
    large = kit.Scene([kit.line(segment[:2], segment[2:])], size=(1000 * scale, 1000 * scale))
    large.walk({1: [(scale * x, scale * y) for x, y in path]})
    large.finish()
    assert _signs(large) == _signs(small)


@settings(max_examples=40, deadline=None)
@given(y=st.floats(min_value=310, max_value=690), speed=st.floats(min_value=80, max_value=600))
def test_frame_rate_does_not_matter(kit, y, speed):
    def count(fps):
        scene = kit.Scene([kit.line((0.0, y / 1000), (1.0, y / 1000))], fps=fps)
        frames = max(2, int(fps * 1000 / speed))
        scene.walk({1: [(500, k * speed / fps) for k in range(frames)]})
        return scene.finish()

    assert count(5.0) == count(10.0) == count(30.0) == [("door", "in")]


@settings(max_examples=60, deadline=None)
@given(path=paths, y=st.floats(min_value=0.1, max_value=0.9))
def test_in_minus_out_is_the_net_change_of_sides(kit, path, y):
    far = 2000.0  # ends far from the line, so that nothing is left undecided
    scene = kit.Scene([kit.line((0.0, y), (1.0, y), return_s=0.0)])
    scene.walk({1: [(500, -far), *path, (500, far), (500, far)]})
    scene.finish()
    directions = _signs(scene)
    assert directions.count("in") - directions.count("out") == 1


@settings(max_examples=60, deadline=None)
@given(path=paths)
def test_in_and_out_alternate_for_one_person_on_a_line_across_the_picture(kit, path):
    scene = _run(kit, (0.0, 0.5, 1.0, 0.5), path)
    directions = _signs(scene)
    assert all(a != b for a, b in zip(directions, directions[1:]))
