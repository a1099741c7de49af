"""``edgecount report``: what each precision of a model costs and gives."""

import sys
from pathlib import Path
from typing import Any, Dict, Optional, Tuple

import click

from edgecount.cli._options import (
    data_option,
    file_option,
    folder_option,
    fp32_model_option,
    imgsz_option,
    out_folder_option,
    split_option,
    threads_option,
    truth_option,
)


@click.command()
@fp32_model_option()
@data_option("Labelled pictures in YOLO format to measure on.")
@split_option()
@folder_option("--images", "Calibration images (edgecount calibrate-set). Default: some of --data.")
@click.option("--video", help="A clip to count in.")
@truth_option()
@file_option(
    "--tuned", "Tuned INT8 file. Default: MODEL.int8.onnx beside the model, else made here."
)
@file_option(
    "--qat", "File of edgecount qat. Default: MODEL.qat.onnx beside the model, else left out."
)
@out_folder_option()
@click.option(
    "--backend",
    type=click.Choice(["cpu", "cuda", "tensorrt"]),
    default="cpu",
    show_default=True,
    help="What runs the networks.",
)
@imgsz_option()
@threads_option()
@click.option(
    "--turns",
    default=20,
    show_default=True,
    type=click.IntRange(1),
    help="Rounds of ten pictures each in which times are taken.",
)
def command(
    model: str,
    data: Path,
    splits: Tuple[str, ...],
    images: Optional[Path],
    video: Optional[str],
    truth: Optional[Path],
    tuned: Optional[Path],
    qat: Optional[Path],
    out: Path,
    backend: str,
    imgsz: Optional[int],
    threads: int,
    turns: int,
) -> None:
    """Measure FP32, FP16 and INT8 (basic, tuned, trained) and write one page and one JSON.

    The same pictures, clip and machine for all; times are taken in turns.
    """
    from edgecount.toolchain.report.detectors import Place
    from edgecount.toolchain.report.report import Request, build

    if (video is None) != (truth is None):
        raise click.UsageError("--video and --truth go together")
    request = Request(
        model=model,
        data=data,
        out=out,
        splits=splits,
        calibration=images,
        video=video,
        truth=truth,
        tuned=tuned,
        qat=qat,
        place=Place(backend, threads, (imgsz, imgsz) if imgsz else None),
        turns=turns,
        command=" ".join(["edgecount", *sys.argv[1:]]),
    )
    report = build(request, lambda text: click.echo(f"… {text}", err=True))
    for row in report.rows:
        click.echo(_line(row))
    for verdict in report.verdicts:
        click.echo(("  kept    " if verdict.kept else "  FAILED  ") + verdict.text)
    click.echo(f"wrote {report.page} and {report.json}")


def _line(row: Dict[str, Any]) -> str:
    count = row["count"]
    text = (
        f"{row['title']:<44} {row['fps']:7.1f} FPS  {row['p50_ms']:7.2f} ms  "
        f"AP50 {100 * row['ap50']:.2f}  ECE {row['ece']:.4f}"
    )
    return text if count is None else f"{text}  count error {count['error']}"
