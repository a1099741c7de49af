"""What the ledger keeps between runs: running totals of counters and of places."""

from dataclasses import dataclass, field
from typing import Mapping, NamedTuple

from edgecount.records import LineTotals


class CounterKey(NamedTuple):
    """Names one counter: ``kind`` is ``line`` or ``zone``."""

    kind: str
    camera: str
    name: str


@dataclass(frozen=True)
class CameraTotals:
    """Totals of one camera since the last reset.

    Attributes:
        lines: Crossings by line name.
        zones: By zone name; ``into`` is entered, ``out`` is left.
    """

    lines: Mapping[str, LineTotals] = field(default_factory=dict)
    zones: Mapping[str, LineTotals] = field(default_factory=dict)


@dataclass(frozen=True)
class PlaceTotals:
    """One place: who is in it now, and in, out and the highest occupancy since the last reset."""

    occupancy: int = 0
    into: int = 0
    out: int = 0
    peak: int = 0

    def plus(self, later: "PlaceTotals") -> "PlaceTotals":
        """Add what ``later`` counted from zero."""
        occupancy = self.occupancy + later.occupancy
        return PlaceTotals(
            occupancy=occupancy,
            into=self.into + later.into,
            out=self.out + later.out,
            peak=max(self.peak, self.occupancy + later.peak),
        )
