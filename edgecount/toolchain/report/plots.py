"""The report's plots, as SVG that takes its ink from the page and so suits light and dark."""

import io
from typing import Any, Callable, Dict, List, Mapping, NamedTuple, Sequence, Tuple

import numpy as np

from edgecount.errors import MissingExtraError
from edgecount.toolchain.quantize.histogram import Histogram
from edgecount.toolchain.report import variants as v
from edgecount.toolchain.report.measure import Row, precision_recall

# Replaced by ``currentColor``: no data is drawn in it.
_INK = "#010203"
# Readable on white and on near-black, and apart for the colour-blind (after Okabe & Ito).
COLOURS: Mapping[str, str] = {
    v.FP32: "#8a8f98",
    v.FP16: "#2f8fd0",
    v.BASIC: "#d55e00",
    v.TUNED: "#12a182",
    v.QAT: "#b07cc6",
}
_CLIP = "#d55e00"
_FILL = "#2f8fd0"
_SHOWN_BINS = 96
_LONGEST_NAME = 44


class Damage(NamedTuple):
    """What quantising one layer alone does to the output: signal to noise, dB."""

    layer: str
    sqnr_db: float


def pareto(rows: Sequence[Row]) -> str:
    """AP50 over milliseconds; up and to the left is better."""

    def draw(axes: Any) -> None:
        for row in rows:
            x, y = row.speed.p50_ms, 100 * row.accuracy.ap50
            axes.scatter(
                [x], [y], s=70, color=COLOURS[row.variant.key], label=_short(row), zorder=3
            )
        front = _front([(r.speed.p50_ms, 100 * r.accuracy.ap50) for r in rows])
        axes.plot(*zip(*front), color=_INK, linewidth=0.8, linestyle=":", zorder=1)
        axes.margins(0.12)
        _legend(axes)
        axes.set(xlabel="ms per picture (median)", ylabel="AP50, %")

    return _svg(draw, 5.2, 3.6)


def precision_recall_curves(rows: Sequence[Row]) -> str:
    """Precision over recall at overlap 0.5."""

    def draw(axes: Any) -> None:
        for row in rows:
            recall, precision = precision_recall(row.accuracy.seen)
            axes.plot(recall, precision, color=COLOURS[row.variant.key], label=_short(row))
        axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
        _legend(axes)

    return _svg(draw, 5.2, 3.6)


def sensitivity(damages: Sequence[Damage], count: int = 20) -> str:
    """The layers that suffer most when they alone are quantised, the worst at the top."""
    worst = sorted(damages, key=lambda d: d.sqnr_db)[:count]

    def draw(axes: Any) -> None:
        places = range(len(worst))
        axes.barh(places, [d.sqnr_db for d in worst], color=_FILL, height=0.7)
        axes.set_yticks(list(places), [_tail(d.layer) for d in worst], fontsize=7.5)
        axes.invert_yaxis()
        axes.set_xlabel(
            "signal to quantisation noise of the output, dB (shorter is worse)", fontsize=8
        )

    return _svg(draw, 8.6, 0.22 * len(worst) + 0.9)


def histograms(found: Sequence[Histogram], columns: int = 3) -> str:
    """Magnitudes of activations on a logarithmic scale, each with its clipping point."""
    rows = -(-len(found) // columns)
    figure = _figure(8.6, 1.75 * rows)
    for axes, one in zip(figure.subplots(rows, columns, squeeze=False).flat, found):
        _style(axes)
        _draw_histogram(axes, one)
    for axes in list(figure.axes)[len(found) :]:
        axes.remove()
    return _render(figure)


def _draw_histogram(axes: Any, one: Histogram) -> None:
    group = max(1, -(-len(one.counts) // _SHOWN_BINS))
    padded = np.pad(one.counts, (0, -len(one.counts) % group))
    counts = padded.reshape(-1, group).sum(1)
    edges = np.arange(len(counts) + 1) * group * one.width
    axes.stairs(counts, edges, fill=True, color=_FILL)
    axes.axvline(one.amax, color=_CLIP, linewidth=1.4)
    axes.set_yscale("log")
    axes.set_ylim(bottom=0.8)
    axes.tick_params(labelsize=6.5)
    clipped = f"clipped at {one.amax:.3g} of {one.peak:.3g}"
    axes.set_title(f"{_tail(one.tensor, 34)}\n{clipped}", fontsize=7, color=_INK)


def _front(points: Sequence[Tuple[float, float]]) -> List[Tuple[float, float]]:
    """Points that none is both faster and better than."""
    best, front = -np.inf, []
    for x, y in sorted(points, key=lambda p: (p[0], -p[1])):
        if y > best:
            best = y
            front.append((x, y))
    return front


def _short(row: Row) -> str:
    names: Dict[str, str] = {v.TUNED: "INT8, tuned"}
    return names.get(row.variant.key, row.variant.title)


def _tail(name: str, longest: int = _LONGEST_NAME) -> str:
    """A layer's or tensor's name, without what all of them end with."""
    plain = name.strip("/").replace("/", ".")
    for ending in ("_output_0", ".Relu", ".act", ".Conv", ".conv"):
        plain = plain[: -len(ending)] if plain.endswith(ending) else plain
    return plain if len(plain) <= longest else f"…{plain[-longest + 1 :]}"


def _svg(draw: Callable[[Any], None], width: float, height: float) -> str:
    figure = _figure(width, height)
    axes = figure.subplots()
    _style(axes)
    draw(axes)
    return _render(figure)


def _figure(width: float, height: float) -> Any:
    try:
        from matplotlib.backends.backend_svg import FigureCanvasSVG
        from matplotlib.figure import Figure
    except ImportError as error:
        raise MissingExtraError("matplotlib", "report") from error
    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasSVG(figure)
    figure.patch.set_alpha(0)
    return figure


def _style(axes: Any) -> None:
    axes.patch.set_alpha(0)
    axes.grid(color=_INK, alpha=0.13, linewidth=0.6)
    axes.set_axisbelow(True)
    axes.tick_params(colors=_INK, labelsize=8)
    axes.xaxis.label.set_size(9)
    axes.yaxis.label.set_size(9)
    axes.xaxis.label.set_color(_INK)
    axes.yaxis.label.set_color(_INK)
    for side, spine in axes.spines.items():
        spine.set_color(_INK)
        spine.set_alpha(0.4)
        spine.set_visible(side in ("left", "bottom"))


def _legend(axes: Any) -> None:
    legend = axes.legend(frameon=False, fontsize=8)
    for text in legend.get_texts():
        text.set_color(_INK)


def _render(figure: Any) -> str:
    import matplotlib

    buffer = io.StringIO()
    with matplotlib.rc_context({"svg.fonttype": "none", "font.family": "sans-serif"}):
        figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None})
    text = buffer.getvalue()
    return text[text.index("<svg") :].replace(_INK, "currentColor")
