"""``edgecount support-bundle``: one file for someone who helps."""

import time
from pathlib import Path
from typing import Optional

import click

from edgecount.cli._options import config_option


@click.command()
@config_option()
@click.option(
    "-o",
    "--output",
    type=click.Path(path_type=Path, dir_okay=False),
    help="File to write; edgecount-support-<time>.tar.gz where not given.",
)
def command(config: Optional[Path], output: Optional[Path]) -> None:
    """Collect versions, findings, logs and metrics into one file, with secrets masked."""
    from edgecount.toolchain.support import write_bundle

    target = output or Path(time.strftime("edgecount-support-%Y%m%d-%H%M%S.tar.gz", time.gmtime()))
    parts = write_bundle(config, target)
    click.echo(f"{target}: {len(parts)} parts ({', '.join(parts)})")
    click.echo("Passwords are masked. Look through it before you hand it on.")
