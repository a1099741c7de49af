"""``edgecount quantize``: an INT8 file within an accuracy budget."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Optional, Tuple

import click

from edgecount.cli._options import (
    data_option,
    fp32_model_option,
    images_option,
    json_option,
    split_option,
    truth_option,
)

if TYPE_CHECKING:
    from edgecount.toolchain.quantize.tune import Tuned


@click.command()
@fp32_model_option()
@images_option()
@data_option(
    "Labelled pictures in YOLO format, for the loss; not those of --images.", required=False
)
@split_option()
@click.option(
    "--out",
    required=True,
    type=click.Path(dir_okay=False, path_type=Path),
    metavar="INT8.onnx",
    help="File to write; its calibration table goes beside it, as .table.json and .table.cache.",
)
@click.option("--budget", type=click.FloatRange(0.0), help="Points of AP50 that may be lost.")
@click.option(
    "--calibrator",
    "calibrators",
    multiple=True,
    type=click.Choice(
        ["entropy", "percentile 99.9", "percentile 99.99", "percentile 99.999", "minmax"]
    ),
    help="Calibrators to try (repeatable); default: all.",
)
@click.option(
    "--equalize/--no-equalize",
    default=True,
    help="Even out the channels of activations first (exact; helps where Relu is used).",
)
@click.option("--preset", default="int8", show_default=True, help="Precision rules to start from.")
@click.option("--fp16", multiple=True, metavar="PATTERN", help="Layers in FP16 (repeatable).")
@click.option("--fp32", multiple=True, metavar="PATTERN", help="Layers in FP32 (repeatable).")
@click.option(
    "--spare",
    type=click.Choice(["fp16", "fp32"]),
    default="fp16",
    show_default=True,
    help="Precision of layers that the budget keeps out of INT8.",
)
@click.option(
    "--count", type=click.IntRange(1), default=400, show_default=True, help="Pictures of --data."
)
@click.option(
    "--rank-count",
    type=click.IntRange(1),
    default=32,
    show_default=True,
    help="Pictures that each layer's damage is measured on.",
)
@click.option(
    "--video",
    metavar="CLIP",
    help="Clip whose crossings are known: what INT8 does to counts is part of the budget, too.",
)
@truth_option()
@click.option("--limit", type=click.IntRange(1), help="Use the first so many of --images only.")
@click.option(
    "--symmetric",
    is_flag=True,
    help="Rewrite a file that holds asymmetric Q/DQ, as TensorRT cannot read it, and nothing else.",
)
@json_option()
def command(
    model: str,
    images: Optional[Path],
    data: Optional[Path],
    splits: Tuple[str, ...],
    out: Path,
    budget: Optional[float],
    calibrators: Tuple[str, ...],
    equalize: bool,
    preset: str,
    fp16: Tuple[str, ...],
    fp32: Tuple[str, ...],
    spare: str,
    count: int,
    rank_count: int,
    video: Optional[str],
    truth: Optional[Path],
    limit: Optional[int],
    symmetric: bool,
    as_json: bool,
) -> None:
    """Calibrate, quantise, and spare the fewest layers that keep the loss within a budget."""
    if symmetric:
        _rewrite(Path(model), out)
        return
    if images is None or data is None:
        raise click.UsageError("--images and --data are needed (or --symmetric)")
    if (video is None) != (truth is None):
        raise click.UsageError("--video and --truth go together")
    from dataclasses import replace

    import onnx

    from edgecount.toolchain.evaluate.truth import read_truth_file
    from edgecount.toolchain.quantize import precision
    from edgecount.toolchain.quantize.calibration_set import CalibrationImages
    from edgecount.toolchain.quantize.counts import measure
    from edgecount.toolchain.quantize.judge import Judge, some_pairs
    from edgecount.toolchain.quantize.model_file import find
    from edgecount.toolchain.quantize.tune import CANDIDATES, Plan, note_loss, save, tune

    path, recipe = find(model)
    pictures = CalibrationImages(images, limit)
    for note in pictures.notes:
        click.echo(f"warning: {note}", err=True)
    rules = precision.preset(preset)
    rules = replace(rules, fp16=rules.fp16 + fp16, fp32=rules.fp32 + fp32)
    proto = onnx.load(str(path))
    allowed = recipe.budget.ap50_points if budget is None else budget
    tuned = tune(
        proto,
        recipe,
        pictures,
        Judge(proto, recipe, some_pairs(data, splits, count)),
        Plan(allowed, rules, spare, calibrators or tuple(CANDIDATES), equalize),
        say=lambda text: click.echo(text, err=True),
        ranking=Judge(proto, recipe, some_pairs(data, splits, rank_count)),
        images_sha256=pictures.sha256,
    )
    loss = {"ap50_points": round(tuned.loss, 3), "within": tuned.within}
    note_loss(tuned.model, loss)
    save(tuned.model, out)
    counts = None
    if video is not None and truth is not None:
        counts = measure(path, out, recipe, video, read_truth_file(truth))
        loss["count_error"] = counts.grown
        loss["within"] = tuned.within and counts.grown <= recipe.budget.count_error
        note_loss(tuned.model, loss)
        save(tuned.model, out)
    table = out.with_suffix(".table.json")
    tuned.table.save(table)
    table.with_suffix(".cache").write_text(tuned.table.to_tensorrt_cache(), encoding="utf-8")
    if as_json:
        found = {**tuned.as_dict(), "counts": counts._asdict() if counts else None, **loss}
        click.echo(json.dumps(found, indent=1))
    else:
        _show(tuned, out, allowed)
        if counts is not None:
            click.echo(
                f"count error {counts.quantised} against {counts.fp32} of {counts.true} crossings "
                f"({counts.grown:+d}, {recipe.budget.count_error:g} allowed)"
            )
    if not loss["within"]:
        raise SystemExit(1)


def _show(tuned: "Tuned", out: Path, budget: float) -> None:
    kept = f"{len(tuned.spared)} layers spared" if tuned.spared else "no layer spared"
    click.echo(
        f"{out}: AP50 {tuned.final.ap50:.2f} against {tuned.fp32:.2f} of FP32 "
        f"({tuned.loss:+.2f} points lost, {budget:g} allowed), calibrated by {tuned.calibrator}, "
        f"{kept}"
    )
    for name in tuned.spared:
        click.echo(f"  {name}")
    if not tuned.within:
        click.echo("the budget cannot be met by sparing layers: train it quantised, edgecount qat")


def _rewrite(model: Path, out: Path) -> None:
    from edgecount.toolchain.quantize.foreign import rewrite_file

    for change in rewrite_file(model, out):
        click.echo(change)
