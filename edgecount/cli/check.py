"""``edgecount check``: whether a configuration would run."""

from pathlib import Path

import click

from edgecount.cli._options import config_option


@click.command()
@config_option(required=True)
def command(config: Path) -> None:
    """Check a configuration: syntax, names, geometry, model and options. Nothing is started.

    Ends with 0 when it would run, with 2 and every mistake by line and key when not.
    """
    from edgecount.config import load
    from edgecount.runtime.plan import TENSORRT, prepare

    plan = prepare(load(config), lambda _stage, _seconds: None)
    for warning in plan.warnings:
        click.echo(f"warning: {warning}")
    cameras = ", ".join(f"{c.settings.name} ({c.source.label})" for c in plan.cameras)
    model = plan.model
    where = "" if model.runtime == TENSORRT else "on a CPU: "
    runs = f"{where}{model.precision} in {model.runtime}"
    click.echo(f"{config} is good: model {model.recipe.name} ({runs}), cameras {cameras}")
