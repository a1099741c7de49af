import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as npst

from edgecount.toolchain.quantize.histogram import Magnitudes

FLOATS = st.floats(-1e6, 1e6, width=32)
ARRAYS = npst.arrays(np.float32, st.integers(1, 60), elements=FLOATS)


def counted(*pieces, bins=16):
    magnitudes = Magnitudes(bins)
    for piece in pieces:
        magnitudes.add(np.asarray(piece, np.float32))
    return magnitudes


def test_bins_by_hand():
    # The peak 3.5 is below 4 = 2², so eight bins are 0.5 wide.
    found = counted([0, 0.4, -0.5, 1.0, 3.5, -3.49], bins=8).histogram("t")
    assert found.width == 0.5
    assert found.counts.tolist() == [2, 1, 1, 0, 0, 0, 1, 1]
    assert (found.smallest, found.largest, found.peak) == (np.float32(-3.49), 3.5, 3.5)
    assert found.tensor == "t"
    assert found.amax == 0.0


def test_a_larger_value_doubles_the_bins_until_it_has_one():
    found = counted([0.1, 0.6, 1.1, 1.9], [9.0], bins=4).histogram("t")
    assert found.width == 4.0
    assert found.counts.tolist() == [4, 0, 1]


def test_a_power_of_two_lies_in_the_bin_that_begins_there():
    assert counted([4.0], bins=8).histogram("t").counts.tolist() == [0, 0, 0, 0, 1]


def test_zeros_are_counted_and_need_no_range():
    found = counted(np.zeros((2, 3, 4)), bins=4).histogram("t")
    assert found.counts.tolist() == [24]
    assert found.peak == 0.0


def test_a_piece_of_zeros_does_not_widen_the_bins():
    assert counted([0.0], [0.25]).histogram("t").width == counted([0.0, 0.25]).histogram("t").width


def test_nothing_seen_is_nothing():
    assert Magnitudes().histogram("t") is None
    empty = Magnitudes()
    empty.add(np.empty((0, 3), np.float32))
    assert empty.histogram("t") is None


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused_and_not_counted(bad):
    magnitudes = counted([1.0, 2.0])
    with pytest.raises(FloatingPointError):
        magnitudes.add(np.array([1.0, bad], np.float32))
    assert magnitudes.histogram("t").counts.sum() == 2


def test_more_values_than_fit_a_float32_count():
    many = np.full((1 << 24) + 3, 1.5, np.float32)
    assert counted(many).histogram("t").counts.sum() == (1 << 24) + 3


@given(st.lists(ARRAYS, min_size=1, max_size=5), st.randoms())
def test_order_pieces_and_threads_do_not_matter(pieces, random):
    whole = counted(np.concatenate(pieces)).histogram("t")
    random.shuffle(pieces)
    first, second = counted(*pieces[::2]), counted(*pieces[1::2])
    first.merge(second)
    merged = first.histogram("t")
    assert merged.counts.tolist() == whole.counts.tolist()
    assert (merged.width, merged.smallest, merged.largest) == (
        whole.width,
        whole.smallest,
        whole.largest,
    )


@given(ARRAYS)
def test_agrees_with_numpy(values):
    found = counted(values).histogram("t")
    edges = np.arange(len(found.counts) + 1) * found.width
    expected, _ = np.histogram(np.abs(values.astype(np.float64)), edges)
    # numpy closes the last bin on the right; a magnitude there would have a bin of its own.
    assert found.counts.tolist() == expected.tolist()
    assert found.counts[-1] > 0
