import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecount.config import PlaceSettings
from edgecount.count.occupancy import Places
from edgecount.count.totals import PlaceTotals
from edgecount.errors import ConfigError
from edgecount.records import CountEvent


def _event(line, direction, camera="door", kind="line"):
    return CountEvent(kind, camera, line, direction, 1, 0, 0.0)


def _places():
    hall = PlaceSettings.model_validate({"in": ["door.entrance"], "out": ["gate.exit"]})
    lobby = PlaceSettings.model_validate({"in": ["door.entrance"]})
    return Places({"hall": hall, "lobby": lobby})


def test_a_line_counts_into_every_place_that_names_it():
    places = _places()
    touched = places.apply([_event("entrance", "in"), _event("entrance", "in")])
    assert touched["hall"] == touched["lobby"] == PlaceTotals(2, 2, 0, 2)


def test_a_line_named_under_out_leaves_when_crossed_inwards():
    places = _places()
    places.apply([_event("entrance", "in"), _event("exit", "in", "gate")])
    assert places.totals()["hall"] == PlaceTotals(0, 1, 1, 1)
    assert places.totals()["lobby"] == PlaceTotals(1, 1, 0, 1)


def test_occupancy_is_never_negative_but_the_exit_counts():
    places = _places()
    places.apply([_event("entrance", "out"), _event("entrance", "in")])
    assert places.totals()["lobby"] == PlaceTotals(1, 1, 1, 1)


def test_other_events_touch_nothing():
    places = _places()
    events = [_event("hall", "entered", kind="zone"), _event("other", "in"), _event("exit", "in")]
    assert places.apply(events) == {}


def test_set_corrects_occupancy_and_raises_the_peak():
    places = _places()
    places.apply([_event("entrance", "in")])
    assert places.set("hall", 5) == PlaceTotals(5, 1, 0, 5)
    assert places.set("hall", 0) == PlaceTotals(0, 1, 0, 5)


def test_set_refuses_what_cannot_be():
    with pytest.raises(ConfigError, match=r"no place 'halls' \(places: hall, lobby\)"):
        _places().set("halls", 1)
    with pytest.raises(ConfigError, match="0 or more"):
        _places().set("hall", -1)


def test_restore_and_reset():
    places = _places()
    places.restore({"hall": PlaceTotals(3, 9, 6, 4), "gone": PlaceTotals(1, 1, 1, 1)})
    assert places.totals() == {"hall": PlaceTotals(3, 9, 6, 4), "lobby": PlaceTotals()}
    assert places.reset() == {"hall": PlaceTotals(), "lobby": PlaceTotals()}


@given(st.lists(st.tuples(st.sampled_from(["entrance", "exit"]), st.sampled_from(["in", "out"]))))
def test_bounds_hold_after_any_events(crossings):
    places = _places()
    for line, direction in crossings:
        places.apply([_event(line, direction, "door" if line == "entrance" else "gate")])
        for totals in places.totals().values():
            assert 0 <= totals.occupancy <= totals.peak <= totals.into
            assert totals.occupancy >= totals.into - totals.out
