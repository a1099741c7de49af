from typing import List

from hypothesis import given
from hypothesis import strategies as st

from edgecount.config import CameraSettings, PlaceSettings, ZoneSettings
from edgecount.count.crowding import CrowdAlarm, Crowding, Witnesses

HALL = ZoneSettings(name="hall", polygon=[(0, 0), (1, 0), (1, 1)], max_occupancy=2, crowded_s=3)
DOOR = CameraSettings(name="door", source="usb:0", zones=[HALL])


def states(alarm: CrowdAlarm, people: List[int]) -> List[bool]:
    return [alarm.update(n, float(second)) for second, n in enumerate(people)]


def test_too_many_must_last() -> None:
    assert states(CrowdAlarm(10, 3.0), [11, 11, 11, 11]) == [False, False, False, True]
    assert not any(states(CrowdAlarm(10, 3.0), [11, 11, 10, 11, 11, 10, 11]))


def test_the_limit_itself_is_allowed() -> None:
    assert not any(states(CrowdAlarm(10, 0.0), [10] * 10))


def test_it_ends_when_it_is_clear_for_as_long() -> None:
    alarm = CrowdAlarm(10, 2.0)
    states(alarm, [20, 20, 20])
    assert alarm.crowded
    assert states(alarm, [10, 10, 10, 10]) == [True] * 4  # within the limit, and close to it
    assert [alarm.update(9, t) for t in (10.0, 11.0, 12.0)] == [True, True, False]


def test_without_a_time_it_changes_at_once() -> None:
    assert states(CrowdAlarm(10, 0.0), [11, 9, 11]) == [True, False, True]


@given(st.lists(st.integers(0, 30), max_size=100), st.floats(0, 10))
def test_it_never_changes_faster_than_its_time(people: List[int], hold_s: float) -> None:
    alarm, changed_at = CrowdAlarm(10, hold_s), float("-inf")
    before = False
    for second, n in enumerate(people):
        now = alarm.update(n, float(second))
        if now != before:
            assert second - changed_at >= hold_s
            changed_at = float(second)
        before = now


def test_places_and_zones_with_a_limit_are_watched() -> None:
    places = {"shop": PlaceSettings(max_occupancy=5, crowded_s=1), "free": PlaceSettings()}
    crowding = Crowding(places, [DOOR])
    changed = [
        crowding.update({("door", "hall"): 3}, {"shop": 6, "free": 99}, float(t)) for t in range(4)
    ]
    assert changed == [[], ["shop"], [], []]
    assert crowding.place("shop") is True
    assert crowding.place("free") is None
    assert crowding.zones("door") == {"hall": True}
    assert crowding.zones("other") == {}


def test_a_witness_raises_and_never_lowers() -> None:
    witnesses = Witnesses({"shop": PlaceSettings(witness=["door.hall", "gate.hall"])})
    heads = {("door", "hall"): 3, ("gate", "hall"): 2}
    assert [witnesses.update(heads, {"shop": 1}, float(t)) for t in range(6)] == [
        {}, {}, {}, {}, {}, {"shop": 5},
    ]  # fmt: skip
    assert all(witnesses.update(heads, {"shop": 9}, 10.0 + t) == {} for t in range(20))


def test_a_witness_believes_the_least_that_it_saw() -> None:
    witnesses = Witnesses({"shop": PlaceSettings(witness=["door.hall"])})
    seen = [4, 3, 9, 4, 4, 4]
    told = [
        witnesses.update({("door", "hall"): n}, {"shop": 1}, float(t)) for t, n in enumerate(seen)
    ]
    assert told[-1] == {"shop": 3}
    flicker = [5, 1, 5, 1, 5, 1, 5, 1]
    told = [
        witnesses.update({("door", "hall"): n}, {"shop": 1}, 99.0 + t)
        for t, n in enumerate(flicker)
    ]
    assert told == [{}] * 8
