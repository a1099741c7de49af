from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecount.count.counter import Rules
from edgecount.count.roster import StitchRules
from edgecount.records import LineTotals, Tracks, ZoneState

DOWN = ((500, 300), (500, 700))


def test_totals_follow_the_events(kit):
    scene = kit.Scene([kit.line()], [kit.square()])
    scene.walk({1: kit.straight(*DOWN, 60), 2: kit.straight(DOWN[1], DOWN[0], 60)})
    scene.finish()
    assert scene.counter.lines() == {"door": LineTotals(into=1, out=1)}
    hall = scene.counter.zones()["hall"]
    assert (hall.entered, hall.left, hall.now) == (2, 2, 0)


def test_visible_counts_confirmed_heads(kit):
    scene = kit.Scene()
    scene.step(kit.tracks_at({1: (10, 10), 2: (50, 50)}, confirmed=lambda t: t == 2))
    assert scene.counter.visible == 1
    scene.step(Tracks.empty())
    assert scene.counter.visible == 0


def test_unconfirmed_tracks_never_count(kit):
    scene = kit.Scene([kit.line()])
    scene.walk({1: kit.straight(*DOWN, 60)}, confirmed=lambda _t, _f: False)
    assert scene.finish() == []


def test_a_crossing_made_while_tentative_counts_at_confirmation(kit):
    scene = kit.Scene([kit.line()])
    scene.walk({1: kit.straight((500, 450), (500, 900), 90)}, confirmed=lambda _t, f: f >= 40)
    assert scene.finish() == [("door", "in")]
    assert scene.events[0].ts == pytest.approx(1000 + 9.9 / 25, abs=0.01)


def test_a_gap_in_the_track_is_bridged(kit):
    path = kit.straight(*DOWN, 60)
    path[20:40] = [None] * 20
    scene = kit.Scene([kit.line()])
    scene.walk({1: path})
    assert scene.finish() == [("door", "in")]


def test_a_new_id_continues_a_lost_person(kit):
    path = kit.straight(*DOWN, 60)
    scene = kit.Scene([kit.line()])
    scene.walk({1: path[:25], 2: [None] * 35 + path[35:]})
    assert scene.finish() == [("door", "in")]
    assert scene.events[0].track == 2


def test_without_stitching_the_gap_is_lost(kit):
    path = kit.straight(*DOWN, 60)
    scene = kit.Scene([kit.line()], rules=Rules(StitchRules(gap_s=0.0)))
    scene.walk({1: path[:25], 2: [None] * 35 + path[35:]})
    assert scene.finish() == []


def test_somebody_else_is_not_taken_for_the_lost_person(kit):
    scene = kit.Scene([kit.line()])
    scene.walk(
        {
            1: kit.straight((100, 300), (100, 490), 30),
            2: [None] * 35 + kit.straight((900, 510), (900, 700), 30),
        }
    )
    assert scene.finish() == []


def test_two_lost_people_are_each_continued_by_the_nearest(kit):
    left, right = kit.straight((480, 300), (480, 700), 60), kit.straight((540, 700), (540, 300), 60)
    scene = kit.Scene([kit.line()])
    scene.walk(
        {1: left[:28], 2: right[:28], 3: [None] * 32 + right[32:], 4: [None] * 32 + left[32:]}
    )
    scene.finish()
    assert sorted((e.track, e.direction) for e in scene.events) == [(3, "out"), (4, "in")]


def test_a_false_detection_near_a_lost_person_takes_nothing(kit):
    path = kit.straight(*DOWN, 60)
    path[28:33] = [None] * 5
    ghost = [None] * 28 + [(500, 480)] * 4
    scene = kit.Scene([kit.line()])
    scene.walk({1: path, 2: ghost}, confirmed=lambda track, _f: track == 1)
    assert scene.finish() == [("door", "in")]


def test_an_expected_position_is_no_sighting(kit):
    scene = kit.Scene([kit.line()])
    for point in kit.straight((500, 300), (500, 490), 30):
        scene.step(kit.tracks_at({1: point}))
    for point in kit.straight((500, 500), (500, 560), 40):
        expected = kit.tracks_at({1: point})
        scene.step(replace(expected, scores=np.zeros(1, np.float32)))
        assert scene.counter.visible == 1
    for point in kit.straight((500, 480), (500, 300), 60):
        scene.step(kit.tracks_at({1: point}))
    assert scene.finish() == []


def test_restore_takes_totals_over_and_ignores_strangers(kit):
    scene = kit.Scene([kit.line()], [kit.square()])
    scene.counter.restore(
        {"door": LineTotals(5, 3), "gone": LineTotals(1, 1)}, {"hall": ZoneState(7, 4, 2, 9.0)}
    )
    scene.walk({1: kit.straight(*DOWN, 60)})
    scene.finish()
    assert scene.counter.lines() == {"door": LineTotals(6, 3)}
    hall = scene.counter.zones()["hall"]
    assert (hall.now, hall.entered, hall.left) == (0, 5, 3)


def test_reset_zeroes_totals_but_not_people(kit):
    path = kit.straight(*DOWN, 60)
    scene = kit.Scene([kit.line()])
    for point in path[:31]:
        scene.step(kit.tracks_at({1: point}))
    scene.counter.reset()
    for point in path[31:]:
        scene.step(kit.tracks_at({1: point}))
    assert scene.finish() == [("door", "in")]
    assert scene.counter.lines() == {"door": LineTotals(1, 0)}


def test_forget_survives_ids_that_start_again(kit):
    scene = kit.Scene([kit.line()], rules=Rules(StitchRules(gap_s=0.0)))
    for point in kit.straight((500, 300), (500, 400), 20):
        scene.step(kit.tracks_at({1: point}))
    assert scene.counter.forget() == []
    assert len(scene.counter) == 0
    for point in kit.straight((500, 700), (500, 800), 20):
        scene.step(kit.tracks_at({1: point}))
    assert scene.finish() == []


def test_a_picture_of_another_shape_ends_all_tracks(kit):
    scene = kit.Scene([kit.line()])
    for point in kit.straight((500, 300), (500, 400), 20):
        scene.step(kit.tracks_at({1: point}))
    scene.size = (1000, 500)
    scene.step(kit.tracks_at({1: (500, 400)}))
    assert len(scene.counter) == 1
    assert scene.finish() == []


def test_a_change_of_resolution_does_not_disturb(kit):
    path = kit.straight(*DOWN, 60)
    scene = kit.Scene([kit.line()])
    for point in path[:30]:
        scene.step(kit.tracks_at({1: point}))
    scene.size = (2000, 2000)
    for x, y in path[30:]:
        scene.step(kit.tracks_at({1: (2 * x, 2 * y)}, size=40.0))
    assert scene.finish() == [("door", "in")]


def test_state_is_bounded_by_the_people_in_view(kit):
    scene = kit.Scene([kit.line()], [kit.square()], fps=10)
    most = 0
    for n in range(400):
        here = {n: (500, 100 + n % 800), n + 1: (200, 100 + n % 800)}
        scene.step(kit.tracks_at(here, ended=[n - 1] if n else []))
        most = max(most, len(scene.counter))
    assert most <= 2 + 10 * 2.5  # two in view, and who was lost within the stitching time
    for _ in range(40):
        scene.step(kit.tracks_at({}, ended=[399, 400]))
    assert len(scene.counter) == 0


def test_tracks_that_the_tracker_forgets_to_end_go_in_the_end(kit):
    scene = kit.Scene([kit.line()], fps=1)
    scene.step(kit.tracks_at({1: (1, 1), 2: (900, 900)}, confirmed=lambda t: t == 1))
    for n in range(40):
        scene.step(kit.tracks_at({100 + n: (500, 500)}, ended=[99 + n]))
    assert len(scene.counter) <= 4


def test_more_people_than_there_was_room_for(kit):
    scene = kit.Scene([kit.line()])
    paths = {n: kit.straight((10 * n, 300), (10 * n, 700), 60) for n in range(100)}
    scene.walk(paths)
    scene.finish()
    assert scene.counter.lines() == {"door": LineTotals(100, 0)}


def test_events_of_one_frame_are_in_order_of_time(kit):
    scene = kit.Scene([kit.line(), kit.line((0.0, 0.4), (1.0, 0.4), name="before")], fps=5)
    scene.walk({1: [(500, 300), (500, 700)], 2: [(400, 700), (400, 300)]})
    events = scene.counter.finish()
    assert [e.ts for e in events] == sorted(e.ts for e in events)
    assert len(events) == 4


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(min_value=0, max_value=2**32 - 1))
def test_the_order_of_tracks_does_not_matter(kit, seed):
    rng = np.random.default_rng(seed)
    ways = (
        rng.normal(0, 30, (6, 40, 2)).cumsum(axis=1) + rng.uniform(200, 800, (6, 1, 2))
    ).tolist()

    def run(shuffle):
        scene = kit.Scene([kit.line()], [kit.square()], fps=10)
        for frame in range(40):
            tracks = kit.tracks_at({n: tuple(w[frame]) for n, w in enumerate(ways)})
            order = shuffle(len(tracks))
            scene.step(
                Tracks(
                    tracks.ids[order],
                    tracks.boxes[order],
                    tracks.scores[order],
                    tracks.classes[order],
                    tracks.confirmed[order],
                    tracks.ended,
                )
            )
        scene.finish()
        return [(e.kind, e.name, e.direction, e.track, round(e.ts, 6)) for e in scene.events]

    assert run(np.arange) == run(rng.permutation)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(min_value=0, max_value=2**32 - 1))
def test_many_people_count_like_each_of_them_alone(kit, seed):
    rng = np.random.default_rng(seed)
    ways = (
        rng.normal(0, 30, (5, 40, 2)).cumsum(axis=1) + rng.uniform(200, 800, (5, 1, 2))
    ).tolist()
    rules = Rules.for_perfect_tracks()
    together = kit.Scene([kit.line()], [kit.square()], fps=10, rules=rules)
    together.walk({n: [tuple(p) for p in w] for n, w in enumerate(ways)})
    together.finish()
    alone = []
    for n, way in enumerate(ways):
        scene = kit.Scene([kit.line()], [kit.square()], fps=10, rules=rules)
        scene.walk({n: [tuple(p) for p in way]})
        scene.finish()
        alone += scene.events
    key = [(e.kind, e.name, e.direction, e.track, round(e.ts, 6)) for e in together.events]
    assert sorted(key) == sorted(
        (e.kind, e.name, e.direction, e.track, round(e.ts, 6)) for e in alone
    )
