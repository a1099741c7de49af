"""``edgecount simulate``: counts in simulated scenes with exact truth."""

import json
from pathlib import Path
from typing import TYPE_CHECKING, Optional, Sequence, Tuple

import click

from edgecount.cli._options import json_option

if TYPE_CHECKING:
    from edgecount.toolchain.simulate import Result


@click.command()
@click.option(
    "--scenario", "names", multiple=True, metavar="NAME", help="Only this one; may be repeated."
)
@click.option(
    "--seed", type=click.IntRange(min=0), default=1, show_default=True, help="Random seed."
)
@click.option(
    "--out",
    type=click.Path(path_type=Path, file_okay=False),
    help="Also write the scenes here, in the MOTChallenge layout with lines and truth.",
)
@json_option()
def command(names: Sequence[str], seed: int, out: Optional[Path], as_json: bool) -> None:
    """Count people in simulated scenes and compare with the exact truth.

    Walking people, crowds, loiterers, U-turns, runners, occlusions, flicker and drop-outs go
    through the product's own tracker and counter. The same seed gives the same scenes.
    """
    from edgecount.toolchain import simulate
    from edgecount.track import two_stage

    kinds = [simulate.scenario(n) for n in names] if names else list(simulate.SCENARIOS)
    results = []
    for kind in kinds:
        scene = simulate.simulate(kind, seed)
        if out is not None:
            simulate.write_scene(scene, out / kind.name)
        results.append(simulate.judge(scene, two_stage.create(two_stage.Options())))
    total = simulate.overall(results)
    if as_json:
        data = {"scenarios": [r.as_dict() for r in results], "overall": total.as_dict()}
        click.echo(json.dumps(data, indent=2))
    else:
        _show(results, total)


def _show(results: "Sequence[Result]", total: "Result") -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(title="Simulated scenes")
    table.add_column("scenario")
    headings = ("people", "true", "counted", "missed", "extra", "count error", "zone error")
    for heading in headings:
        table.add_column(heading, justify="right")
    for result in results:
        table.add_row(*_cells(result))
    table.add_section()
    table.add_row(*_cells(total))
    Console().print(table)


def _cells(result: "Result") -> Tuple[str, ...]:
    numbers = (result.people, result.true, result.counted, result.missed, result.extra)
    shares = f"{100 * result.error:.1f} %", f"{result.occupancy_mae:.3f}"
    return (result.scenario, *map(str, numbers), *shares)
