"""Sources of frames: one file per kind, see :mod:`edgecount.capture.base`."""

from edgecount.capture._clock import Clock
from edgecount.capture._reader import Reader, State, left_behind
from edgecount.capture._select import kinds, open_source, resolve
from edgecount.capture._slot import Slot, SlotGroup

__all__ = [
    "Clock",
    "Reader",
    "Slot",
    "SlotGroup",
    "State",
    "kinds",
    "left_behind",
    "open_source",
    "resolve",
]
