"""``edgecount sample``: a clip to try the service on."""

from pathlib import Path

import click


@click.command()
@click.argument("out", type=click.Path(path_type=Path, dir_okay=False))
def command(out: Path) -> None:
    """Put a sample clip at OUT: Debian's vtest.avi, or where that fails a drawn one."""
    from edgecount.toolchain.sample import fetch

    click.echo(fetch(out))
