import numpy as np
import pytest

from edgecount.count.roster import Roster, Sighting, StitchRules


def _sighting(time, x, y=0.5, size=0.05):
    return Sighting(time, np.array([x, y]), size)


def _roster(**rules):
    return Roster(StitchRules(**rules), capacity=2)


def _lose(roster, track, x, time=0.0, size=0.05):
    """Somebody who stands at x and is given up."""
    ((row, stitched),) = roster.place([(track, _sighting(time, x, size=size))]).values()
    roster.end(np.array([track]))
    return row, stitched


def test_a_row_is_taken_over_by_a_successor_near_by():
    roster = _roster()
    row, stitched = _lose(roster, 1, 0.5)
    assert not stitched
    assert roster.place([(2, _sighting(1.0, 0.52))]) == {2: (row, True)}
    assert roster.rows(np.array([1, 2])).tolist() == [-1, row]


@pytest.mark.parametrize(
    ("time", "x", "size"),
    [(2.1, 0.5, 0.05), (1.0, 0.61, 0.05), (1.0, 0.5, 0.1), (0.0, 0.5, 0.05)],
    ids=["too late", "too far", "too large", "at the same time"],
)
def test_others_get_a_row_of_their_own(time, x, size):
    roster = _roster()
    row, _ = _lose(roster, 1, 0.5)
    ((new, stitched),) = roster.place([(2, _sighting(time, x, size=size))]).values()
    assert not stitched
    assert new != row


def test_the_lost_are_expected_where_their_speed_takes_them():
    roster = _roster(reach=0.5, reach_per_s=0.0)
    ((row, _),) = roster.place([(1, _sighting(0.0, 0.1))]).values()
    for n in range(1, 11):
        roster.move(np.array([row]), np.array([[0.1 + 0.02 * n, 0.5]]), np.array([0.05]), n / 10)
    roster.end(np.array([1]))
    assert roster.place([(2, _sighting(2.0, 0.3))])[2][1] is False
    assert roster.place([(3, _sighting(2.0, 0.5))]) == {3: (row, True)}


def test_each_row_goes_to_the_nearest_and_ties_to_the_lower_id():
    roster = _roster()
    first, _ = _lose(roster, 1, 0.50)
    second, _ = _lose(roster, 2, 0.54)
    arrivals = [(4, _sighting(1.0, 0.535)), (3, _sighting(1.0, 0.51))]
    assert roster.place(arrivals) == {3: (first, True), 4: (second, True)}
    other = _roster()
    only, _ = _lose(other, 1, 0.50)
    placed = other.place([(9, _sighting(1.0, 0.5)), (7, _sighting(1.0, 0.5))])
    assert placed[7] == (only, True)
    assert placed[9][1] is False


def test_rows_are_freed_and_used_again():
    roster = _roster(gap_s=1.0)
    row, _ = _lose(roster, 1, 0.5)
    assert roster.overdue(0.9) == []
    assert roster.overdue(1.1) == [row]
    roster.close(row)
    assert len(roster) == 0
    assert roster.place([(2, _sighting(5.0, 0.9))]) == {2: (row, False)}


def test_the_roster_grows():
    roster = _roster()
    placed = roster.place([(n, _sighting(0.0, n / 100)) for n in range(20)])
    assert sorted(row for row, _ in placed.values()) == list(range(20))
    assert roster.capacity == 32
    assert roster.rows(np.arange(20)).tolist() == [placed[n][0] for n in range(20)]


def test_sightings_of_tentative_tracks_wait_and_are_dropped_in_the_end():
    roster = _roster()
    for n in range(100):
        roster.wait(1, _sighting(n / 10, 0.5))
    roster.wait(2, _sighting(9.0, 0.5))
    assert len(roster) == 2
    assert len(roster.waited(1)) <= 64
    assert roster.waited(1) == []
    roster.forget_stale(100.0)
    assert len(roster) == 0
