"""``edgecount sensitivity``: which layers suffer from INT8."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Optional, Tuple

import click

from edgecount.cli._options import (
    data_option,
    file_option,
    fp32_model_option,
    json_option,
    split_option,
)

if TYPE_CHECKING:
    from edgecount.toolchain.quantize.sensitivity import Sensitivity

_SHOWN = 30
_EVERY = 10


@click.command()
@fp32_model_option()
@file_option("--table", "Calibration table (edgecount calibrate).", required=True)
@data_option()
@split_option()
@click.option(
    "--count", type=click.IntRange(1), default=32, show_default=True, help="Pictures to judge by."
)
@click.option(
    "--reverse/--no-reverse", default=True, help="Also quantise all layers but one at a time."
)
@click.option("--plot", type=click.Path(dir_okay=False, path_type=Path), help="PNG to write.")
@json_option()
def command(
    model: str,
    table: Path,
    data: Path,
    splits: Tuple[str, ...],
    count: int,
    reverse: bool,
    plot: Optional[Path],
    as_json: bool,
) -> None:
    """Quantise each layer alone (and all but each), and rank layers by the damage."""
    from edgecount.toolchain.quantize import sensitivity
    from edgecount.toolchain.quantize.judge import Judge, some_pairs
    from edgecount.toolchain.quantize.model_file import find
    from edgecount.toolchain.quantize.table import CalibrationTable
    from edgecount.toolchain.quantize.watched import load

    path, recipe = find(model)
    calibrated = CalibrationTable.load(table)
    proto, digest = load(path)
    calibrated.check_model(digest, path.name)
    judge = Judge(proto, recipe, some_pairs(data, splits, count))

    def progress(done: int, total: int) -> None:
        if done % _EVERY == 0 or done == total:
            click.echo(f"{done} of {total} layers", err=True)

    found = sensitivity.measure(proto, calibrated, judge, reverse=reverse, progress=progress)
    if plot is not None:
        from edgecount.toolchain.quantize.sensitivity_plot import draw

        draw(found, plot)
    if as_json:
        click.echo(json.dumps(found.as_dict(), indent=1))
    else:
        _show(found)


def _show(found: "Sensitivity") -> None:
    from rich.console import Console
    from rich.table import Table

    title = f"AP50 {found.fp32:.2f} in FP32, {found.int8.ap50:.2f} in INT8"
    table = Table(title=f"{title} ({found.images} pictures)")
    table.add_column("layer")
    for column in ("SQNR, dB", "AP50 lost alone", "AP50 won back"):
        table.add_column(column, justify="right")
    for row in found.layers[:_SHOWN]:
        won = "" if row.without is None else f"{row.without.ap50 - found.int8.ap50:+.2f}"
        table.add_row(
            row.layer, f"{row.alone.sqnr_db:.1f}", f"{found.fp32 - row.alone.ap50:+.2f}", won
        )
    Console().print(table)
    if len(found.layers) > _SHOWN:
        click.echo(f"… and {len(found.layers) - _SHOWN} layers with less noise")
