"""``edgecount calibrate``: measure where a model's activations may be clipped."""

from pathlib import Path
from typing import Optional

import click

from edgecount.cli._options import fp32_model_option, images_option, imgsz_option


@click.command()
@fp32_model_option()
@images_option(required=True)
@click.option(
    "--out",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="TABLE.json",
    help="Table to write; TensorRT's form of it is written beside it as .cache.",
)
@click.option("--method", help="Name of a calibrator; the recipe's, else entropy.")
@click.option(
    "--percentile",
    type=click.FloatRange(0.0, 100.0, min_open=True),
    help="Per cent of values kept, with --method percentile.",
)
@imgsz_option()
@click.option(
    "--batch", default=1, show_default=True, type=click.IntRange(1), help="Pictures in one call."
)
@click.option("--limit", type=click.IntRange(1), help="Use the first so many pictures only.")
@click.option(
    "--all-tensors",
    is_flag=True,
    help="Calibrate every activation, as TensorRT's implicit quantisation wants it.",
)
def command(
    model: str,
    images: Path,
    out: Path,
    method: Optional[str],
    percentile: Optional[float],
    imgsz: Optional[int],
    batch: int,
    limit: Optional[int],
    all_tensors: bool,
) -> None:
    """Run pictures through a model and choose the clipping point of each activation."""
    from edgecount.toolchain.quantize.activations import GatherSettings
    from edgecount.toolchain.quantize.calibrate import calibrate, method_of
    from edgecount.toolchain.quantize.calibration_set import CalibrationImages
    from edgecount.toolchain.quantize.model_file import find
    from edgecount.toolchain.quantize.watched import float_tensors, load

    pictures = CalibrationImages(images, limit)
    for note in pictures.notes:
        _warn(note)
    size = (imgsz, imgsz) if imgsz else None
    path, recipe = find(model, size)
    method, options = method_of(recipe, method, percentile)
    with click.progressbar(length=len(pictures), label="calibrating") as bar:
        table, _ = calibrate(
            path,
            pictures,
            recipe,
            method,
            float_tensors(load(path)[0]) if all_tensors else None,
            options=options,
            settings=GatherSettings(size=size, batch=batch),
            images_sha256=pictures.sha256,
            notice=_warn,
            progress=lambda done: bar.update(done - bar.pos),
        )
    table.save(out)
    cache = out.with_suffix(".cache")
    cache.write_text(table.to_tensorrt_cache(), encoding="utf-8")
    click.echo(
        f"{out} and {cache.name}: {len(table.amax)} activations of {recipe.name} by "
        f"{table.method}, from {table.images} pictures"
    )


def _warn(text: str) -> None:
    click.echo(f"warning: {text}", err=True)
