"""``edgecount heatmap``: where people were."""

import json
import os
import time
from pathlib import Path
from typing import Optional

import click

from edgecount.cli._options import config_option, json_option


@click.command()
@config_option()
@click.option("--ledger", type=click.Path(path_type=Path), help="The ledger's file, instead of -c.")
@click.option("--camera", required=True, help="Name of the camera.")
@click.option("--since", default="today", show_default=True, metavar="TIME")
@click.option("--until", default=None, metavar="TIME", help="Now where not given.")
@click.option(
    "--image",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A picture of the camera's view to draw on.",
)
@click.option(
    "-o", "--output", type=click.Path(path_type=Path), help="Picture to write (.png, .jpg)."
)
@json_option()
def command(
    config: Optional[Path],
    ledger: Optional[Path],
    camera: str,
    since: str,
    until: Optional[str],
    image: Optional[Path],
    output: Optional[Path],
    as_json: bool,
) -> None:
    """Draw where people were: person-seconds per cell, from the ledger, by full hours."""
    from edgecount.config import load
    from edgecount.count import query
    from edgecount.count.ledger import ledger_path
    from edgecount.timezones import zone

    settings = load(config) if config else None
    path = ledger_path(ledger or (settings.ledger.path if settings else None), os.environ)
    zone_ = zone(settings.reset.timezone if settings and settings.reset else "UTC")
    now = time.time()
    start = query.parse_time(since, now, zone_)
    end = query.parse_time(until, now, zone_) if until else now
    grid = query.heat(path, camera, start, end)
    if as_json:
        click.echo(json.dumps({"camera": camera, "person_seconds": grid.tolist()}))
    if output:
        from edgecount.toolchain import heat_picture

        background = heat_picture.read_background(image) if image else None
        heat_picture.write(output, heat_picture.draw(grid, background))
    if not as_json:
        click.echo(
            f"{camera}: {int(grid.sum())} person-seconds" + (f", {output}" if output else "")
        )
