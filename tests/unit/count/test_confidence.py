import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecount.count.confidence import ErrorForecast, allowed_errors

RATES = {"crossed": 0.01, "lost": 0.5, "appeared": 0.0, "stitched": 0.0, "unfinished": 0.0}


def test_a_minute_without_traces_is_good():
    confidence = ErrorForecast().at(100.0)
    assert (confidence.expected_errors, confidence.allowed, confidence.probability) == (0, 1, 1.0)
    assert confidence.good


def test_traces_add_up_and_doubt_grows():
    forecast = ErrorForecast(miscounts=RATES)
    forecast.note("crossed", 1.0, 20)
    assert forecast.at(2.0).expected_errors == pytest.approx(0.2)
    assert forecast.at(2.0).good
    forecast.note("lost", 3.0, 3)
    confidence = forecast.at(4.0)
    assert confidence.expected_errors == pytest.approx(1.7)
    assert confidence.probability == pytest.approx(np.exp(-1.7) * 2.7)
    assert not confidence.good


def test_traces_leave_the_window():
    forecast = ErrorForecast(window_s=60.0, miscounts=RATES)
    forecast.note("lost", 0.0, 9)
    assert not forecast.at(59.9).good
    assert forecast.at(60.0).expected_errors == 0.0


def test_a_busy_minute_may_have_more_errors():
    assert [allowed_errors(n) for n in (0, 20, 39, 40, 100)] == [1, 1, 1, 2, 5]


@given(st.lists(st.sampled_from(sorted(RATES)), max_size=80))
def test_probability_is_one_and_another_doubt_never_raises_it(traces):
    forecast = ErrorForecast()
    for trace in traces:
        forecast.note(trace, 1.0)
    before = forecast.at(1.0)
    forecast.note("lost", 1.0)
    after = forecast.at(1.0)
    assert 0.0 <= after.probability <= before.probability <= 1.0


def test_a_person_lost_beside_a_line_casts_doubt(kit):
    scene = kit.Scene([kit.line()])
    scene.walk({n: kit.straight((200 * n, 300), (200 * n, 480), 30) for n in range(1, 5)})
    for _ in range(80):
        scene.step(kit.tracks_at({}))
    assert not scene.counter.confidence().good


def test_people_who_walk_through_and_out_cast_none(kit):
    scene = kit.Scene([kit.line()])
    scene.walk({n: kit.straight((200 * n, 5), (200 * n, 995), 90) for n in range(1, 5)})
    for _ in range(80):
        scene.step(kit.tracks_at({}))
    confidence = scene.counter.confidence()
    assert confidence.good
    assert confidence.expected_errors == pytest.approx(4 * 0.012)


def test_people_lost_far_from_any_line_cast_none(kit):
    scene = kit.Scene([kit.line()])
    scene.walk({n: kit.straight((200 * n, 200), (200 * n, 350), 30) for n in range(1, 5)})
    for _ in range(80):
        scene.step(kit.tracks_at({}))
    assert scene.counter.confidence().expected_errors == 0.0
