"""``edgecount compare``: how far one form of a model is from another."""

import functools
import itertools
import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Iterable, Optional

import click

from edgecount.cli._options import folder_option, json_option

if TYPE_CHECKING:
    from edgecount.records import UInt8Array
    from edgecount.toolchain.build.comparison import Comparison

_MADE_UP = 4


@click.command()
@click.argument("reference", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("other")
@folder_option(
    "--images", "Folder of pictures to feed, a calibration set for example; else made-up ones."
)
@click.option(
    "--limit", type=click.IntRange(1), default=16, show_default=True, help="Most pictures."
)
@click.option(
    "--polygraphy",
    is_flag=True,
    help="Let Polygraphy compare every layer of the ONNX file OTHER in TensorRT, too.",
)
@json_option()
def command(
    reference: Path,
    other: str,
    images: Optional[Path],
    limit: int,
    polygraphy: bool,
    as_json: bool,
) -> None:
    """Compare OTHER (an ONNX file, an engine, or a model with one engine) with REFERENCE.

    REFERENCE is an ONNX file and runs in ONNX Runtime on the CPU. Shown are the differences of
    every layer that both files have, of the output, and of the detections.
    """
    from edgecount.infer.tensorrt.cache import EngineCache, cache_folder
    from edgecount.toolchain.build import extras

    extras.require_onnx()
    from edgecount.toolchain.build.comparison import compare
    from edgecount.toolchain.build.inspection import find_engine

    path = find_engine(other, EngineCache(cache_folder(os.environ)))
    found = compare(reference, path, _pictures(images, limit))
    if as_json:
        click.echo(json.dumps(found.as_dict(), indent=2, ensure_ascii=False))
    else:
        _show(found)
    if polygraphy:
        from edgecount.infer.tensorrt import versions
        from edgecount.toolchain.build.polygraphy import run

        sys.exit(run(path, _pictures(images, limit), versions.find()))


def _pictures(folder: Optional[Path], limit: int) -> "Iterable[UInt8Array]":
    from edgecount.toolchain.build.comparison import made_up_pictures

    if folder is None:
        click.echo("no --images: made-up pictures are fed, which show nobody", err=True)
        return made_up_pictures(min(limit, _MADE_UP))
    from edgecount.toolchain.quantize.calibration_set.images import CalibrationImages

    return itertools.islice(CalibrationImages(folder, limit), limit)


def _show(found: "Comparison") -> None:
    from rich.console import Console
    from rich.table import Table

    # A pipe has no width to fit into.
    console = Console(width=None if sys.stdout.isatty() else 160)
    if found.layers:
        table = Table("worst layers", "relative", "largest", "cosine", box=None)
        for d in found.worst():
            row = (d.made_by, f"{d.relative:.2%}", f"{d.largest:.4g}", f"{d.cosine:.6f}")
            table.add_row(*row)
        console.print(table)
    output, seen = found.output, found.detections
    console.print(f"{found.pictures} pictures, {len(found.layers)} layers compared")
    say = functools.partial(console.print, markup=False, highlight=False, soft_wrap=True)
    say(
        f"output: relative {output.relative:.2%}, largest {output.largest:.4g}, "
        f"cosine {output.cosine:.6f}"
    )
    say(
        f"detections: {seen.both} in both (mean IoU {seen.mean_iou:.3f}, scores differ by "
        f"{seen.largest_score:.3f} at most), {seen.only_reference} only in the reference, "
        f"{seen.only_other} only in the other"
    )
