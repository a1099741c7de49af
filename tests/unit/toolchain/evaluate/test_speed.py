import numpy as np
import pytest

from edgecount.toolchain.evaluate.speed import fluctuation, time_in_turns


def test_calls_take_turns_and_times_are_kept_apart():
    now, order = [0.0], []

    def call(name, seconds):
        def run():
            order.append(name)
            now[0] += seconds

        return run

    fast, slow = time_in_turns(
        [call("fast", 0.001), call("slow", 0.004)],
        turns=2,
        per_turn=2,
        warm_up=1,
        clock=lambda: now[0],
    )
    assert "".join(n[0] for n in order) == "fs" + "ffss" * 2
    assert fast == pytest.approx([1.0] * 4)
    assert slow == pytest.approx([4.0] * 4)


def test_an_even_rate_does_not_fluctuate():
    assert fluctuation(np.full(40, 7.0)) == 0.0
    assert fluctuation(np.zeros(3)) == 0.0


def test_fluctuation_of_a_hand_worked_case():
    # Two windows at 100 and 50 pictures a second: mean 75, deviation 25.
    assert fluctuation(np.repeat([10.0, 20.0], 10)) == pytest.approx(25 / 75)
