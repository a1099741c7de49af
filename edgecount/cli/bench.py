"""``edgecount bench``: how fast is it here, and where does the time go."""

import json
from typing import Optional

import click

from edgecount.cli._options import json_option, model_option, source_option


@click.command()
@source_option(required=True)
@model_option()
@click.option("--fps", type=click.FloatRange(min=0.1), help="Pace the source to this rate.")
@click.option("--seconds", default=20.0, show_default=True, help="Time for the pipeline in all.")
@click.option(
    "--turns",
    default=4,
    show_default=True,
    type=click.IntRange(1, 100),
    help="Turns of pipeline and bare inference.",
)
@click.option("--threads", type=click.IntRange(1, 256), help="Threads of the network.")
@json_option()
def command(
    source: str,
    model: Optional[str],
    fps: Optional[float],
    seconds: float,
    turns: int,
    threads: Optional[int],
    as_json: bool,
) -> None:
    """Measure the whole pipeline on a clip, in turns with the bare network."""
    from edgecount.toolchain.bench import bench

    result = bench(source, model, seconds=seconds, turns=turns, fps=fps, threads=threads)
    if as_json:
        click.echo(json.dumps(result.as_dict(), indent=2))
        return
    for name, value in result.as_dict().items():
        shown = json.dumps(value) if isinstance(value, dict) else value
        click.echo(f"{name:>18}  {shown}")
