from hypothesis import given
from hypothesis import strategies as st

from edgecount.capture._backoff import Backoff


def test_bounds_double_up_to_the_cap() -> None:
    backoff = Backoff(base=0.5, cap=2.0, uniform=lambda: 1.0)
    assert [backoff.next() for _ in range(5)] == [0.5, 1.0, 2.0, 2.0, 2.0]


def test_reset_starts_over() -> None:
    backoff = Backoff(base=0.5, cap=2.0, uniform=lambda: 1.0)
    backoff.next()
    backoff.next()
    backoff.reset()
    assert backoff.next() == 0.5


@given(st.floats(0.0, 1.0), st.integers(0, 2000))
def test_a_wait_is_never_longer_than_the_cap(chance: float, failures: int) -> None:
    backoff = Backoff(uniform=lambda: chance)
    waits = [backoff.next() for _ in range(failures)]
    assert all(0.0 <= wait <= 2.0 for wait in waits)


def test_waits_are_spread_from_nothing_to_the_bound() -> None:
    assert Backoff(uniform=lambda: 0.0).next() == 0.0
    assert Backoff(base=0.5, uniform=lambda: 0.5).next() == 0.25
