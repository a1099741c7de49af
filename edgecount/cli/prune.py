"""``edgecount prune``: fewer channels, then fine-tuning."""

from pathlib import Path
from typing import Dict, Optional, Tuple

import click

from edgecount.cli._options import (
    checkpoint_option,
    data_option,
    out_folder_option,
    resume_option,
    split_option,
    train_device_option,
)


@click.command()
@checkpoint_option()
@click.option("--ratio", default=0.3, show_default=True, type=click.FloatRange(0.05, 0.9))
@data_option("Folder in YOLO format to fine-tune on.")
@split_option("Split folder to learn from (repeatable).")
@click.option("--val", multiple=True, help="Split folder to measure on (repeatable).")
@out_folder_option()
@click.option("--epochs", default=20, show_default=True, type=click.IntRange(1))
@train_device_option()
@resume_option()
def command(
    checkpoint: Path,
    ratio: float,
    data: Path,
    splits: Tuple[str, ...],
    val: Tuple[str, ...],
    out: Path,
    epochs: int,
    device: Optional[str],
    resume: bool,
) -> None:
    """Prune a trained detector, train it on and export it; report what it cost and saved."""
    from edgecount.toolchain.train import extras

    extras.require_torch()
    from edgecount.toolchain.train.session import Job, default_device, prune_and_tune

    job = Job(data, splits, val, out, device or default_device(), resume)
    with click.progressbar(length=epochs, label="fine-tuning") as bar:
        result = prune_and_tune(checkpoint, ratio, epochs, job, lambda _: bar.update(1))
    for name, row in (
        ("before", result.before),
        ("pruned", result.pruned),
        ("fine-tuned", result.after),
    ):
        click.echo(_line(name, row))
    if result.path is None:
        raise click.ClickException(f"interrupted; go on with --resume --out {out}")
    click.echo(f"wrote {result.path} ({result.path.stat().st_size / 1e6:.1f} MB)")


def _line(name: str, row: Dict[str, float]) -> str:
    text = f"{name:<11}{row['parameters'] / 1e6:7.3f} M parameters {row['gmac']:7.3f} GMAC"
    text += f" {row['ms']:7.2f} ms"
    if "ap50" in row:
        text += f"   AP30 {row['ap30']:.3f}  AP50 {row['ap50']:.3f}  AP50-95 {row['ap50_95']:.3f}"
    return text
