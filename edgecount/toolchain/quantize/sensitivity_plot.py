"""A picture of each layer's sensitivity."""

from pathlib import Path
from typing import Any

from edgecount.errors import MissingExtraError
from edgecount.toolchain.quantize.sensitivity import Sensitivity

_MOST = 40
_QUIET_DB = 100.0  # as good as no noise; infinity cannot be drawn


def draw(found: Sensitivity, out: Path) -> None:
    """Draw the worst layers: noise that each makes alone, and the AP50 that it loses.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", "train") from error
    rows = found.layers[:_MOST]
    figure = Figure(figsize=(9, 1.2 + 0.22 * len(rows)), layout="constrained")
    noise: Any
    loss: Any
    noise, loss = figure.subplots(1, 2, sharey=True)
    places = range(len(rows))
    noise.barh(places, [min(row.alone.sqnr_db, _QUIET_DB) for row in rows], color="tab:blue")
    noise.set_xlabel("signal to noise with it alone in INT8, dB")
    noise.set_yticks(places, [row.layer for row in rows], fontsize=6)
    noise.set_ylim(len(rows) - 0.4, -0.6)
    loss.barh(places, [found.fp32 - row.alone.ap50 for row in rows], color="tab:red")
    loss.set_xlabel("AP50 lost with it alone in INT8, points")
    figure.suptitle(
        f"AP50 {found.fp32:.2f} in FP32, {found.int8.ap50:.2f} in INT8 ({found.images} pictures)"
    )
    figure.savefig(out, dpi=120)
