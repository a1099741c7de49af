import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecount.capture._decimate import Decimator


def kept(max_fps: float, times: "list[float]") -> "list[float]":
    decimator = Decimator(max_fps)
    return [t for t in times if decimator.keep(t)]


def test_none_keeps_all() -> None:
    decimator = Decimator(None)
    assert all(decimator.keep(i / 30) for i in range(100))


@pytest.mark.parametrize(("source", "limit"), [(30, 10), (25, 5), (15, 10), (50, 30)])
def test_keeps_the_rate_without_drift(source: int, limit: int) -> None:
    times = [i / source for i in range(source * 60)]
    assert len(kept(limit, times)) == pytest.approx(limit * 60, abs=2)


def test_a_limit_above_the_rate_keeps_every_frame_despite_jitter() -> None:
    jitter = random.Random(1)
    times = [i / 25 + jitter.uniform(-0.008, 0.008) for i in range(1, 1000)]
    assert len(kept(25.0, times)) == len(times)


def test_after_a_gap_frames_are_not_made_up_for() -> None:
    decimator = Decimator(10.0)
    assert decimator.keep(0.0)
    assert decimator.keep(5.0)
    assert [decimator.keep(5.0 + i * 0.02) for i in range(1, 6)].count(True) <= 1


def test_reset_keeps_the_next_frame() -> None:
    decimator = Decimator(1.0)
    assert decimator.keep(100.0)
    decimator.reset()
    assert decimator.keep(0.0)


@given(st.lists(st.floats(0.001, 2.0), min_size=1, max_size=200), st.floats(0.5, 60.0))
def test_never_more_than_the_limit_in_the_long_run(gaps: "list[float]", limit: float) -> None:
    now, times = 0.0, []
    for gap in gaps:
        now += gap
        times.append(now)
    assert len(kept(limit, times)) <= (times[-1] - times[0]) * limit + 1.5
