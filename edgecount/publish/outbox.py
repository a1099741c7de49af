"""The way of events to a broker: in order, paced, each until it is acknowledged.

Pure logic over an :class:`~edgecount.publish.base.EventStore`; the sink does the sending.
Delivery is at least once and in order: after a lost connection everything behind the
store's mark goes out again, in the same order, with the same ids. Whoever drops ids that
he has seen therefore sees every event once and none out of order.
"""

from collections import OrderedDict, deque
from typing import Callable, Deque, List, NamedTuple, Optional, Set

from edgecount.publish.base import EventStore
from edgecount.records import CountEvent

_BATCH = 256


class Outgoing(NamedTuple):
    """An event to send now; ``recovered``: it happened before this connection stood."""

    event: CountEvent
    recovered: bool


class Outbox:
    """What has to be sent on one connection after the other. Used from one thread.

    Args:
        store: Where committed events are.
        clock: Monotonic seconds.
        pace: Most events per second while a backlog goes out; live ones are not held back.
    """

    def __init__(self, store: EventStore, clock: Callable[[], float], pace: float) -> None:
        self._store = store
        self._clock = clock
        self._pace = pace
        self._ready: Deque[CountEvent] = deque()
        self._flying: OrderedDict[int, None] = OrderedDict()
        self._landed: Set[int] = set()
        self._cursor = 0
        self._mark = 0
        self._tokens = 0.0
        self._filled_at = 0.0
        self._catching_up = False
        self._held_until: Optional[float] = None

    @property
    def in_flight(self) -> int:
        """Events that were sent and are not yet acknowledged."""
        return len(self._flying)

    @property
    def catching_up(self) -> bool:
        """Whether a backlog is being sent."""
        return self._catching_up

    def rewind(self) -> None:
        """A new connection stands: begin behind the last acknowledged event."""
        self._ready.clear()
        self._flying.clear()
        self._landed.clear()
        self._cursor = self._mark = self._store.acknowledged
        self._catching_up = self._store.seq > self._cursor
        self._tokens = 0.0
        self._filled_at = self._clock()
        self._held_until = None

    def hold(self, seconds: float) -> None:
        """The broker did not take an event: begin again behind the mark, after a while."""
        self.rewind()
        self._held_until = self._clock() + seconds

    def take(self, room: int) -> List[Outgoing]:
        """Events to send now, at most ``room``; each must then be sent and acknowledged."""
        if self._store.acknowledged < self._mark:
            self.rewind()  # an older file came back: there is more to send than was known
        self._mark = self._store.acknowledged
        if self._is_held():
            return []
        self._fill()
        allowed = min(room, len(self._ready), self._allowance())
        taken = [self._ready.popleft() for _ in range(allowed)]
        for event in taken:
            self._flying[event.seq] = None
        if self._catching_up:
            self._tokens -= len(taken)
        return [Outgoing(event, self._catching_up) for event in taken]

    def landed(self, seq: int) -> None:
        """The broker acknowledged an event: move the mark over all that are done in order."""
        self._landed.add(seq)
        done = 0
        for flying in list(self._flying):
            if flying not in self._landed:
                break
            del self._flying[flying]
            self._landed.discard(flying)
            done = flying
        if done:
            self._store.acknowledge(done)

    def wait_s(self) -> Optional[float]:
        """Seconds until ``take`` may give more; None: when there is news, or an answer."""
        if self._held_until is not None:
            return max(0.0, self._held_until - self._clock())
        if self._ready and self._catching_up:
            return max(0.0, (1.0 - self._tokens) / self._pace)
        return None

    def _is_held(self) -> bool:
        if self._held_until is not None and self._clock() >= self._held_until:
            self._held_until = None
        return self._held_until is not None

    def _fill(self) -> None:
        if self._ready:
            return
        if self._store.seq <= self._cursor:
            self._catching_up = False
            return
        events = self._store.fetch(self._cursor, _BATCH)
        if events:
            self._cursor = events[-1].seq
            self._ready.extend(events)

    def _allowance(self) -> int:
        """How many the pace allows now: a token bucket that holds a tenth of a second."""
        if not self._catching_up:
            return len(self._ready)
        now = self._clock()
        most = max(1.0, self._pace / 10.0)
        self._tokens = min(most, self._tokens + (now - self._filled_at) * self._pace)
        self._filled_at = now
        return int(self._tokens)
