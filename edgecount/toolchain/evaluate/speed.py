"""Times of several things on one machine, taken in turns so that a busy neighbour slows all."""

from time import perf_counter
from typing import Callable, List, Sequence

import numpy as np
import numpy.typing as npt

Milliseconds = npt.NDArray[np.float64]


def time_in_turns(
    calls: Sequence[Callable[[], object]],
    *,
    turns: int = 10,
    per_turn: int = 10,
    warm_up: int = 3,
    clock: Callable[[], float] = perf_counter,
) -> List[Milliseconds]:
    """Call each so many times in a row, then the next one, and all over again.

    Args:
        calls: What to time.
        turns: Rounds over all of them.
        per_turn: Calls in a row.
        warm_up: Calls of each before the first round, not timed.
        clock: Seconds.

    Returns:
        Milliseconds of each call, one array (turns × per_turn,) for each of ``calls``.
    """
    times = np.zeros((len(calls), turns, per_turn))
    for call in calls:
        for _ in range(warm_up):
            call()
    for turn in range(turns):
        for row, call in enumerate(calls):
            for column in range(per_turn):
                started = clock()
                call()
                times[row, turn, column] = 1e3 * (clock() - started)
    return [row.reshape(-1) for row in times]


def fluctuation(milliseconds: Milliseconds, window: int = 10) -> float:
    """Coefficient of variation of the rate over windows of so many calls in a row."""
    whole = len(milliseconds) // window * window
    if not whole:
        return 0.0
    rates = 1 / milliseconds[:whole].reshape(-1, window).mean(1)
    return float(rates.std() / rates.mean())
