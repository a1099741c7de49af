"""``edgecount install-service``: run it by systemd from now on."""

import sys
from pathlib import Path
from typing import Optional, Tuple

import click


@click.command()
@click.option("--dry-run", is_flag=True, help="Show what would be written and run; do nothing.")
@click.option(
    "--instance",
    "instances",
    multiple=True,
    metavar="NAME",
    help="Install edgecount@NAME, which reads /etc/edgecount/NAME.yaml; may be repeated.",
)
@click.option("--maxperf", is_flag=True, help="Hold a Jetson in its fastest power mode.")
@click.option(
    "--executable",
    type=click.Path(path_type=Path),
    help="The edgecount command to run; this one where not given.",
)
def command(
    dry_run: bool, instances: Tuple[str, ...], maxperf: bool, executable: Optional[Path]
) -> None:
    """Install, enable and start the systemd service."""
    from edgecount.runtime.service import carry_out, own_executable, plan

    to_do = plan(executable or own_executable(sys.argv[0]), instances, maxperf)
    if dry_run:
        for path, content in to_do.files.items():
            click.echo(f"# write {path}\n{content}")
    for step in to_do.commands:
        click.echo(f"{'# run' if dry_run else 'run'} {' '.join(step)}")
    if not dry_run:
        carry_out(to_do)
    for note in to_do.notes:
        click.echo(f"next: {note}")
