"""The clocks that capture lives by; tests give it others."""

import threading
import time


class Clock:
    """Time of day, stream time and waiting, in one object that a test can replace."""

    def monotonic(self) -> float:
        """Seconds that never jump, with an arbitrary origin."""
        return time.monotonic()

    def wall(self) -> float:
        """UTC seconds since 1970."""
        return time.time()

    def wait(self, event: threading.Event, timeout: float) -> bool:
        """Wait at most ``timeout`` seconds for ``event``; whether it is set."""
        return event.wait(timeout)
