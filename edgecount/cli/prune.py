"""``edgecount prune``: fewer channels, then fine-tuning."""

from pathlib import Path
from typing import Dict, Optional, Tuple

import click


@click.command()
@click.option(
    "--checkpoint",
    required=True,
    type=click.Path(exists=True, dir_okay=False, path_type=Path),
    help="checkpoint.pt of a training.",
)
@click.option("--ratio", default=0.3, show_default=True, type=click.FloatRange(0.05, 0.9))
@click.option(
    "--data",
    required=True,
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder in YOLO format to fine-tune on.",
)
@click.option("--split", "splits", multiple=True, help="Split folder to learn from (repeatable).")
@click.option("--val", multiple=True, help="Split folder to measure on (repeatable).")
@click.option(
    "--out", required=True, type=click.Path(file_okay=False, path_type=Path), help="Output folder."
)
@click.option("--epochs", default=20, show_default=True, type=click.IntRange(1))
@click.option(
    "--device", type=click.Choice(["cuda", "cpu"]), help="Default: cuda where there is one."
)
@click.option("--resume", is_flag=True, help="Go on from the checkpoint in --out.")
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
