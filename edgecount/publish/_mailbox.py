"""States wait here until they may go out: the newest of each topic, nothing older."""

import threading
from collections import OrderedDict, deque
from dataclasses import dataclass
from typing import Callable, Deque, List, NamedTuple, Optional

Encode = Callable[[], bytes]


class Message(NamedTuple):
    """One message to publish with QoS 1."""

    topic: str
    payload: bytes
    retain: bool


@dataclass
class _Slot:
    encode: Encode
    retain: bool
    interval_s: float
    dirty: bool = True
    flying: bool = False
    sent_at: float = float("-inf")
    constant: Optional[bytes] = None


class Mailbox:
    """The newest state per topic. ``put`` and ``set`` from any thread, the rest from one.

    A topic whose last message is not acknowledged yet waits, so that a slow broker gets
    fewer states and not a longer queue.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._slots: OrderedDict[str, _Slot] = OrderedDict()

    def put(self, topic: str, encode: Encode, interval_s: float) -> bool:
        """A state that goes out, retained, at most every ``interval_s`` seconds.

        ``encode`` is called when it goes, on the sink's thread; most never are.

        Returns:
            Whether this is news: the last state of the topic had gone out already.
        """
        with self._lock:
            slot = self._slots.get(topic)
            if slot is None:
                self._slots[topic] = _Slot(encode, True, interval_s)
                return True
            was_dirty = slot.dirty
            slot.encode, slot.dirty, slot.interval_s = encode, True, interval_s
            return not was_dirty

    def set(self, topic: str, payload: bytes, *, retain: bool = True) -> bool:
        """A value that goes out when it changes, and at every connect. False: no change."""
        with self._lock:
            slot = self._slots.get(topic)
            if slot is not None and slot.constant == payload:
                return False
            sent_at = slot.sent_at if slot else float("-inf")
            flying = slot.flying if slot else False
            self._slots[topic] = _Slot(
                lambda: payload, retain, 0.0, sent_at=sent_at, flying=flying, constant=payload
            )
            return True

    def renew(self) -> None:
        """A new connection stands: everything goes out again."""
        with self._lock:
            for slot in self._slots.values():
                slot.dirty, slot.flying, slot.sent_at = True, False, float("-inf")

    def take(self, now: float, room: int, *, hurry: bool = False) -> List[Message]:
        """What goes out now: at most ``room`` messages, the longest waiting first.

        Args:
            now: Monotonic seconds.
            room: How many the broker takes.
            hurry: Disregard intervals and missing acknowledgements: this is the end.
        """
        with self._lock:
            due = [t for t, s in self._slots.items() if _due(s, now, hurry)][: max(0, room)]
            taken = []
            for topic in due:
                slot = self._slots[topic]
                slot.dirty, slot.flying, slot.sent_at = False, True, now
                taken.append((topic, slot.encode, slot.retain))
                self._slots.move_to_end(topic)
        return [Message(topic, encode(), retain) for topic, encode, retain in taken]

    def landed(self, topic: str) -> None:
        """The broker acknowledged the last message of ``topic``."""
        with self._lock:
            slot = self._slots.get(topic)
            if slot is not None:
                slot.flying = False

    def statuses(self) -> List[str]:
        """Every topic that says ``online`` or the like, the device's own last."""
        with self._lock:
            found = [t for t in self._slots if t.endswith(("/status", "/available"))]
        return sorted(found, key=lambda topic: -topic.count("/"))

    def wait_s(self, now: float) -> Optional[float]:
        """Seconds until the next state may go; None: when one is put, or acknowledged."""
        with self._lock:
            waits = [
                slot.sent_at + slot.interval_s - now
                for slot in self._slots.values()
                if slot.dirty and not slot.flying
            ]
        return max(0.0, min(waits)) if waits else None


class Letters:
    """Messages of which each one counts, in order: answers and aggregates. Bounded.

    ``add`` from any thread, the rest from one.
    """

    def __init__(self, most: int) -> None:
        self._waiting: Deque[Message] = deque(maxlen=most)
        self._flying: OrderedDict[int, Message] = OrderedDict()

    def __bool__(self) -> bool:
        return bool(self._waiting)

    def add(self, topic: str, payload: bytes) -> None:
        """Queue a message; the oldest goes where there are too many."""
        self._waiting.append(Message(topic, payload, retain=False))

    def take(self) -> Optional[Message]:
        """The next one, or None."""
        try:
            return self._waiting.popleft()
        except IndexError:
            return None

    def sent(self, mid: int, message: Message) -> None:
        """It went out as packet ``mid``."""
        self._flying[mid] = message

    def landed(self, mid: int) -> bool:
        """The broker acknowledged ``mid``; False: that was none of these."""
        return self._flying.pop(mid, None) is not None

    def rewind(self) -> None:
        """A new connection stands: what was not acknowledged goes first."""
        self._waiting.extendleft(reversed(list(self._flying.values())))
        self._flying.clear()


def _due(slot: _Slot, now: float, hurry: bool) -> bool:
    if not slot.dirty:
        return False
    return hurry or (not slot.flying and now - slot.sent_at >= slot.interval_s)
