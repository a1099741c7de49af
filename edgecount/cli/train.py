"""``edgecount train``: train a detector on a YOLO-format data set."""

from pathlib import Path
from typing import Optional, Tuple

import click

from edgecount.cli._options import (
    data_option,
    file_option,
    out_folder_option,
    resume_option,
    split_option,
    train_device_option,
)


@click.command()
@click.option("--recipe", required=True, help="A shipped recipe's name, or a YAML file.")
@data_option()
@split_option("Split folder to learn from (repeatable).")
@click.option("--val", multiple=True, help="Split folder to validate on (repeatable).")
@out_folder_option()
@click.option("--init", type=click.Path(path_type=Path), help="YOLOX-nano ONNX file to start from.")
@file_option("--master", "ONNX file of a finished, larger detector to learn from, too.")
@file_option("--weights", "checkpoint.pt or exported ONNX file of the same network to start from.")
@train_device_option()
@click.option("--epochs", type=click.IntRange(1), help="Instead of the recipe's.")
@resume_option()
def command(
    recipe: str,
    data: Path,
    splits: Tuple[str, ...],
    val: Tuple[str, ...],
    out: Path,
    init: Optional[Path],
    master: Optional[Path],
    weights: Optional[Path],
    device: Optional[str],
    epochs: Optional[int],
    resume: bool,
) -> None:
    """Train a detector and export it to ONNX.

    Ctrl-C saves a checkpoint; the same command with --resume goes on from it.
    """
    from edgecount.toolchain.train import extras

    extras.require_torch()
    from edgecount.toolchain.train.recipe import load_recipe
    from edgecount.toolchain.train.session import Job, default_device, train
    from edgecount.toolchain.train.trainer import Progress

    plan = load_recipe(recipe).override(init=init, master=master, epochs=epochs)
    job = Job(data, splits, val, out, device or default_device(), resume, weights)

    def tell(progress: Progress) -> None:
        bar.update(1)
        if progress.metrics:
            rows = {**progress.losses, **progress.metrics}
            parts = "  ".join(f"{name} {value:.3f}" for name, value in rows.items())
            click.echo(f"\nepoch {progress.epoch}: {parts}")

    with click.progressbar(length=plan.schedule.epochs, label=plan.name) as bar:
        written = train(plan, job, click.echo, tell)
    if written is None:
        raise click.ClickException(f"interrupted; go on with --resume --out {out}")
    click.echo(f"wrote {written}")
