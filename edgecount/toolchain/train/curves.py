"""Curves of a run as a PNG."""

from pathlib import Path
from typing import Sequence

from edgecount.errors import MissingExtraError
from edgecount.toolchain.train.trainer import LOSSES, Progress


def draw_curves(history: Sequence[Progress], path: Path, title: str) -> None:
    """Losses and average precision over the epochs.

    Raises:
        MissingExtraError: matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", "train") from error
    figure = Figure(figsize=(10, 4), layout="constrained")
    FigureCanvasAgg(figure)
    left, right = figure.subplots(1, 2)
    for name in LOSSES:
        values = [p.losses.get(name, 0.0) for p in history]
        if any(values):
            left.plot([p.epoch for p in history], values, label=name)
    measured = [p for p in history if p.metrics]
    for name in ("ap30", "ap50", "ap50_95"):
        if measured:
            points = [p.metrics[name] for p in measured]
            right.plot([p.epoch for p in measured], points, marker=".", label=name)
    left.set(xlabel="epoch", ylabel="loss", title=title)
    right.set(xlabel="epoch", ylabel="average precision", title="held-out pictures")
    for axes in (left, right):
        axes.grid(alpha=0.3)
        if axes.has_data():
            axes.legend()
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(str(path), dpi=90)
