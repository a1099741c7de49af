"""``edgecount temperature``: make scores probabilities."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Optional, Tuple

import click

from edgecount.cli._options import (
    data_option,
    imgsz_option,
    json_option,
    model_option,
    split_option,
    threads_option,
)

if TYPE_CHECKING:
    from edgecount.toolchain.quantize.temperature import TemperatureReport


@click.command()
@model_option(required=True)
@data_option("Folder in YOLO format that the model was not trained on.")
@split_option()
@imgsz_option()
@threads_option()
@click.option(
    "--write",
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    metavar="RECIPE",
    help="Recipe file whose temperature and score thresholds are replaced.",
)
@json_option()
def command(
    model: str,
    data: Path,
    splits: Tuple[str, ...],
    imgsz: Optional[int],
    threads: int,
    write: Optional[Path],
    as_json: bool,
) -> None:
    """Fit the temperature that makes a detector's scores probabilities.

    Thresholds of a recipe are thresholds of calibrated scores. Those that let the same
    detections pass as before are printed, and written with the temperature.
    """
    from edgecount.toolchain.quantize import temperature

    report = temperature.measure(model, data, imgsz, splits, threads)
    if as_json:
        click.echo(json.dumps(report.as_dict(), indent=2))
    else:
        _show(report)
    if write is not None:
        temperature.write_into(write, {"temperature": report.temperature, **report.thresholds})
        click.echo(f"wrote temperature {report.temperature:.3f} into {write}", err=True)


def _show(report: "TemperatureReport") -> None:
    click.echo(
        f"{report.model}: temperature {report.temperature:.3f} "
        f"(the recipe says {report.recipe_temperature:g}), from {report.detections} detections, "
        f"{report.true} of them true"
    )
    for name, row in (("raw scores", report.before), ("calibrated (held out)", report.after)):
        click.echo(f"{name:>22}: ECE {row.ece:.4f}  NLL {row.nll:.4f}")
    for name, value in report.thresholds.items():
        click.echo(f"{name:>22}: {value:.4g} lets the same detections pass")
