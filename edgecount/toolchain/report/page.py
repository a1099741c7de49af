"""The report as one HTML page that needs nothing else: style, plots and pictures are inside."""

import base64
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence

from edgecount.errors import MissingExtraError
from edgecount.toolchain.quantize.histogram import Histogram
from edgecount.toolchain.report import plots
from edgecount.toolchain.report.budget import Verdict
from edgecount.toolchain.report.disagreement import Disagreement
from edgecount.toolchain.report.measure import Row

_TEMPLATE = Path(__file__).with_name("page.html.jinja")


@dataclass(frozen=True)
class Heading:
    """What was measured, where and when, for the head of the page.

    Attributes:
        title: Title of the page.
        made: When, and by which version.
        place: What ran the networks.
        machine: Processor and cores.
        size: The network's input.
        clip: Name of the clip that was counted in; None without one.
        command: The command that made the report.
        notes: What the reader must know besides.
    """

    title: str
    made: str
    place: str
    machine: str
    size: str
    clip: Optional[str]
    command: str
    notes: Sequence[str] = ()


@dataclass(frozen=True)
class Content:
    """Everything that is shown; FP32 is the first row."""

    heading: Heading
    rows: Sequence[Row]
    verdicts: Sequence[Verdict]
    damages: Sequence[plots.Damage]
    clipped: Sequence[Histogram]
    disagreements: Sequence[Disagreement]


def render(content: Content) -> str:
    """The page.

    Raises:
        MissingExtraError: jinja2 or matplotlib is not installed.
    """
    try:
        jinja2 = import_module("jinja2")
    except ImportError as error:
        raise MissingExtraError("jinja2", "report") from error
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = environment.from_string(_TEMPLATE.read_text(encoding="utf-8"))
    text: str = template.render(**vars(content.heading), **_values(content))
    return text


def _values(content: Content) -> Dict[str, Any]:
    rows = content.rows
    base = rows[0]
    seen = base.accuracy.seen
    shown = list(content.clipped)
    return {
        "rows": [_row(row, base) for row in rows],
        "verdicts": content.verdicts,
        "images": len(seen.pictures),
        "boxes": sum(len(t.boxes) for t in seen.truths),
        "crossings": base.counted.true if base.counted else None,
        "threshold": seen.recipe.score_threshold,
        "layers": len(content.damages),
        "pareto": plots.pareto(rows),
        "curves": plots.precision_recall_curves(rows),
        "sensitivity": plots.sensitivity(content.damages) if content.damages else "",
        "histograms": plots.histograms(shown) if shown else "",
        "pictures": [_picture(one, rows) for one in content.disagreements],
    }


def _row(row: Row, base: Row) -> Dict[str, str]:
    counted = row.counted
    lost = 100 * (row.accuracy.ap50 - base.accuracy.ap50)
    return {
        "title": row.variant.title,
        "how": row.variant.how,
        "name": row.variant.path.name,
        "sha256": row.sha256,
        "colour": plots.COLOURS[row.variant.key],
        "fps": f"{row.speed.fps:.1f}",
        "speedup": "" if row is base else f"{row.speed.fps / base.speed.fps:.2f}×",
        "p50": f"{row.speed.p50_ms:.2f}",
        "p99": f"{row.speed.p99_ms:.2f}",
        "fluctuation": f"{100 * row.speed.fluctuation:.1f} %",
        "memory": f"{row.memory_mb:.0f}",
        "file": f"{row.bytes / 1e6:.2f}",
        "ap50": f"{100 * row.accuracy.ap50:.2f}",
        "loss": "" if row is base else f"{lost:+.2f}",
        "ap50_95": f"{100 * row.accuracy.ap50_95:.2f}",
        "ece": f"{row.accuracy.ece:.4f}",
        "count": "–" if counted is None else f"{counted.error} ({counted.missed}, {counted.extra})",
    }


def _picture(one: Disagreement, rows: Sequence[Row]) -> Dict[str, Any]:
    panels: List[Dict[str, str]] = [
        {"title": row.variant.title, "data": base64.b64encode(data).decode("ascii")}
        for row, data in zip(rows, one.panels)
    ]
    return {"name": one.name, "apart": one.apart, "panels": panels}
