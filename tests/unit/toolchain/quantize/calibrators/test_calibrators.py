"""Each calibrator against results worked out by hand."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgecount import discovery
from edgecount.toolchain.quantize import calibrate
from edgecount.toolchain.quantize.calibrators import entropy, minmax, percentile
from edgecount.toolchain.quantize.histogram import Histogram


def histogram(counts, width=0.5, smallest=0.0, largest=None):
    counts = np.array(counts, np.int64)
    largest = len(counts) * width if largest is None else largest
    return Histogram("t", counts, width, 0.0, smallest, largest)


def clip(name, seen, **options):
    return calibrate.create(name, options).clip(seen)


class TestEntropy:
    # Two levels. The first bin counts as the second: 4 4 4 0 1, 13 in all.
    COUNTS = (9, 4, 4, 0, 1)

    def test_divergences_by_hand(self):
        counts = np.array([4, 4, 4, 0, 1])
        found = entropy.divergences(counts, np.array([2, 3, 4, 5]), levels=2)
        # 2 bins kept: P = 4 9, Q = 4 4.
        two = 4 / 13 * math.log(8 / 13) + 9 / 13 * math.log(18 / 13)
        # 3 kept: P = 4 4 5; levels {4} {4 4} give Q = 4 4 4.
        three = 8 / 13 * math.log(12 / 13) + 5 / 13 * math.log(15 / 13)
        # 4 kept: the clipped value falls into an empty bin. 5 kept: P = 4 4 4 0 1, and levels
        # {4 4} {4 0 1} give Q = 4 4 2.5 0 2.5.
        five = 4 / 13 * math.log(1.6) + 1 / 13 * math.log(0.4)
        assert found == pytest.approx([two, three, math.inf, five])

    def test_clips_where_the_divergence_is_least(self):
        seen = histogram(self.COUNTS, width=2.0)
        # Three bins are kept, plus half of one, as in the talk.
        assert clip("entropy", seen, levels=2) == pytest.approx(3.5 * 2.0)

    def test_zeros_do_not_count(self):
        few, many = (histogram((zeros, *self.COUNTS[1:])) for zeros in (0, 10**9))
        assert clip("entropy", few, levels=2) == clip("entropy", many, levels=2)

    def test_of_equal_divergences_the_least_clipping(self):
        # Flat: every cut by a whole number of levels loses the same, but only all keep all.
        assert clip("entropy", histogram([5] * 8, width=1.0), levels=2) == 8.0

    def test_finer_bins_are_added_up_in_pairs(self):
        # In pairs they are COUNTS; 2.0 wide, three of them and a half are kept.
        fine = histogram((9, 0, 1, 3, 0, 4, 0, 0, 0, 1), width=1.0)
        assert clip("entropy", fine, levels=2, bins=5) == pytest.approx(7.0)

    def test_an_odd_bin_is_left_alone(self):
        fine = histogram((9, 0, 1, 3, 0, 4, 0, 0, 1), width=1.0)
        assert clip("entropy", fine, levels=2, bins=5) == pytest.approx(7.0)

    def test_never_above_the_peak(self):
        assert clip("entropy", histogram([5] * 8, width=1.0, largest=7.2), levels=2) == 7.2

    def test_fewer_bins_than_levels_are_kept_whole(self):
        assert clip("entropy", histogram([3, 2, 1], largest=1.25)) == 1.25

    def test_a_far_outlier_is_clipped_and_a_normal_tail_hardly(self):
        values = np.abs(np.random.default_rng(0).normal(size=200_000))
        counts = np.histogram(values, 2000, (0, 20.0))[0]
        counts[-1] += 1
        chosen = clip("entropy", histogram(counts, width=0.01))
        assert 2.5 < chosen < 5.0

    @given(
        st.lists(st.integers(0, 50), min_size=5, max_size=40).filter(any),
        st.integers(2, 5),
    )
    def test_agrees_with_the_definition(self, counts, levels):
        counts = np.array(counts)
        kept = np.arange(levels, len(counts) + 1)
        expected = [defined(counts, int(bins), levels) for bins in kept]
        found = entropy.divergences(counts, kept, levels)
        assert found == pytest.approx(expected, abs=1e-9)


def defined(counts, bins, levels):
    """The divergence, step by step as the talk's pseudo-code."""
    reference = counts[:bins].astype(float)
    kept = reference.copy()
    reference[-1] += counts[bins:].sum()
    quantised = np.zeros(bins)
    for level in range(levels):
        part = slice(level * bins // levels, (level + 1) * bins // levels)
        filled = kept[part] > 0
        if filled.any():
            quantised[part][filled] = kept[part].sum() / filled.sum()
    there = reference > 0
    if not kept.any() or (quantised[there] == 0).any():
        return math.inf
    p, q = reference[there] / reference.sum(), quantised[there] / quantised.sum()
    return float((p * np.log(p / q)).sum())


class TestPercentile:
    def test_by_hand(self):
        # 90 + 9 of 100 values lie below 1.0.
        assert clip("percentile", histogram([90, 9, 1]), percentile=99.0) == pytest.approx(1.0)

    def test_within_a_bin_values_are_spread_evenly(self):
        assert clip("percentile", histogram([90, 10]), percentile=95.0) == pytest.approx(0.75)

    def test_all_of_them_is_the_peak(self):
        assert clip("percentile", histogram([90, 10], largest=0.9), percentile=100.0) == 0.9

    def test_999_per_mille_unless_told_otherwise(self):
        assert clip("percentile", histogram([999, 1])) == pytest.approx(0.5)

    @given(st.lists(st.floats(0.01, 100), min_size=1, max_size=50), st.floats(1, 100))
    def test_keeps_so_many(self, values, per_cent):
        counts = np.histogram(values, 100, (0, 100))[0]
        seen = histogram(np.trim_zeros(counts, "b"), 1.0, largest=max(values))
        found = clip("percentile", seen, percentile=per_cent)
        below = (np.array(values) < found + 1.0).mean()
        assert below >= per_cent / 100 - 1e-9
        assert 0 < found <= seen.peak


class TestMinMax:
    def test_the_greater_of_both_sides(self):
        assert clip("minmax", histogram([1, 1], smallest=-0.9, largest=0.7)) == 0.9
        assert clip("minmax", histogram([1, 1], smallest=-0.1, largest=0.7)) == 0.7


@pytest.mark.parametrize("name", discovery.names(calibrate.PACKAGE))
class TestEveryCalibrator:
    @given(st.lists(st.integers(0, 1000), min_size=1, max_size=300), st.floats(1e-6, 1e6))
    def test_is_above_zero_and_not_above_the_peak(self, name, counts, width):
        counts = [*counts, 1]
        seen = histogram(counts, width, largest=(len(counts) - 0.5) * width)
        assert 0 < clip(name, seen) <= seen.peak


def test_files_are_the_calibrators():
    assert discovery.names(calibrate.PACKAGE) == ["entropy", "minmax", "percentile"]
    assert all(m.Options().model_config["extra"] == "forbid" for m in (entropy, minmax, percentile))
