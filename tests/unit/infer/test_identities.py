import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from edgecount.infer.identities import Alive, Identities
from edgecount.records import Tracks


def tracks(*rows, ended=()):
    """Rows of (id, x, confirmed[, class]): a box of 20 × 20 pixels at x."""
    boxes = np.array([[x, 0, x + 20, 20] for _, x, *_ in rows], np.float32).reshape(-1, 4)
    return Tracks(
        np.array([r[0] for r in rows], np.int64),
        boxes,
        np.full(len(rows), 0.9, np.float32),
        np.array([r[3] if len(r) > 3 else 0 for r in rows], np.int32),
        np.array([r[2] for r in rows], np.bool_),
        np.array(ended, np.int64),
    )


def after(last, next_id):
    """Identities after an old tracker whose last frame was ``last``."""
    alive = Alive()
    alive.update(last)
    alive.next_id = next_id
    return Identities(alive)


def shown(found):
    return [
        (int(i), float(b[0]), bool(c)) for i, b, c in zip(found.ids, found.boxes, found.confirmed)
    ]


def test_who_stays_keeps_the_id_and_is_confirmed_as_before():
    identities = after(tracks((3, 0, True), (7, 100, False)), 20)
    found = identities.translate(tracks((1, 104, False), (2, 3, False)), 0.0)
    assert shown(found) == [(3, 3.0, True), (7, 104.0, False)]
    assert found.ended.tolist() == []


def test_who_is_new_gets_an_id_that_was_never_used():
    identities = after(tracks((3, 0, True)), 20)
    first = identities.translate(tracks((1, 2, False), (2, 300, False)), 0.0)
    assert first.ids.tolist() == [3, 20]
    later = identities.translate(tracks((1, 4, True), (2, 302, True), (3, 500, False)), 0.1)
    assert later.ids.tolist() == [3, 20, 21]


def test_of_two_that_overlap_the_better_one_keeps_the_id():
    identities = after(tracks((3, 0, True)), 20)
    found = identities.translate(tracks((1, 8, False), (2, 1, False)), 0.0)
    assert shown(found) == [(3, 1.0, True), (20, 8.0, False)]


def test_another_class_is_another_object():
    identities = after(tracks((3, 0, True, 1)), 20)
    assert identities.translate(tracks((1, 0, False, 0)), 0.0).ids.tolist() == [20]


def test_who_is_found_a_little_later_is_still_the_same():
    identities = after(tracks((3, 0, True)), 20)
    assert identities.translate(tracks(), 0.0).ended.tolist() == []
    assert identities.translate(tracks((1, 5, False)), 0.5).ids.tolist() == [3]


def test_who_is_not_found_again_ends_after_a_second():
    identities = after(tracks((3, 0, True), (4, 100, True)), 20)
    identities.translate(tracks((1, 101, False)), 10.0)
    assert identities.translate(tracks((1, 101, True)), 10.9).ended.tolist() == []
    assert identities.translate(tracks((1, 101, True)), 11.0).ended.tolist() == [3]
    assert identities.translate(tracks((1, 101, True), (2, 0, True)), 11.1).ids.tolist() == [4, 20]


def test_who_was_hidden_at_the_change_keeps_the_id_or_ends():
    alive = Alive()
    alive.update(tracks((1, 0, True), (2, 100, True), (3, 200, True)))
    alive.update(tracks((1, 2, True), ended=(3,)))
    assert sorted(alive.tracks) == [1, 2]
    assert alive.next_id == 4
    identities = Identities(alive)
    assert identities.translate(tracks((1, 102, False)), 0.0).ids.tolist() == [2]
    assert identities.translate(tracks((1, 104, False)), 1.0).ended.tolist() == [1]


def test_who_walks_farther_than_a_box_between_two_frames_keeps_the_id():
    alive = Alive()
    for step in range(3):
        alive.update(tracks((1, 30 * step, True), (2, 300, True)), 0.2 * step)
    identities = Identities(alive)
    # One frame was lost in the change: from 60 to 120 pixels in 0.4 s.
    found = identities.translate(tracks((8, 120, False), (9, 301, False)), 0.8)
    assert shown(found) == [(1, 120.0, True), (2, 301.0, True)]


def test_who_stops_at_the_change_keeps_the_id_all_the_same():
    alive = Alive()
    alive.update(tracks((1, 0, True)), 0.0)
    alive.update(tracks((1, 30, True)), 0.2)
    assert Identities(alive).translate(tracks((5, 31, False)), 0.4).ids.tolist() == [1]


def test_nobody_is_looked_for_farther_ahead_than_a_second():
    alive = Alive()
    alive.update(tracks((1, 0, True)), 0.0)
    alive.update(tracks((1, 10, True)), 0.1)
    assert Identities(alive).translate(tracks((5, 110, False)), 5.0).ids.tolist() == [1]
    assert Identities(alive).translate(tracks((5, 500, False)), 5.0).ids.tolist() == [2]


def test_ends_of_the_new_tracker_are_told_under_the_ids_in_use():
    identities = after(tracks((3, 0, True)), 20)
    identities.translate(tracks((1, 2, False)), 0.0)
    assert identities.translate(tracks(ended=(1, 9)), 0.1).ended.tolist() == [3]


@settings(max_examples=60, deadline=None)
@given(
    old=st.lists(st.integers(0, 40), max_size=8),
    frames=st.lists(st.lists(st.integers(0, 40), max_size=8), min_size=1, max_size=6),
)
def test_ids_are_unique_rising_and_never_used_twice(old, frames):
    identities = after(tracks(*((n + 1, 15 * x, True) for n, x in enumerate(old))), 50)
    owners = {}
    for frame, places in enumerate(frames):
        # The new tracker numbers by place, so the same raw id is the same object.
        rows = [(100 + x, 15 * x, True) for x in sorted(set(places))]
        found = identities.translate(tracks(*rows), 0.2 * frame)
        assert len(found) == len(rows)
        assert (np.diff(found.ids) > 0).all()
        for number, box in zip(found.ids.tolist(), found.boxes):
            assert owners.setdefault(number, float(box[0])) == float(box[0])
