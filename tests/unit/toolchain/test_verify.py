from hypothesis import given
from hypothesis import strategies as st

from edgecount.toolchain.verify import compare


def test_presses_and_events_are_matched_in_time() -> None:
    result = compare({"in": [10.0, 20.0, 30.0]}, {"in": [11.0, 21.5, 50.0]}, 3.0)
    assert result["in"].missed == (30.0,)
    assert result["in"].extra == (50.0,)
    assert (result["in"].by_hand, result["in"].counted) == (3, 3)
    assert round(result["in"].accuracy, 3) == 0.333
    assert result["out"].accuracy == 1.0


def test_two_events_for_one_press_are_one_too_many() -> None:
    assert len(compare({"in": [10.0]}, {"in": [9.5, 10.5]}, 3.0)["in"].extra) == 1


def test_counting_where_nothing_happened_is_no_success() -> None:
    assert compare({}, {"in": [1.0]}, 3.0)["in"].accuracy == 0.0


@given(st.lists(st.floats(0, 100)), st.lists(st.floats(0, 100)))
def test_every_press_and_every_event_is_accounted_for(presses: list, events: list) -> None:
    result = compare({"out": presses}, {"out": events}, 2.0)["out"]
    matched = result.by_hand - len(result.missed)
    assert matched == result.counted - len(result.extra)
    assert 0.0 <= result.accuracy <= 1.0
