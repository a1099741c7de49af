"""``edgecount doctor``: is this device fit for the job."""

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, List, Optional

import click

from edgecount.cli._options import config_option, json_option

if TYPE_CHECKING:
    from edgecount.toolchain.doctor.finding import Finding

_INDENT = " " * 18
_STYLES = {
    "ok": ("ok", "green"),
    "warn": ("!", "yellow"),
    "fail": ("X", "red"),
    "skip": ("-", None),
}


@click.command()
@config_option()
@json_option()
def command(config: Optional[Path], as_json: bool) -> None:
    """Look at the board, GPU, clock and disk, and with -c at cameras, broker and model.

    Ends with 1 when something fails, else with 0.
    """
    from edgecount.toolchain.doctor.examine import examine
    from edgecount.toolchain.doctor.finding import worst

    findings: List[Finding] = []
    for finding in examine(config):
        findings.append(finding)
        if not as_json:
            _show(finding)
    if as_json:
        payload = {"worst": worst(findings), "findings": [f.payload() for f in findings]}
        click.echo(json.dumps(payload, indent=2, ensure_ascii=False))
    sys.exit(1 if worst(findings) == "fail" else 0)


def _show(finding: "Finding") -> None:
    sign, colour = _STYLES[finding.state]
    detail = finding.detail.replace("\n", f"\n{_INDENT}")
    click.echo(click.style(f"{sign:>2} {finding.check:<14} ", fg=colour) + detail)
    if finding.remedy:
        click.echo(f"{_INDENT}→ {finding.remedy}")
