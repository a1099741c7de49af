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
    from onnx import ModelProto

    from edgecount.infer.recipe import Recipe
    from edgecount.toolchain.quantize.agreement import Scene
    from edgecount.toolchain.quantize.counts import CountJudge
    from edgecount.toolchain.quantize.plan import Tuned


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
    "--bias-correction/--no-bias-correction",
    default=True,
    help="Correct biases, where that is nearer to FP32 on other pictures than --images.",
)
@click.option(
    "--scene",
    metavar="CLIP|DIR",
    help="Frames without labels on which the file must see what FP32 sees; default: --video.",
)
@click.option(
    "--frames", type=click.IntRange(1), default=80, show_default=True, help="Frames of --scene."
)
@click.option(
    "--agreement", type=click.FloatRange(0.0, 1.0), help="Least F1 with FP32 on those frames."
)
@click.option(
    "--video",
    metavar="CLIP",
    help="Clip of the camera; with --truth what INT8 does to counts is part of the budget, too.",
)
@truth_option()
@click.option(
    "--confirmations",
    type=click.IntRange(1),
    default=6,
    show_default=True,
    help="Files that are counted with, at most; with 1 the counts steer nothing.",
)
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
    bias_correction: bool,
    scene: Optional[str],
    frames: int,
    agreement: Optional[float],
    video: Optional[str],
    truth: Optional[Path],
    confirmations: int,
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
    if truth is not None and video is None:
        raise click.UsageError("--truth is of a clip: --video is needed, too")
    from dataclasses import replace

    import onnx

    from edgecount.toolchain.quantize import precision
    from edgecount.toolchain.quantize.calibration_set import CalibrationImages
    from edgecount.toolchain.quantize.judge import Judge, some_pairs
    from edgecount.toolchain.quantize.model_file import find
    from edgecount.toolchain.quantize.plan import CANDIDATES, Plan, Yardsticks
    from edgecount.toolchain.quantize.tune import save, tune

    path, recipe = find(model)
    pictures = CalibrationImages(images, limit)
    for note in pictures.notes:
        click.echo(f"warning: {note}", err=True)
    rules = precision.preset(preset)
    rules = replace(rules, fp16=rules.fp16 + fp16, fp32=rules.fp32 + fp32)
    proto = onnx.load(str(path))
    seen = _scene(proto, recipe, scene or video, frames)
    counted = _counted(proto, recipe, video, truth)
    plan = Plan(
        budget=recipe.budget.ap50_points if budget is None else budget,
        rules=rules,
        spare=spare,
        methods=calibrators or tuple(CANDIDATES),
        equalise=equalize,
        correct=bias_correction,
        agreement=recipe.budget.agreement if agreement is None else agreement,
        count_error=recipe.budget.count_error,
        confirmations=confirmations,
    )
    by = Yardsticks(
        judge=Judge(proto, recipe, some_pairs(data, splits, count)),
        ranking=None if seen else Judge(proto, recipe, some_pairs(data, splits, rank_count)),
        scene=seen,
        counted=counted,
    )
    tuned = tune(
        proto,
        recipe,
        pictures,
        by,
        plan,
        say=lambda text: click.echo(text, err=True),
        images_sha256=pictures.sha256,
    )
    save(tuned, out)
    if as_json:
        counts = {"fp32": counted.fp32, "true": counted.true} if counted else None
        click.echo(json.dumps({**tuned.as_dict(), "counts": counts}, indent=1))
    else:
        _show(tuned, out, plan.budget, counted)
    if not tuned.within:
        raise SystemExit(1)


def _scene(
    model: "ModelProto", recipe: "Recipe", source: Optional[str], frames: int
) -> "Optional[Scene]":
    from edgecount.toolchain.quantize.agreement import Scene, spread_frames

    if source is None:
        return None
    made = Scene(model, recipe, spread_frames(source, frames))
    click.echo(f"{source}: FP32 sees {made.heads} heads in {made.images} frames", err=True)
    return made


def _counted(
    model: "ModelProto", recipe: "Recipe", video: Optional[str], truth: Optional[Path]
) -> "Optional[CountJudge]":
    from edgecount.toolchain.evaluate.truth import read_truth_file
    from edgecount.toolchain.quantize.counts import CountJudge

    if video is None or truth is None:
        return None
    return CountJudge(model, recipe, video, read_truth_file(truth))


def _show(tuned: "Tuned", out: Path, budget: float, counted: "Optional[CountJudge]") -> None:
    kept = f"{len(tuned.spared)} layers spared" if tuned.spared else "no layer spared"
    click.echo(
        f"{out}: AP50 {tuned.final.ap50:.2f} against {tuned.fp32:.2f} of FP32 "
        f"({tuned.loss:+.2f} points lost, {budget:g} allowed), calibrated by {tuned.calibrator}, "
        f"biases {'corrected' if tuned.corrected else 'as they were'}, {kept}"
    )
    for name in tuned.spared:
        bought = tuned.bought.get(name)
        click.echo(f"  {name}" + ("" if bought is None else f": {bought:+.1f} points of agreement"))
    if tuned.agreement is not None:
        click.echo(
            f"agreement with FP32 {tuned.agreement.f1:.3f}, logits {tuned.agreement.apart:.3f} "
            f"apart ({tuned.agreement.shift:+.3f} on average), scores' logits times "
            f"{tuned.scale.slope:.3f} {tuned.scale.shift:+.3f}"
        )
    if counted is not None and tuned.count_grown is not None:
        click.echo(
            f"count error {counted.fp32 + tuned.count_grown} against {counted.fp32} of "
            f"{counted.true} crossings ({tuned.count_grown:+d})"
        )
    if not tuned.within:
        click.echo("the budget cannot be met by sparing layers: train it quantised, edgecount qat")


def _rewrite(model: Path, out: Path) -> None:
    from edgecount.toolchain.quantize.foreign import rewrite_file

    for change in rewrite_file(model, out):
        click.echo(change)
