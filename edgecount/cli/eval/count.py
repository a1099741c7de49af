"""``edgecount eval count``: counted against true crossings."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Optional

import click

from edgecount.cli._options import json_option, model_option, tiles_of, tiles_options

if TYPE_CHECKING:
    from rich.table import Table

    from edgecount.toolchain.evaluate.count import CountReport

_MOT_FILE = click.Path(path_type=Path, exists=True, dir_okay=False)


@click.command()
@click.option("--source", metavar="PATH", help="The clip: a video file or folder of pictures.")
@model_option()
@click.option("--detections", type=_MOT_FILE, help="Instead of a clip: detections (MOTChallenge).")
@click.option("--tracks", type=_MOT_FILE, help="Instead of a clip: tracks (MOTChallenge).")
@click.option(
    "--truth",
    required=True,
    type=_MOT_FILE,
    help="What 'edgecount eval make-truth' wrote: lines, zones and true events.",
)
@click.option(
    "--fps",
    type=click.FloatRange(min=0, min_open=True),
    help="True rate of the clip; the truth's where not given. The clip's header is not asked.",
)
@click.option(
    "--anchor",
    type=click.Choice(["center", "bottom"]),
    help="Point of a box that counts; where not given the model's, or else the truth's.",
)
@click.option(
    "--window",
    type=click.IntRange(min=0),
    default=20,
    show_default=True,
    help="Frames by which a counted event may differ from its true one.",
)
@click.option("--imgsz", type=click.IntRange(32), help="Side of the network's input.")
@tiles_options()
@json_option()
def command(
    source: Optional[str],
    model: Optional[str],
    detections: Optional[Path],
    tracks: Optional[Path],
    truth: Path,
    fps: Optional[float],
    anchor: Optional[str],
    window: int,
    imgsz: Optional[int],
    tiles: Optional[str],
    overlap: Optional[float],
    whole: bool,
    as_json: bool,
) -> None:
    """Count a clip and compare with its truth: missed, extra, totals and occupancy.

    Runs the product's detector, tracker and counter on every frame. With --detections the
    detector is left out, with --tracks the tracker too.
    """
    from edgecount.toolchain.evaluate import count
    from edgecount.toolchain.evaluate.truth import read_truth_file

    if sum(given is not None for given in (source, detections, tracks)) != 1:
        raise click.UsageError("give one of --source, --detections and --tracks")
    expected = read_truth_file(truth)
    rate = fps or expected.fps
    if tracks is not None:
        stream = count.stream_of_tracks(tracks, expected, rate)
    elif detections is not None:
        stream = count.stream_of_detections(detections, expected, rate)
    else:
        assert source is not None
        cut = tiles_of(tiles, overlap, whole)
        stream = count.stream_of_clip(source, model, expected, rate, size=imgsz, tiles=cut)
    chosen = anchor or stream.anchor
    counted = count.count_stream(expected, stream.frames, chosen, rate)  # type: ignore[arg-type]
    report = count.compare(expected, counted, window)
    if as_json:
        click.echo(json.dumps(report.as_dict(), indent=2))
    else:
        _show(report)


def _show(report: "CountReport") -> None:
    from rich.console import Console

    console = Console()
    if report.lines:
        console.print(_lines_table(report))
    if report.zones:
        console.print(_zones_table(report))
    click.echo(
        f"{report.true} true crossings: {report.missed} missed, {report.extra} extra, "
        f"total error {report.total_error}; occupancy off by {report.occupancy_mae:.3f} "
        f"on average over {report.frames} frames"
    )


def _lines_table(report: "CountReport") -> "Table":
    from rich.table import Table

    table = Table(title=f"Lines (matched within ±{report.window} frames)")
    table.add_column("line")
    for heading in ("true in", "counted in", "true out", "counted out", "missed", "extra"):
        table.add_column(heading, justify="right")
    for s in report.lines:
        numbers = (s.true_in, s.counted_in, s.true_out, s.counted_out, s.missed, s.extra)
        table.add_row(s.name, *map(str, numbers))
    return table


def _zones_table(report: "CountReport") -> "Table":
    from rich.table import Table

    table = Table(title="Zones")
    table.add_column("zone")
    headings = ("true entered", "counted", "true left", "counted", "mean people", "mean error")
    for heading in headings:
        table.add_column(heading, justify="right")
    for s in report.zones:
        events = (s.true_entered, s.counted_entered, s.true_left, s.counted_left)
        table.add_row(
            s.name, *map(str, events), f"{s.mean_true_occupancy:.2f}", f"{s.occupancy_mae:.3f}"
        )
    return table
