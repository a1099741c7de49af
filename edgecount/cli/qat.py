"""``edgecount qat``: train a detector to live with INT8."""

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Dict, Optional, Tuple

import click

from edgecount.cli._options import (
    data_option,
    file_option,
    folder_option,
    fp32_model_option,
    out_folder_option,
    resume_option,
    split_option,
    train_device_option,
)

if TYPE_CHECKING:
    from edgecount.toolchain.train.qat import QatResult


@click.command()
@fp32_model_option()
@folder_option(
    "--images", "Calibration set: channels are evened out and the file is calibrated first."
)
@file_option("--table", "Instead, a calibration table of that very file (edgecount calibrate).")
@click.option(
    "--recipe", required=True, help="The training recipe's name, or a YAML file: its qat section."
)
@data_option()
@split_option("Split folder to learn from (repeatable).")
@click.option("--val", multiple=True, help="Split folder to validate on (repeatable).")
@out_folder_option()
@click.option(
    "--preset",
    default="int8",
    show_default=True,
    help="Which layers are quantised: int8, int8+fp16-neck, int8+fp32-head or fallback-last-3.",
)
@click.option("--fp16", multiple=True, metavar="PATTERN", help="Layers in FP16, besides.")
@click.option("--fp32", multiple=True, metavar="PATTERN", help="Layers in FP32, besides.")
@train_device_option()
@click.option("--epochs", type=click.IntRange(1), help="Instead of the recipe's.")
@resume_option()
def command(
    model: str,
    images: Optional[Path],
    table: Optional[Path],
    recipe: str,
    data: Path,
    splits: Tuple[str, ...],
    val: Tuple[str, ...],
    out: Path,
    preset: str,
    fp16: Tuple[str, ...],
    fp32: Tuple[str, ...],
    device: Optional[str],
    epochs: Optional[int],
    resume: bool,
) -> None:
    """Fine-tune a calibrated detector with its rounding in place, and write the Q/DQ file.

    The FP32 file's own outputs are the teacher. Ctrl-C saves a checkpoint; the same command
    with --resume goes on from it.
    """
    from edgecount.toolchain.train import extras

    extras.require_torch()
    from edgecount.toolchain.quantize import precision
    from edgecount.toolchain.train.qat import prepare_from_images, prepare_job, train_quantised
    from edgecount.toolchain.train.recipe import load_recipe
    from edgecount.toolchain.train.session import Job, default_device

    plan = load_recipe(recipe).override(qat_epochs=epochs)
    rules = precision.preset(preset)
    rules = replace(rules, fp16=rules.fp16 + fp16, fp32=rules.fp32 + fp32)
    if (images is None) == (table is None):
        raise click.UsageError("give either --images or --table")
    if images is not None:
        what = prepare_from_images(model, images, rules, out)
    else:
        assert table is not None
        what = prepare_job(model, table, rules)
    job = Job(data, splits, val, out, device or default_device(), resume)
    with click.progressbar(length=plan.qat.epochs, label=f"{plan.name}, INT8") as bar:
        result = train_quantised(plan, what, job, click.echo, lambda _: bar.update(1))
    if result is None:
        raise click.ClickException(f"interrupted; go on with --resume --out {out}")
    _show(result)


def _show(result: "QatResult") -> None:
    rows = (("FP32", result.fp32), ("calibrated", result.before), ("trained", result.after))
    for name, row in rows:
        if row:
            click.echo(_line(name, row))
    click.echo(
        f"wrote {result.path} ({result.path.stat().st_size / 1e6:.1f} MB); no activation is more "
        f"than {result.steps_apart:.2f} quantised steps from ONNX Runtime's"
    )


def _line(name: str, row: Dict[str, float]) -> str:
    return (
        f"{name:<11} AP30 {row['ap30']:.4f}  AP50 {row['ap50']:.4f}  AP50-95 {row['ap50_95']:.4f}"
    )
