"""``edgecount eval track``: a tracker against MOTChallenge ground truth."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Dict, Optional, Tuple

import click

from edgecount.cli._options import folder_option, json_option

if TYPE_CHECKING:
    from edgecount.toolchain.evaluate.track import Scores, TrackReport


@click.command()
@folder_option(
    "--dataset",
    "A sequence (gt.txt, det.txt, seqinfo.ini), or a folder of sequences.",
    required=True,
)
@click.option("--tracker", default="two_stage", show_default=True, help="Which tracker.")
@click.option(
    "--set", "options", multiple=True, metavar="KEY=VALUE", help="An option of the tracker."
)
@click.option(
    "--simulate",
    "simulation",
    metavar="jitter=0.05,drop=0.1,false=0.05,seed=0",
    help="Make detections from the ground truth instead of reading det.txt.",
)
@click.option(
    "--every",
    type=click.IntRange(min=1),
    default=1,
    show_default=True,
    help="Use every n-th frame only: the same scene at a lower frame rate.",
)
@json_option()
def command(
    dataset: Path,
    tracker: str,
    options: Tuple[str, ...],
    simulation: Optional[str],
    every: int,
    as_json: bool,
) -> None:
    """Measure a tracker: HOTA, IDF1, MOTA, id switches, ids per person, time per frame."""
    from edgecount.toolchain.evaluate import simulated_detections, track

    make = track.named_tracker(tracker, _pairs(options))
    how = None if simulation is None else simulated_detections.parse(simulation)
    samples = [track.subsample(sample, every) for sample in track.load(dataset, how)]
    report = track.evaluate(samples, make)
    if as_json:
        click.echo(json.dumps(report.as_dict(), indent=2))
    else:
        _show(report)


def _pairs(options: Tuple[str, ...]) -> Dict[str, str]:
    pairs = {}
    for option in options:
        key, equals, value = option.partition("=")
        if not equals:
            raise click.UsageError(f"--set {option!r}: expected KEY=VALUE")
        pairs[key] = value
    return pairs


def _show(report: "TrackReport") -> None:
    from rich.console import Console
    from rich.table import Table

    from edgecount.toolchain.evaluate.track import COMBINED

    table = Table()
    table.add_column("sequence", no_wrap=True)
    headings = ("HOTA", "IDF1", "MOTA", "switches", "ids/person", "µs/frame")
    for heading in headings:
        table.add_column(heading, justify="right")
    for name, scores in report.sequences.items():
        table.add_row(name, *_cells(scores))
    table.add_section()
    table.add_row(COMBINED, *_cells(report.combined))
    Console().print(table)


def _cells(scores: "Scores") -> Tuple[str, ...]:
    return (
        f"{scores.hota:.1f}",
        f"{scores.idf1:.1f}",
        f"{scores.mota:.1f}",
        str(scores.id_switches),
        f"{scores.ids_per_person:.2f}",
        f"{scores.us_per_frame:.0f}",
    )
