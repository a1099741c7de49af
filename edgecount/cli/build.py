"""``edgecount build``: an ONNX file as an engine of this machine's TensorRT."""

import json
import os
import re
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Optional, Union

import click

from edgecount.cli._options import json_option

if TYPE_CHECKING:
    from edgecount.toolchain.build.builder import Built
    from edgecount.toolchain.build.progress import BarProgress, LineProgress

_UNITS = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}


def _size(value: str) -> int:
    """Bytes from ``512MiB`` or ``2GiB``."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?) *([KMG]?)(?:i?B)?", value, re.IGNORECASE)
    if found is None:
        raise click.BadParameter(f"{value!r} is no size: write 512MiB or 2GiB")
    return int(float(found.group(1)) * _UNITS[found.group(2).upper()])


@click.command()
@click.argument("model")
@click.option(
    "--precision",
    type=click.Choice(["auto", "fp32", "fp16", "int8"]),
    default="auto",
    show_default=True,
    help="auto: INT8 where the GPU has units for it, the model a quantised file, and it is "
    "faster than FP16; else FP16.",
)
@click.option("--min", "least", metavar="1x3xHxW", help="Least input shape.")
@click.option("--opt", "usual", metavar="1x3xHxW", help="Usual input shape; the recipe's.")
@click.option("--max", "most", metavar="BxCxHxW", help="Greatest input shape.")
@click.option(
    "--workspace",
    type=_size,
    metavar="SIZE",
    default="2GiB",
    show_default=True,
    help="Most scratch memory of the build and of the engine.",
)
@click.option(
    "--runtime", type=click.Choice(["tensorrt", "tensorrt_rtx"]), help="Where both are there."
)
@click.option("--for", "profile", metavar="BOARD", help="A device profile of the model's recipe.")
@click.option("--dla", is_flag=True, help="Run layers on the board's DLA where they can.")
@click.option(
    "--calibration",
    type=click.Path(exists=True, path_type=Path),
    help="Let TensorRT (up to 10) quantise the FP32 file by itself: with the scales of this table, "
    "or on the pictures of this folder.",
)
@click.option(
    "--calibrator",
    type=click.Choice(["entropy", "minmax"]),
    default="entropy",
    show_default=True,
    help="TensorRT's calibrator, for a folder of pictures.",
)
@click.option("--force", is_flag=True, help="Build also where the engine is there already.")
@json_option()
def command(
    model: str,
    precision: str,
    least: Optional[str],
    usual: Optional[str],
    most: Optional[str],
    workspace: int,
    runtime: Optional[str],
    profile: Optional[str],
    dla: bool,
    calibration: Optional[Path],
    calibrator: str,
    force: bool,
    as_json: bool,
) -> None:
    """Build MODEL (a shipped model's name, an ONNX file or a model folder) for this device.

    An engine that was built before from the same files with the same software for the same
    GPU is used again. The engine before it is kept: edgecount model rollback.
    """
    from edgecount.toolchain.build import extras

    extras.require_onnx()
    from edgecount.infer.tensorrt import device, versions
    from edgecount.infer.tensorrt.cache import EngineCache, cache_folder
    from edgecount.infer.tensorrt.profile import parse
    from edgecount.toolchain.build.auto import build_fastest, measure_on_device
    from edgecount.toolchain.build.request import BuildRequest

    shapes = tuple(parse(s) if s else None for s in (least, usual, most))
    request = BuildRequest(
        model=model,
        precision=precision,  # type: ignore[arg-type]
        shapes=shapes,  # type: ignore[arg-type]
        workspace=workspace,
        dla=dla,
        profile=profile,
        calibration=calibration,
        calibrator=calibrator,  # type: ignore[arg-type]
    )
    cache = EngineCache(cache_folder(os.environ))
    trt = versions.find(runtime)
    with _progress() as progress:
        built = build_fastest(
            request,
            trt,
            device.look(),
            cache,
            progress,
            force=force,
            timed=lambda engine: measure_on_device(engine, trt),
        )
    click.echo(_json(built) if as_json else _text(built))


def _progress() -> "Union[BarProgress, LineProgress]":
    """Bars at a terminal, else lines; on stderr either way."""
    from rich.console import Console

    from edgecount.toolchain.build.progress import BarProgress, LineProgress

    if sys.stderr.isatty():
        return BarProgress(Console(stderr=True))
    return LineProgress(lambda text: click.echo(text, err=True))


def _json(built: "Built") -> str:
    manifest = built.entry.manifest
    return json.dumps(
        {
            "engine": str(built.entry.engine),
            "reused": built.reused,
            "reason": built.reason,
            "notes": list(built.notes),
            "precisions": manifest.precisions(),
            "manifest": manifest.model_dump(mode="json"),
        },
        indent=2,
        ensure_ascii=False,
    )


def _text(built: "Built") -> str:
    manifest = built.entry.manifest
    key = manifest.key
    counts = ", ".join(f"{n} {name}" for name, n in manifest.precisions().items())
    verb = "already built" if built.reused else f"built in {manifest.build_seconds:.1f} s"
    kind = "layers" if manifest.layers_of == "engine" else "layers before fusion"
    return (
        f"{built.entry.engine}\n{key.model} {key.precision} {key.profile.text} for "
        f"{key.version.label}, {verb}, {manifest.engine_bytes / 2**20:.1f} MiB; {kind}: {counts}"
    )
