"""``edgecount inspect``: the layers of an engine."""

import json
import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Optional

import click

from edgecount.cli._options import json_option

if TYPE_CHECKING:
    from edgecount.toolchain.build.inspection import Inspection


@click.command()
@click.argument("engine")
@click.option(
    "--html",
    type=click.Path(dir_okay=False, path_type=Path),
    help="Write a page with all layers to this file.",
)
@click.option(
    "--runtime",
    type=click.Choice(["tensorrt", "tensorrt_rtx"]),
    help="What opens an engine without a manifest.",
)
@json_option()
def command(engine: str, html: Optional[Path], runtime: Optional[str], as_json: bool) -> None:
    """Show the layers of ENGINE: an engine file, or a model that has one engine here.

    Which nodes were fused, in which precision each layer computes, and which reformats and
    left-over Q/DQ layers cost time. An engine that this machine cannot open is described by
    the manifest beside it.
    """
    from edgecount.infer.tensorrt.cache import EngineCache, cache_folder
    from edgecount.toolchain.build.inspection import find_engine, inspect

    found = inspect(find_engine(engine, EngineCache(cache_folder(os.environ))), runtime)
    if html is not None:
        from edgecount.toolchain.build.inspection_html import render

        html.write_text(render(found), encoding="utf-8")
        click.echo(f"wrote {html}", err=True)
    if as_json:
        click.echo(json.dumps(found.as_dict(), indent=2, ensure_ascii=False))
    else:
        _show(found)


def _show(found: "Inspection") -> None:
    from rich.console import Console
    from rich.table import Table

    from edgecount.toolchain.build.inspection import short

    # A pipe has no width to fit into.
    console = Console(width=None if sys.stdout.isatty() else 160)
    table = Table("layer", "kind", "precision", "fused", "", box=None)
    for row in found.rows:
        fused = str(len(row.fused)) if row.fused else ""
        table.add_row(short(row.layer.name), row.layer.kind, row.layer.precision, fused, row.remark)
    console.print(table)
    counts = ", ".join(f"{n} {name}" for name, n in found.precisions().items())
    console.print(f"{len(found.rows)} layers: {counts}", highlight=False)
    for finding in found.findings:
        console.print(f"- {finding}", markup=False, highlight=False, soft_wrap=True)
