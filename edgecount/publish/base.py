"""What a sink is: where counts go when they leave the device."""

from dataclasses import dataclass
from typing import List, Optional, Sequence, Tuple

from typing_extensions import Literal, Protocol

from edgecount.records import Aggregate, CountEvent, Snapshot

Status = Literal["online", "degraded", "offline"]
LinkState = Literal["connecting", "connected", "away", "refused", "stopped"]


@dataclass(frozen=True)
class PlaceState:
    """One place, as published.

    Attributes:
        place: Its name.
        ts: When this was true, UTC seconds since 1970.
        seq: Sequence number of the device when it was taken.
        occupancy: People in it.
        into: Entries since the last reset.
        out: Exits since the last reset.
        peak: Highest occupancy since the last reset.
        degraded: Why these numbers deserve less trust; empty is good.
        crowded: Whether there are too many people; None where the place has no limit.
    """

    place: str
    ts: float
    seq: int
    occupancy: int
    into: int
    out: int
    peak: int
    degraded: Tuple[str, ...] = ()
    crowded: Optional[bool] = None


class EventStore(Protocol):
    """Where a sink takes committed events from; the ledger is one. Safe from any thread."""

    @property
    def seq(self) -> int:
        """Sequence number of the newest event."""
        ...

    @property
    def acknowledged(self) -> int:
        """All events up to this number are done with."""
        ...

    def fetch(self, after: int, limit: int) -> List[CountEvent]:
        """At most ``limit`` committed events above ``after``, in order."""
        ...

    def acknowledge(self, seq: int) -> None:
        """All events up to ``seq`` have reached the other side."""
        ...


class Sink(Protocol):
    """Takes counts away. One implementation is one file beside this one, with ``create``.

    All methods return at once and may be called from any thread; none raises because the
    other side is away. States are latest-wins and sent again at every connect; events are
    not handed over but drawn from an :class:`EventStore`, in order, until acknowledged.
    """

    @property
    def connected(self) -> bool:
        """Whether the other side takes messages now."""
        ...

    @property
    def state(self) -> LinkState:
        """How the link is: ``refused`` wants a person; ``away`` does not."""
        ...

    @property
    def last_error(self) -> str:
        """Why it is not connected, in a sentence without secrets; "" when it is."""
        ...

    def start(self) -> None:
        """Begin to connect."""
        ...

    def stop(self) -> None:
        """Send the last states and ``offline``, and let go; returns within 2 s."""
        ...

    def publish_state(self, snapshot: Snapshot) -> None:
        """The newest state of a camera."""
        ...

    def publish_camera_status(self, camera: str, status: Status) -> None:
        """Whether a camera delivers."""
        ...

    def publish_place(self, state: PlaceState) -> None:
        """The newest state of a place."""
        ...

    def publish_aggregates(self, aggregates: Sequence[Aggregate]) -> None:
        """Periods that have ended."""
        ...

    def notify(self) -> None:
        """There are new events in the store."""
        ...
