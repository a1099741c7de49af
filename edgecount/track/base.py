"""What a tracker is."""

from typing_extensions import Protocol

from edgecount.records import Detections, Tracks


class Tracker(Protocol):
    """Follows detections from frame to frame. One instance serves one camera.

    An implementation is one file beside this one, with ``Options`` (a frozen pydantic
    model) and ``create(options) -> Tracker``.
    """

    def update(self, detections: Detections, dt: float) -> Tracks:
        """Advance by one frame.

        Args:
            detections: What was seen, in source pixels; may be empty.
            dt: Seconds of stream time since the last call (frames may have been
                dropped between); the first call's value has no effect.

        Returns:
            The tracks matched to a detection of this frame, tentative ones included,
            and the ids that died with it. Confirmed tracks that were missed may be among
            them for a fraction of a second, with score 0.
        """
        ...

    def reset(self) -> None:
        """Forget all tracks. Ids are not used again."""
        ...
