"""``edgecount export``: a checkpoint as an ONNX file."""

from pathlib import Path

import click

from edgecount.cli._options import checkpoint_option


@click.command()
@checkpoint_option()
@click.option(
    "--out", required=True, type=click.Path(dir_okay=False, path_type=Path), help="ONNX file."
)
def command(checkpoint: Path, out: Path) -> None:
    """Export a trained detector to ONNX.

    Batch norms are folded, batch and picture size stay free, and the file is written only if
    ONNX Runtime gives PyTorch's numbers to 1e-4.
    """
    from edgecount.toolchain.train import extras

    extras.require_torch()
    from edgecount.toolchain.train.export import export_onnx, restore

    recipe, model = restore(checkpoint)
    worst = export_onnx(model, out, recipe)
    click.echo(f"wrote {out}; largest difference to PyTorch {worst:.1e}")
