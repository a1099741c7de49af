"""Which frames of a faster stream to keep."""

from typing import Optional

# A camera's frames come a little early and late. A frame that is early by less than this
# part of the interval is kept, or a 25-FPS camera limited to 25 FPS would lose frames.
_EARLY = 0.25


class Decimator:
    """Keeps at most ``max_fps`` frames per second, evenly spaced and without drift.

    Args:
        max_fps: Frames per second to keep, or None to keep all.

    Attributes:
        left_out: Frames that were not kept, since it was made.
    """

    def __init__(self, max_fps: Optional[float]) -> None:
        self._interval = 1.0 / max_fps if max_fps else 0.0
        self._due: Optional[float] = None
        self.left_out = 0

    def keep(self, time: float) -> bool:
        """Whether the frame at stream time ``time`` (seconds, rising) is to be processed."""
        if not self._interval:
            return True
        if self._due is None or time - self._due > self._interval:
            self._due = time
        if time < self._due - _EARLY * self._interval:
            self.left_out += 1
            return False
        self._due += self._interval
        return True

    def reset(self) -> None:
        """Forget the past: the stream starts anew."""
        self._due = None
