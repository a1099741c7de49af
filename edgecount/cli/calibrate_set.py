"""``edgecount calibrate-set``: pick pictures for calibration."""

import sys
from pathlib import Path
from typing import Optional

import click

_TOLD_EVERY = 50


@click.command()
@click.option(
    "--source",
    required=True,
    metavar="DIR|VIDEO|rtsp://…",
    help="Folder of pictures, video file, or a camera.",
)
@click.option(
    "--out",
    required=True,
    type=click.Path(path_type=Path),
    help="Folder to make: pictures and manifest.json.",
)
@click.option(
    "--count",
    default=500,
    show_default=True,
    type=click.IntRange(1),
    help="Pictures wanted; 300 to 800 are useful.",
)
@click.option(
    "--copies",
    default=0.1,
    show_default=True,
    type=click.FloatRange(0.0, 0.5),
    help="Part of them that are blurred or dark copies.",
)
@click.option(
    "--zoom-out",
    default=0.0,
    show_default=True,
    type=click.FloatRange(0.0, 1.0),
    help="Part of them that are mosaics of shrunk pictures: a scene with small heads.",
)
@click.option(
    "--model", metavar="ONNX|NAME", help="Detector that tells which pictures are crowded."
)
@click.option(
    "--fps",
    type=click.FloatRange(0.0, min_open=True),
    help="Frames per second looked at; default: all of a video, 2 of a camera.",
)
@click.option(
    "--seconds",
    default=600.0,
    show_default=True,
    type=click.FloatRange(1.0),
    help="How long a camera is watched.",
)
@click.option("--seed", default=0, show_default=True, help="Of the copies' random numbers.")
def command(
    source: str,
    out: Path,
    count: int,
    copies: float,
    zoom_out: float,
    model: Optional[str],
    fps: Optional[float],
    seconds: float,
    seed: int,
) -> None:
    """Pick pictures that show a detector all that it will see.

    Chosen are pictures that differ from each other, some of the darkest, most blurred and
    most crowded among them; blurred and dark copies of some are added.
    """
    from edgecount.toolchain.quantize.calibration_set import Judge, Plan, build

    plan = Plan(source, count, copies, fps, seconds, seed, zoom_out)
    manifest = build(plan, out, Judge.of_model(model) if model else None, _warn, _tell)
    if sys.stderr.isatty():
        click.echo(err=True)
    for note in manifest.notes:
        _warn(note)
    copied = sum(entry.why.endswith("copy") for entry in manifest.images)
    shrunk = sum(entry.why == "zoomed out" for entry in manifest.images)
    mosaics = f", {shrunk} zoomed out" if shrunk else ""
    click.echo(
        f"{out}: {len(manifest.images)} pictures ({copied} blurred or dark copies{mosaics}) of "
        f"{manifest.seen} looked at, sha256 {manifest.sha256[:16]}"
    )


def _warn(text: str) -> None:
    click.echo(f"warning: {text}", err=True)


def _tell(seen: int) -> None:
    if seen % _TOLD_EVERY == 0 and sys.stderr.isatty():
        click.echo(f"\rlooked at {seen} pictures", nl=False, err=True)
