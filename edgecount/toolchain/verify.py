"""Compare what a person counted by hand with what the ledger holds.

Presses and events of one direction are matched one to one, in order of time, when they
lie within a tolerance: somebody who counts presses the key a moment before or after the
crossing becomes certain.
"""

from dataclasses import dataclass
from typing import Dict, List, Mapping, Sequence


@dataclass(frozen=True)
class Comparison:
    """One direction of one line.

    Attributes:
        by_hand: Crossings that the person saw.
        counted: Crossings in the ledger.
        missed: Times of presses without an event, UTC seconds.
        extra: Times of events without a press, UTC seconds.
    """

    by_hand: int
    counted: int
    missed: Sequence[float]
    extra: Sequence[float]

    @property
    def accuracy(self) -> float:
        """1 minus wrong ones per true one, at least 0; 1 where nothing happened."""
        wrong = len(self.missed) + len(self.extra)
        if self.by_hand == 0:
            return 1.0 if wrong == 0 else 0.0
        return max(0.0, 1.0 - wrong / self.by_hand)


def compare(
    presses: Mapping[str, Sequence[float]],
    events: Mapping[str, Sequence[float]],
    tolerance_s: float,
) -> Dict[str, Comparison]:
    """Compare per direction (``in``, ``out``); times are UTC seconds since 1970."""
    return {
        direction: _compare(presses.get(direction, ()), events.get(direction, ()), tolerance_s)
        for direction in ("in", "out")
    }


def _compare(presses: Sequence[float], events: Sequence[float], tolerance_s: float) -> Comparison:
    """Match two sequences in time, earliest first: the most pairs that keep the order."""
    missed: List[float] = []
    extra: List[float] = []
    waiting = sorted(events)
    for press in sorted(presses):
        while waiting and waiting[0] < press - tolerance_s:
            extra.append(waiting.pop(0))
        if waiting and waiting[0] <= press + tolerance_s:
            waiting.pop(0)
        else:
            missed.append(press)
    return Comparison(len(presses), len(events), tuple(missed), tuple(extra + waiting))
