"""Feeds the heat map of each camera while the service counts."""

from edgecount.count.geometry import Anchor
from edgecount.count.heatmap import HeatMap
from edgecount.count.ledger import Ledger
from edgecount.records import Frame, Tracked
from edgecount.runtime.pipeline import Lane


class HeatWatcher:
    """A watcher that looks about once a second and writes to the ledger."""

    def __init__(self, ledger: Ledger, anchor: Anchor) -> None:
        self._ledger = ledger
        self._map = HeatMap(anchor)

    def submitted(self, frame: Frame) -> None:
        """Nothing is known yet."""

    def counted(self, tracked: Tracked, latency_s: float, lane: Lane) -> None:  # noqa: ARG002
        """Look, if a second has passed."""
        self._ledger.warm(tracked.info.camera, self._map.look(tracked))
