"""``edgecount eval make-truth``: true crossings from ground-truth tracks."""

from dataclasses import replace
from pathlib import Path
from typing import Optional, Tuple

import click

from edgecount.cli._options import file_option

_ANCHORS = {"foot": "bottom", "head": "head", "center": "center"}


def _parse_size(
    ctx: click.Context, param: click.Parameter, value: Optional[str]
) -> Optional[Tuple[int, int]]:
    """``1920x1080`` as a pair; raises ``click.BadParameter``."""
    if value is None:
        return None
    width, _, height = value.lower().partition("x")
    if not (width.isdigit() and height.isdigit() and int(width) and int(height)):
        raise click.BadParameter(f"{value!r} is no size: write it like 1920x1080", ctx, param)
    return int(width), int(height)


@click.command()
@file_option(
    "--gt",
    "Ground-truth tracks (MOTChallenge); seqinfo.ini beside it gives rate and size.",
    required=True,
)
@file_option(
    "--lines",
    "YAML with lines: and zones: as in a camera, or a configuration with one camera.",
    required=True,
)
@click.option(
    "--anchor",
    required=True,
    type=click.Choice(sorted(_ANCHORS)),
    help="The person's point: feet or head of a whole body's box, or the centre of a head's box.",
)
@click.option(
    "--size",
    callback=_parse_size,
    metavar="WxH",
    help="Size of the picture in pixels, where seqinfo.ini lacks it.",
)
@click.option("--fps", type=click.FloatRange(min=0, min_open=True), help="True rate of the clip.")
@click.option(
    "--max-gap",
    type=click.FloatRange(min=0),
    default=2.0,
    show_default=True,
    metavar="S",
    help="Longest hole in a track that is bridged, seconds.",
)
@click.option(
    "--out", type=click.Path(path_type=Path, dir_okay=False), help="File to write; else stdout."
)
def command(
    gt: Path,
    lines: Path,
    anchor: str,
    size: Optional[Tuple[int, int]],
    fps: Optional[float],
    max_gap: float,
    out: Optional[Path],
) -> None:
    """Derive the true crossings, zone events and occupancy from ground-truth tracks.

    The result holds the lines and zones too: it is all that 'eval count --truth' needs.
    """
    from edgecount.toolchain.evaluate import motchallenge, truth

    info = truth.sequence_info(gt)
    if size:
        info = replace(info, width=size[0], height=size[1])
    if fps:
        info = replace(info, fps=fps)
    derived = truth.derive(
        motchallenge.read_rows(gt),
        info,
        truth.read_lines(lines),
        _ANCHORS[anchor],  # type: ignore[arg-type]
        max_gap,
    )
    if out is None:
        click.echo(truth.as_yaml(derived), nl=False)
        return
    truth.write_truth_file(out, derived)
    crossings = sum(e.kind == "line" for e in derived.events)
    click.echo(f"{out}: {crossings} crossings of {len(derived.lines)} lines, {info.length} frames")
