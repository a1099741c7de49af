"""``edgecount promote``: let a measured INT8 file count, if it earns it."""

from pathlib import Path
from typing import Optional

import click

from edgecount.cli._options import file_option, fp32_model_option


@click.command()
@fp32_model_option()
@file_option("--report", "report.json of edgecount report.")
@click.option(
    "--variant",
    default="int8-tuned",
    show_default=True,
    help="Which row of it: int8-basic, int8-tuned or int8-qat.",
)
@click.option("--without-counts", is_flag=True, help="Judge by average precision alone.")
@click.option("--back", is_flag=True, help="Go back to the INT8 file that counted before.")
def command(
    model: str, report: Optional[Path], variant: str, without_counts: bool, back: bool
) -> None:
    """Make an INT8 variant the model's default, if its losses stay inside the recipe's budget.

    It becomes MODEL.int8.onnx, which the service and edgecount build use where INT8 is faster;
    the former one is kept, and --back restores it.
    """
    from edgecount.infer import recipe as recipes
    from edgecount.toolchain.report import promote

    given = Path(model)
    path, recipe = recipes.find(*((None, given) if given.exists() else (model, None)))
    if back:
        click.echo(f"{promote.go_back(path)} is the one from before")
        return
    if report is None:
        raise click.UsageError("give --report, or --back")
    if recipe is None:
        raise click.UsageError(f"{path} has no recipe beside it, and so no budget to judge by")
    result = promote.promote(path, recipe, report, variant, counts_needed=not without_counts)
    for verdict in result.verdicts:
        click.echo(("kept    " if verdict.kept else "FAILED  ") + verdict.text)
    if result.path is None:
        raise click.ClickException(f"{variant} does not become the default: see what failed above")
    click.echo(f"{result.path} counts in INT8 from the next start on; --back undoes it")
