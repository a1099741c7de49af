"""How long to wait before the next try."""

from typing import Callable


class Backoff:
    """Doubling waits with jitter, so that a fleet does not come back in one instant.

    Args:
        first_s: The first wait, seconds.
        most_s: The longest wait, seconds.
        random: Uniform in 0..1.
    """

    def __init__(self, first_s: float, most_s: float, random: Callable[[], float]) -> None:
        self._first_s = first_s
        self._most_s = most_s
        self._random = random
        self.failures = 0

    def failed(self) -> float:
        """Seconds to wait now: between half and all of the doubled last wait."""
        wait = min(self._most_s, self._first_s * 2.0 ** min(self.failures, 30))
        self.failures += 1
        return wait * (0.5 + 0.5 * self._random())

    def worked(self) -> None:
        """The connection has held: begin small again."""
        self.failures = 0
