"""What a calibrator is.

A calibrator is one file in this package. It holds ``Options``, a frozen pydantic model, and
``create(options) -> Calibrator``. It is found by its file name.
"""

from typing_extensions import Protocol

from edgecount.toolchain.quantize.histogram import Histogram


class Calibrator(Protocol):
    """Chooses the clipping point of a tensor from the distribution of its magnitudes."""

    def clip(self, histogram: Histogram) -> float:
        """The greatest magnitude to represent, above 0 and at most ``histogram.peak``.

        ``histogram`` holds at least one value that is not zero.
        """
        ...
