import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecount.observe.rates import RateMeter


def fed(fps, seconds, start=100.0):
    meter = RateMeter()
    ticks = [start + i / fps for i in range(int(seconds * fps) + 1)]
    for tick in ticks:
        meter.tick(tick)
    return meter, ticks[-1]


@given(fps=st.floats(2.0, 200.0), late=st.floats(0.0, 0.9))
def test_a_steady_rate_is_read_exactly_whenever_it_is_asked(fps, late):
    meter, last = fed(fps, 20)
    now = last + late / fps
    assert meter.fps(now) == pytest.approx(fps, rel=1e-3)
    assert meter.fluctuation(now) < 1e-6


def test_nothing_is_known_before_frames_come():
    meter = RateMeter()
    assert meter.fps(5.0) == 0.0
    assert meter.fluctuation(5.0) is None
    meter.tick(5.0)
    assert meter.fps(5.0) == 0.0


def test_the_rate_falls_when_frames_stop_and_ends_at_zero():
    meter, last = fed(25, 20)
    rates = [meter.fps(last + s) for s in (0.0, 1.0, 3.0, 4.9)]
    assert rates == sorted(rates, reverse=True)
    assert rates[1] < 25
    assert meter.fps(last + 6.0) == 0.0


def test_fluctuation_needs_ten_seconds():
    meter, last = fed(25, 9)
    assert meter.fluctuation(last) is None
    meter, last = fed(25, 11)
    assert meter.fluctuation(last) is not None


def test_a_stutter_is_a_fluctuation():
    meter = RateMeter()
    now = 0.0
    for second in range(12):
        for _ in range(25 if second % 2 else 20):
            now += 1 / (25 if second % 2 else 20)
            meter.tick(now)
    assert meter.fluctuation(now) == pytest.approx(2.5 / 22.5, rel=0.15)


def test_jitter_of_single_frames_is_none():
    meter = RateMeter()
    jitter = random.Random(7)
    for i in range(500):
        meter.tick(i / 25 + jitter.uniform(0.0, 0.004))
    assert meter.fluctuation(499 / 25 + 0.004) < 0.01


def test_a_gap_counts_as_zero_rate():
    meter = RateMeter()
    for i in range(500):
        if not 300 < i < 360:
            meter.tick(i / 25)
    assert meter.fluctuation(20.0) > 0.2


def test_memory_is_bounded():
    meter, _ = fed(100, 60)
    assert len(meter._ticks) <= 11 * 100 + 2
