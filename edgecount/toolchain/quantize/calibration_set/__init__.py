"""Calibration sets: pictures that show a network all that it will see."""

from edgecount.toolchain.quantize.calibration_set.build import Plan, build
from edgecount.toolchain.quantize.calibration_set.images import CalibrationImages, count_notes
from edgecount.toolchain.quantize.calibration_set.judge import Judge
from edgecount.toolchain.quantize.calibration_set.manifest import Entry, Manifest

__all__ = ["CalibrationImages", "Entry", "Judge", "Manifest", "Plan", "build", "count_notes"]
