"""``edgecount eval detect``: average precision on a labelled data set."""

import json
from pathlib import Path
from typing import Optional, Tuple

import click

from edgecount.cli._options import (
    data_option,
    imgsz_option,
    json_option,
    model_option,
    split_option,
    threads_option,
    tiles_of,
    tiles_options,
)


@click.command()
@model_option(required=True)
@data_option()
@split_option()
@imgsz_option()
@threads_option()
@tiles_options()
@json_option()
def command(
    model: str,
    data: Path,
    splits: Tuple[str, ...],
    imgsz: Optional[int],
    threads: int,
    tiles: Optional[str],
    overlap: Optional[float],
    whole: bool,
    as_json: bool,
) -> None:
    """Average precision, recall by size and time of a detector on a data set."""
    from edgecount.toolchain.evaluate.detect import evaluate

    report = evaluate(model, data, imgsz, splits, threads, tiles_of(tiles, overlap, whole))
    if as_json:
        click.echo(json.dumps(report.as_dict(), indent=2))
        return
    click.echo(
        f"{report.model} at {report.width}x{report.height}: {report.images} images, "
        f"{report.boxes} boxes, {report.ms_per_image:.1f} ms per image ({report.threads} threads)"
    )
    click.echo(
        f"AP30 {report.ap30:.3f}  AP50 {report.ap50:.3f}  AP50-95 {report.ap50_95:.3f}  "
        f"recall50 {report.recall50:.3f}"
    )
    click.echo(
        f"at score {report.score_threshold:.2f}: precision {report.precision:.3f}, "
        f"recall {report.recall:.3f}"
    )
    for row in report.by_size:
        click.echo(
            f"  heads of {row.low:>3}..{row.high:<4} px: {row.boxes:>5}, found {row.recall:.3f}"
        )
