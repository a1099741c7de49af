"""Where frames wait between the readers and the one who processes them."""

import threading
from collections import deque
from time import monotonic
from typing import Container, Deque, List, Optional, Tuple

from edgecount.records import Frame


class SlotGroup:
    """The slots of all cameras, behind one lock, so that one thread can wait for any of them."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._arrived = threading.Condition(self._lock)
        self._slots: List[Slot] = []
        self._next = 0
        self._taken = 0

    @property
    def taken(self) -> int:
        """Frames that were ever taken through the group."""
        return self._taken

    def add(self, depth: Optional[int] = None) -> "Slot":
        """A slot for one more camera.

        Args:
            depth: None for a live camera: room for one frame, the newest wins. A number
                for a file: ``put`` waits while that many frames are waiting already.
        """
        slot = Slot(self._lock, self._arrived, len(self._slots), depth)
        with self._lock:
            self._slots.append(slot)
        return slot

    def take(self, timeout: float) -> Optional[Tuple[int, Frame]]:
        """The next frame of any camera, cameras in turn, with the number of its slot.

        Returns None when no frame came within ``timeout`` seconds, or after ``wake``.
        """
        with self._lock:
            taken = self._pop(())
            if taken is None and self._arrived.wait(timeout):
                taken = self._pop(())
            return taken

    def take_batch(self, most: int, timeout: float, wait: float) -> List[Frame]:
        """The next frames, each of another camera, cameras in turn.

        Args:
            most: Frames at most; there are no more than cameras.
            timeout: Seconds to wait for the first.
            wait: Seconds to wait for the others, from the first on.

        Returns:
            As many as came; none after ``timeout``, or after ``wake``.
        """
        first = self.take(timeout)
        if first is None:
            return []
        batch = {first[0]: first[1]}
        deadline = monotonic() + wait
        with self._lock:
            while len(batch) < min(most, len(self._slots)):
                more = self._pop(batch)
                if more is not None:
                    batch[more[0]] = more[1]
                elif not self._arrived.wait(max(0.0, deadline - monotonic())):
                    break
        return list(batch.values())

    def wake(self) -> None:
        """Let a waiting ``take`` return, so that it can look at the states again."""
        with self._lock:
            self._arrived.notify_all()

    def _pop(self, served: Container[int]) -> Optional[Tuple[int, Frame]]:
        start = self._next
        for turn in range(len(self._slots)):
            number = (start + turn) % len(self._slots)
            if number in served:
                continue
            frame = self._slots[number].pop()
            if frame is not None:
                self._next = number + 1
                self._taken += 1
                return number, frame
        return None


class Slot:
    """The frames of one camera that nobody has taken yet. Made by :meth:`SlotGroup.add`.

    Attributes:
        number: Its number in the group, from 0.
        dropped: Frames that a newer one replaced before anyone took them.
    """

    def __init__(
        self,
        lock: threading.Lock,
        arrived: threading.Condition,
        number: int,
        depth: Optional[int],
    ) -> None:
        self.number = number
        self.dropped = 0
        self._lock = lock
        self._arrived = arrived
        self._left = threading.Condition(lock)
        self._depth = depth
        self._frames: Deque[Frame] = deque()

    def put(self, frame: Frame, timeout: float) -> bool:
        """Hand over a frame; false when there was no room for ``timeout`` seconds.

        A slot without a depth always has room: the frame in it is dropped.
        """
        with self._lock:
            if self._depth is None:
                self.dropped += len(self._frames)
                self._frames.clear()
            elif not self._left.wait_for(self._has_room, timeout):
                return False
            self._frames.append(frame)
            self._arrived.notify_all()
            return True

    def take(self, timeout: float) -> Optional[Frame]:
        """The oldest frame of this camera, or None when none came within ``timeout`` seconds."""
        with self._lock:
            if not self._frames:
                self._arrived.wait_for(lambda: bool(self._frames), timeout)
            return self.pop()

    def clear(self) -> None:
        """Forget the frames that wait here."""
        with self._lock:
            self._frames.clear()
            self._left.notify()

    def _has_room(self) -> bool:
        return self._depth is None or len(self._frames) < self._depth

    def pop(self) -> Optional[Frame]:
        """The oldest frame, or None; the caller holds the group's lock."""
        if not self._frames:
            return None
        self._left.notify()
        return self._frames.popleft()

    def __len__(self) -> int:
        return len(self._frames)
