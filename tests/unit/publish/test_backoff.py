from edgecount.publish._backoff import Backoff


def test_waits_double_up_to_the_longest() -> None:
    backoff = Backoff(1.0, 60.0, lambda: 1.0)
    assert [backoff.failed() for _ in range(8)] == [1, 2, 4, 8, 16, 32, 60, 60]


def test_jitter_takes_up_to_half_away() -> None:
    backoff = Backoff(1.0, 60.0, lambda: 0.0)
    assert [backoff.failed() for _ in range(3)] == [0.5, 1.0, 2.0]


def test_a_connection_that_held_begins_anew() -> None:
    backoff = Backoff(1.0, 60.0, lambda: 1.0)
    for _ in range(100_000):
        backoff.failed()
    backoff.worked()
    assert backoff.failed() == 1.0
