"""``edgecount kernels``: compile the CUDA kernels for boards that are not here."""

import json
from pathlib import Path
from typing import Optional, Tuple

import click

from edgecount.cli._options import json_option


@click.command()
@click.option(
    "--arch",
    "archs",
    multiple=True,
    help="Architecture, such as sm_87; may be given several times. Default: all boards'.",
)
@click.option(
    "--nvrtc",
    type=click.Path(path_type=Path, file_okay=False, exists=True),
    help="Folder that holds NVRTC; else the one that is installed.",
)
@json_option()
def command(archs: Tuple[str, ...], nvrtc: Optional[Path], as_json: bool) -> None:
    """Compile every CUDA kernel, without a GPU, and say what each needs of one."""
    from edgecount.infer.cuda.compiler import Nvrtc
    from edgecount.toolchain import kernels

    compiler = kernels.nvrtc_in(nvrtc) if nvrtc else Nvrtc.find()
    built = kernels.build(compiler, archs or kernels.ARCHITECTURES)
    if as_json:
        click.echo(json.dumps([b.as_dict() for b in built], indent=2))
        return
    click.echo("arch    kernel           registers  shared  stack  spilled  macros")
    for row in (r for b in built for r in b.rows()):
        spilled = row["spill_stores"] + row["spill_loads"]
        click.echo(
            f"{row['arch']:<7} {row['kernel']:<16} {row['registers']:9}  {row['shared']:6}  "
            f"{row['stack']:5}  {spilled:7}  {row['macros']}"
        )
