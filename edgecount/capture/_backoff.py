"""How long to wait before a camera is tried again."""

import random
from typing import Callable


class Backoff:
    """Exponential back-off with full jitter.

    After n failures in a row the wait is uniform in ``0 … min(cap, base · 2ⁿ)``, so that
    a hundred cameras behind one switch do not come back in step (Brooker, "Exponential
    Backoff And Jitter", AWS Architecture Blog, 2015).

    Args:
        base: Upper bound of the first wait, seconds.
        cap: Upper bound of every wait, seconds. The default lets a camera be back well
            within 5 s of its return.
        uniform: Random numbers in 0..1.
    """

    def __init__(
        self,
        base: float = 0.5,
        cap: float = 2.0,
        uniform: Callable[[], float] = random.random,
    ) -> None:
        self._base = base
        self._cap = cap
        self._uniform = uniform
        self._bound = base

    def next(self) -> float:
        """Seconds to wait after one more failure."""
        wait = self._uniform() * min(self._cap, self._bound)
        self._bound = min(self._cap, self._bound * 2.0)
        return wait

    def reset(self) -> None:
        """The camera is well again: the next failure is the first."""
        self._bound = self._base
